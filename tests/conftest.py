"""What the tests share: a victim with a closed-form optimum, and tiny corpora made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from bench import guard, kill
from bench.forks import Commands
from torch import Tensor

from staanet import audio, storage
from staanet.core import Clip, Victim

RATE = 16_000


def pytest_configure(config: pytest.Config) -> None:
    """No pickle, no socket, no write outside of folders for temporary files, in the whole test run."""
    guard.install()


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The real command line in forked children: hundreds of commands cost one import of torch."""
    with Commands(tmp_path_factory.mktemp("cwd")) as server:
        yield server


@pytest.fixture(scope="module")
def world(tmp_path_factory, commands):
    """A corpus, a trained run and an attacked set, small enough to work on again and again."""
    return kill.World.made(tmp_path_factory.mktemp("world"), commands)


class LinearVictim(Victim):
    """Two classes, logits ``(w . x, -w . x)`` on the raw waveform: the optimum is known by hand.

    Within epsilon the margin ``2 |w . x|`` falls by at most ``2 epsilon ||w||_1``; with k samples,
    by twice epsilon times the sum of the k largest ``|w|``.
    """

    architecture = "linear"

    def __init__(self, weight: Tensor) -> None:
        super().__init__(name="linear", labels=("up", "down"))
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        score = waveforms @ self.weight[: waveforms.shape[1]]
        return torch.stack([score, -score], dim=1)


@pytest.fixture
def linear() -> LinearVictim:
    return LinearVictim(torch.randn(1600, generator=torch.Generator().manual_seed(0)))


def tone(seconds: float, hz: float, seed: int = 0, level: float = 0.3) -> np.ndarray:
    """A tone in noise, as 16-bit integers."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    return audio.snap(level * np.sin(2 * np.pi * hz * time) + 0.01 * rng.standard_normal(len(time)))


def clip(seconds: float = 0.25, hz: float = 300.0, seed: int = 0, **about: str) -> Clip:
    return Clip(about.pop("id", f"clip{seed}"), tone(seconds, hz, seed), RATE, **about)


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


def real_speech(kind: str) -> Path:
    """The folder of a real corpus, or a skip that says how to provide it."""
    root = os.environ.get("STAANET_DATA")
    if not root or not (Path(root) / kind).is_dir():
        pytest.skip(f"real speech: set STAANET_DATA to a folder that holds {kind}/")
    return Path(root) / kind


TINY_RECIPE = """
name = "tiny"
corpus = "folder:{corpus}"

[victims.emo18]
steps = 12
batch_size = 4
seconds = 0.25
evaluate_every = 6

[victims.zhao19]
steps = 6
batch_size = 4
seconds = 0.25
evaluate_every = 6

[generator]
sources = ["emo18"]
steps = 6
batch_size = 4
seconds = 0.25
evaluate_every = 3

[attacks.random]
match = "staa"

[attacks.staa]
title = "STAA-Net"
max_density = 0.2

[attacks.pgd]
settings = {{ steps = 2 }}
"""


@pytest.fixture
def tiny_recipe(tiny_corpus: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_RECIPE.format(corpus=tiny_corpus.as_posix()), encoding="utf-8")
    return path
