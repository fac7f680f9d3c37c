"""A small run for the tests of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support import speech

from staanet import attacks, storage
from staanet.generators.registry import build_generator, save_generator
from staanet.victims import build_victim, load_victim


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained victims, a generator that knows one of them, and four clean clips."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    torch.manual_seed(0)
    for name in ("emo18", "zhao19"):
        victim = build_victim(name, ("high", "low"))
        victim.save_pretrained(run / "victims" / name)
    sha256 = storage.read_card(run / "victims" / "emo18", "victim")["sha256"]
    generator = build_generator("small", density=0.1)
    save_generator(
        generator, run / "generators" / "emo18", source="emo18", source_sha256=sha256, epsilon=0.02
    )
    clips = [
        speech.clip(0.5, hz, seed, label="high" if hz > 500 else "low", speaker=f"s{seed}")
        for seed, hz in enumerate((200.0, 300.0, 1000.0, 1100.0))
    ]
    crafted = attacks.craft(attacks.Random(), load_victim(run / "victims" / "emo18"), clips)
    crafted.save(run / "adversarial" / "random__emo18")
    return run
