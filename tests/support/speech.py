"""Speech for tests: tones made on the spot, and the folders of real corpora."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from staanet import audio
from staanet.core import Clip

RATE = 16_000


def tone(seconds: float, hz: float, seed: int = 0, level: float = 0.3) -> np.ndarray:
    """A tone in noise, as 16-bit integers."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    return audio.snap(level * np.sin(2 * np.pi * hz * time) + 0.01 * rng.standard_normal(len(time)))


def clip(seconds: float = 0.25, hz: float = 300.0, seed: int = 0, **about: str) -> Clip:
    return Clip(about.pop("id", f"clip{seed}"), tone(seconds, hz, seed), RATE, **about)


def real_speech(kind: str) -> Path:
    """The folder of a real corpus, or a skip that says how to provide it."""
    root = os.environ.get("STAANET_DATA")
    if not root or not (Path(root) / kind).is_dir():
        pytest.skip(f"real speech: set STAANET_DATA to a folder that holds {kind}/")
    return Path(root) / kind
