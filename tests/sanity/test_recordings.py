"""One recording in two parts is found, whatever was done to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.speech import RATE, tone

from staanet import audio, storage
from staanet.core import Corpus, Utterance
from staanet.sanity.recordings import shared_recordings


def noise(seed: int, seconds: float = 0.5) -> np.ndarray:
    return audio.snap(0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)))


def parts(tmp_path: Path, train: np.ndarray, test: np.ndarray) -> list[Corpus]:
    made = []
    for part, extra in (("train", train), ("test", test)):
        rows = []
        own = [noise(i + 10 * (part == "test")) for i in range(4)]
        for number, samples in enumerate([*own, extra]):
            path = tmp_path / f"{part}{number}.wav"
            storage.write_bytes(path, audio.encode(samples, RATE))
            rows.append(Utterance(path.stem, path, "a", part))
        made.append(Corpus("c", tuple(rows), ("a",), part=part))
    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.copy(),
        lambda x: (x // 3).astype(np.int16),
        lambda x: -x // 2,
        lambda x: np.roll(x, 400),
        lambda x: x[500:].copy(),
        lambda x: (x + np.random.default_rng(0).normal(0, 0.1 * x.std(), len(x))).astype(np.int16),
    ],
    ids=["equal", "quieter", "upside down", "later", "trimmed", "noisy"],
)
def test_one_recording_in_two_parts_is_found(tmp_path, change):
    samples = tone(0.5, 300.0, seed=3) // 2 + noise(99)
    found = shared_recordings(parts(tmp_path, samples, change(samples)))
    assert len(found) == 1 and "train4 in train and test4 in test" in found[0]


def test_two_recordings_are_not_taken_for_one(tmp_path):
    assert shared_recordings(parts(tmp_path, noise(98), noise(99))) == []
