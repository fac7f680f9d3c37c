"""Parquet with the sound inside, as Hugging Face ``datasets`` writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.corpora import refusal, write
from tests.support.speech import RATE, tone

from staanet import audio
from staanet.audio.embedded import split_embedded
from staanet.corpora import cache, describe, load_corpus
from staanet.errors import UnusableClip

NAMES = ["anger", "neutral"]
SOUND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def samples_of(number: int) -> np.ndarray:
    return tone(0.1 + number / 100, 200, seed=number)


def shard(path: Path, numbers: range, *, sounds: list | None = None, group: int = 3) -> Path:
    """Write a file as ``datasets`` does: sound, class number and speaker, and its features."""
    cells = sounds or [
        {"bytes": audio.encode(samples_of(n), RATE), "path": f"clip{n}.wav"} for n in numbers
    ]
    features = {
        "audio": {"sampling_rate": RATE, "_type": "Audio"},
        "label": {"names": NAMES, "_type": "ClassLabel"},
        "speaker_id": {"dtype": "int64", "_type": "Value"},
    }
    table = pa.table(
        {
            "audio": pa.array(cells, SOUND),
            "label": pa.array([n % 2 for n in numbers], pa.int64()),
            "speaker_id": pa.array([n % 5 for n in numbers], pa.int64()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def test_sound_class_names_and_speakers_are_read(tmp_path: Path) -> None:
    path = shard(tmp_path / "train.parquet", range(10))
    corpus = load_corpus(f"folder:{path}")
    assert corpus.labels == ("anger", "neutral") and len(corpus.speakers) == 5
    assert [u.id for u in corpus.utterances] == [f"clip{n}" for n in range(10)]
    assert str(corpus.utterances[7].path) == f"{path}#7"
    for number, clip in enumerate(corpus):
        assert np.array_equal(clip.pcm16, samples_of(number)), "bit for bit"
        assert clip.label == NAMES[number % 2] and clip.speaker == str(number % 5)
    for number in (9, 0, 4, 3, 8):  # in any order
        assert np.array_equal(corpus[number].pcm16, samples_of(number))
    described = describe(corpus)
    assert not described["problems"] and described["clips"] == 10


def test_shards_of_datasets_are_parts(tmp_path: Path) -> None:
    shard(tmp_path / "data" / "train-00000-of-00002.parquet", range(6))
    shard(tmp_path / "data" / "train-00001-of-00002.parquet", range(6, 8))
    shard(tmp_path / "data" / "test-00000-of-00001.parquet", range(8, 10))
    write(tmp_path / "README.md", "words")
    corpus = load_corpus(f"folder:{tmp_path}")
    assert {u.id: u.part for u in corpus.utterances} == {
        f"clip{n}": "train" if n < 8 else "test" for n in range(10)
    }
    assert np.array_equal(corpus[7].pcm16, samples_of(7))


def test_a_sound_that_cannot_be_used_is_put_aside_alone(tmp_path: Path) -> None:
    good = audio.encode(samples_of(0), RATE)
    sounds = [
        {"bytes": good, "path": "a.wav"},
        {"bytes": b"RIFF", "path": "b.wav"},
        {"bytes": None, "path": "c.wav"},
        {"bytes": good[: len(good) // 2], "path": "d.wav"},
        None,
    ]
    corpus = load_corpus(f"folder:{shard(tmp_path / 'm.parquet', range(5), sounds=sounds)}")
    problems = dict(describe(corpus)["problems"])
    assert "not audio (4 bytes)" in problems[f"{tmp_path / 'm.parquet'}#1"]
    assert (
        "row 2 names audio that the file does not contain"
        in problems[f"{tmp_path / 'm.parquet'}#2"]
    )
    assert "declared" in problems[f"{tmp_path / 'm.parquet'}#3"] and len(problems) == 4
    assert len(list(corpus.clips(RATE, lambda utterance, problem: None))) == 1
    with pytest.raises(UnusableClip, match="limit of 10 bytes"):
        audio.read_audio(f"{tmp_path / 'm.parquet'}#0", audio.AudioLimits(max_bytes=10))
    with pytest.raises(UnusableClip, match="has no row 99"):
        audio.read_audio(f"{tmp_path / 'm.parquet'}#99")


def test_equal_names_inside_give_different_ids(tmp_path: Path) -> None:
    cells = [{"bytes": audio.encode(samples_of(n), RATE), "path": "audio.wav"} for n in range(3)]
    corpus = load_corpus(f"folder:{shard(tmp_path / 'm.parquet', range(3), sounds=cells)}")
    assert len({u.id for u in corpus.utterances}) == 3
    for utterance in corpus.utterances:
        _, row = split_embedded(utterance.path)
        assert np.array_equal(corpus.load(utterance, RATE).pcm16, samples_of(row))


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "m.parquet", range(4))
    corpus = load_corpus(f"folder:{path}")
    path.write_bytes(path.read_bytes()[:100])
    assert "is not a readable Parquet file" in refusal(path)
    with pytest.raises(UnusableClip, match="is not a readable Parquet file"):
        corpus[0]
    path.unlink()
    with pytest.raises(UnusableClip, match="No such file"):
        corpus[0]


def test_a_file_named_like_a_row_is_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "joy" / "a.parquet#1", audio.encode(samples_of(1), RATE))
    assert split_embedded(path) is None
    assert np.array_equal(audio.load_samples(path, RATE), samples_of(1))


def test_embedded_sound_is_cached_by_its_content(tmp_path: Path) -> None:
    corpus = load_corpus(f"folder:{shard(tmp_path / 'm.parquet', range(3))}")
    before = cache.content_key(corpus, RATE)
    assert np.array_equal(cache.with_cache(corpus, tmp_path / "c")[2].pcm16, samples_of(2))
    shard(tmp_path / "m.parquet", range(1, 4))
    assert cache.content_key(corpus, RATE) != before
