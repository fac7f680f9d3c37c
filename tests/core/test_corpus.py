"""A corpus is iterated, indexed and sliced as a sequence of clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from staanet import audio, storage
from staanet.core import Corpus, Utterance
from staanet.errors import UnusableClip

RATE = 16_000
RAMPS = [np.arange(start, start + 400, dtype=np.int16) for start in (-200, 0, 9000)]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    for index, ramp in enumerate(RAMPS):
        storage.write_bytes(tmp_path / f"{index}.wav", audio.encode(ramp, RATE))
    utterances = [
        Utterance(str(index), tmp_path / f"{index}.wav", "ab"[index % 2], f"s{index}")
        for index in range(len(RAMPS))
    ]
    return Corpus("ramps", tuple(utterances), ("a", "b"))


def test_iteration_gives_floats_and_the_exact_integers(corpus: Corpus) -> None:
    clips = list(corpus)
    assert [(c.id, c.label, c.speaker) for c in clips] == [
        ("0", "a", "s0"),
        ("1", "b", "s1"),
        ("2", "a", "s2"),
    ]
    for clip, ramp in zip(clips, RAMPS, strict=True):
        assert clip.samples.dtype == np.float32 and np.abs(clip.samples).max() <= 1
        assert np.array_equal(clip.samples, ramp / 32768)
        assert clip.pcm16.dtype == np.int16 and np.array_equal(clip.pcm16, ramp)
        assert np.array_equal(clip.waveform.numpy(), clip.samples)


def test_an_index_gives_a_clip_and_a_slice_a_corpus(corpus: Corpus) -> None:
    assert corpus[1].id == "1" and np.array_equal(corpus[1].pcm16, RAMPS[1])
    assert corpus[-1].id == "2"
    some = corpus[:2]
    assert isinstance(some, Corpus) and len(some) == 2 and some.labels == ("a", "b")
    assert [clip.id for clip in some] == ["0", "1"]
    assert [clip.id for clip in corpus[::-1]] == ["2", "1", "0"]
    with pytest.raises(IndexError):
        corpus[3]


def test_clips_come_at_the_rate_of_the_corpus(corpus: Corpus) -> None:
    half = replace(corpus, sample_rate=8000)
    assert half[0].sample_rate == 8000 and len(half[0].pcm16) == 200


def test_a_file_that_cannot_be_used_is_named(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "1.wav").write_bytes(b"")
    with pytest.raises(UnusableClip, match=r"1\.wav: not audio \(0 bytes\)"):
        list(corpus)
    assert [clip.id for clip in corpus.clips(RATE, lambda *_: None)] == ["0", "2"]
