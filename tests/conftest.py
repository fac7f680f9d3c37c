"""What the tests share: a victim with a closed-form optimum, and tiny corpora made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support import audit_hook, kill
from tests.support.commands import command_server
from tests.support.forks import leave_undrawn
from tests.support.models import LinearVictim
from tests.support.recipes import TINY_RECIPE
from tests.support.speech import RATE, tone

from staanet import audio, storage


def pytest_configure(config: pytest.Config) -> None:
    """No pickle, no socket, no write outside of folders for temporary files, in the whole test run."""
    audit_hook.install()


@pytest.fixture(scope="module", autouse=True)
def undrawn(request):
    """Reports without pictures, in whose place stands a digest, but for modules with ``DRAWN = True``."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWN", False):
            leave_undrawn(patch.setattr)
        yield


@pytest.fixture(scope="session")
def commands():
    """The real command line in forked children: all commands of a worker cost one import of torch."""
    return command_server()


@pytest.fixture(scope="session")
def world(tmp_path_factory, commands):
    """A corpus, a trained run and an attacked set, small enough to work on again and again."""
    return kill.World.made(tmp_path_factory.mktemp("world"), commands)


@pytest.fixture
def linear() -> LinearVictim:
    return LinearVictim(torch.randn(1600, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def tiny_corpus(tmp_path: Path) -> Path:
    """Class folders with six speakers: 'low' and 'high' tones, two clips of each by each speaker."""
    root = tmp_path / "tiny"
    for number, label in enumerate(("high", "low")):
        for speaker in range(6):
            for take in range(2):
                folder = root / label / f"s{speaker}"
                folder.mkdir(parents=True, exist_ok=True)
                hz = (1200.0, 200.0)[number] * (1 + 0.02 * speaker)
                samples = tone(0.3 + 0.02 * take, hz, seed=100 * number + 10 * speaker + take)
                storage.write_bytes(folder / f"{take}.wav", audio.encode(samples, RATE))
    return root


@pytest.fixture
def tiny_recipe(tiny_corpus: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_RECIPE.format(corpus=tiny_corpus.as_posix()), encoding="utf-8")
    return path
