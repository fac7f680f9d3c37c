"""Corpora for tests: tiny files and trees, and the message of a refusal."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.speech import RATE, tone

from staanet import audio, storage
from staanet.core import Corpus
from staanet.corpora import load_corpus
from staanet.errors import InvalidInput

EMODB_CLASSES = ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness")
SEGMENTS = (
    "file,start,end,emotion,speaker\n"
    "a.wav,0 days 00:00:00,0 days 00:00:01.2,joy,s\n"
    "a.wav,0 days 00:00:01.200000,0 days 00:00:02.500000,rage,s\n"
    "a.wav,2.5,NaT,joy,t\n"
    "b.wav,0 days,,joy,t\n"
)
"""A table of audformat: parts of two files."""


def write_wav(
    path: Path, seed: int = 0, rate: int = 16_000, channels: int = 1, frames: int = 400
) -> Path:
    """A WAV file made from bytes: faint noise, another for each seed."""
    rng = np.random.default_rng(seed)
    data = rng.integers(-900, 900, frames * channels, dtype=np.int16).astype("<i2").tobytes()
    form = (1).to_bytes(2, "little") + channels.to_bytes(2, "little") + rate.to_bytes(4, "little")
    form += (rate * 2 * channels).to_bytes(4, "little") + (2 * channels).to_bytes(2, "little")
    form += (16).to_bytes(2, "little")
    body = b"WAVEfmt " + (16).to_bytes(4, "little") + form
    body += b"data" + len(data).to_bytes(4, "little") + data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    return path


def put(root: Path, *names: str, length_s: float = 0.1, rate: int = RATE) -> None:
    """Write a tone in noise under each name, another one for each."""
    for number, name in enumerate(names):
        samples = tone(length_s * rate / RATE, 200, seed=number)
        storage.write_bytes(root / name, audio.encode(samples, rate))


def write(path: Path, content: str | bytes) -> Path:
    """Write a text or bytes, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(path: Path, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def refusal(spec: str | Path, **options: object) -> str:
    """Return the one line with which a corpus (``KIND:PATH``, or the path of a folder) is refused."""
    with pytest.raises(InvalidInput) as caught:
        load_corpus(spec if isinstance(spec, str) else f"folder:{spec}", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def speakers_are_apart(corpus: Corpus) -> None:
    for seed in range(5):
        parts = corpus.split(seed)
        speakers = [set(part.speakers) for part in parts]
        assert sum(map(len, speakers)) == len(set.union(*speakers)) == len(corpus.speakers)
        for part in parts:
            assert {u.label for u in part.utterances} == set(corpus.labels)
            assert {u.sex for u in part.utterances} == {"female", "male"}
        again = corpus.split(seed)
        assert [p.split_hash for p in parts] == [p.split_hash for p in again]
        assert [p.utterances for p in parts] == [p.utterances for p in again]


def ids_are_sorted_and_unique(corpus: Corpus) -> None:
    ids = [u.id for u in corpus.utterances]
    assert ids == sorted(set(ids))


def emodb_tree(root: Path, order: random.Random | None = None) -> Path:
    speakers = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
    names = [f"{s}a01{letter}a.wav" for s in speakers for letter in "WLEAFTN"]
    if order:
        order.shuffle(names)
    for seed, name in enumerate(names):
        write_wav(root / "wav" / name, seed)
    return root


def segment_times(corpus: Corpus) -> dict[str, tuple[float, float | None]]:
    """Start and end of each utterance by id."""
    return {u.id: (u.start_s, u.end_s) for u in corpus.utterances}
