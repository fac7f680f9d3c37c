"""A corpus decoded once gives the clips that its sources give, and never stale or damaged ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.support.speech import tone

from staanet import audio, storage
from staanet.core import Corpus, Utterance
from staanet.core import corpus as corpus_module
from staanet.corpora import cache
from staanet.errors import UnusableClip


@pytest.fixture
def corpus(tmp_path):
    for number in range(3):
        storage.write_bytes(
            tmp_path / f"{number}.wav", audio.encode(tone(0.3 + number / 10, 300), 16_000)
        )
    storage.write_bytes(tmp_path / "3.wav", b"no audio at all")
    whole = [Utterance(str(n), tmp_path / f"{n}.wav", "joy", "s") for n in range(4)]
    part = Utterance("part", tmp_path / "1.wav", "joy", "s", start_s=0.1, end_s=0.3)
    return Corpus("c", (*whole, part), ("joy",))


def read(corpus, rate=16_000):
    return {clip.id: clip for clip in corpus.clips(rate, lambda utterance, problem: None)}


def counted(monkeypatch):
    calls = []
    load = corpus_module.load_recording
    monkeypatch.setattr(
        corpus_module,
        "load_recording",
        lambda path, *a, **k: calls.append(path) or load(path, *a, **k),
    )
    return calls


@pytest.mark.parametrize("rate", [16_000, 8_000])
def test_its_clips_are_those_of_the_sources_and_are_decoded_once(
    corpus, rate, tmp_path, monkeypatch
):
    wanted, calls = read(corpus, rate), counted(monkeypatch)
    for _ in range(3):
        found = read(cache.with_cache(corpus, tmp_path / "kept"), rate)
        assert found.keys() == wanted.keys() == {"0", "1", "2", "part"}
        for name, clip in found.items():
            assert np.array_equal(clip.pcm16, wanted[name].pcm16)
            assert clip.pcm16.dtype == np.int16 and not clip.pcm16.flags.writeable
    assert len(calls) == 5 + 3  # all once; the unusable one each time, so that it is told each time


def test_a_part_of_it_reads_the_same_file_and_an_unusable_clip_is_told(corpus, tmp_path):
    kept = cache.with_cache(corpus, tmp_path / "kept")
    part = dataclasses.replace(kept, utterances=kept.utterances[2:])
    with pytest.raises(UnusableClip, match="3.wav"):
        list(part.clips(16_000))
    assert len(list((tmp_path / "kept").glob("*.i16"))) == 1


def test_a_changed_source_is_decoded_anew(corpus, tmp_path):
    before = read(cache.with_cache(corpus, tmp_path / "kept"))["0"]
    storage.write_bytes(corpus.utterances[0].path, audio.encode(tone(0.3, 500), 16_000))
    after = read(cache.with_cache(corpus, tmp_path / "kept"))["0"]
    assert not np.array_equal(before.pcm16, after.pcm16)
    assert np.array_equal(after.pcm16, read(corpus)["0"].pcm16)


@pytest.mark.parametrize("harm", ["flip", "cut", "index"])
def test_a_damaged_file_is_written_again(corpus, harm, tmp_path):
    wanted = read(cache.with_cache(corpus, tmp_path / "kept"))
    (path,) = (tmp_path / "kept").glob("*.i16")
    data = bytearray(path.read_bytes())
    if harm == "index":
        path.with_suffix(".json").unlink()
    else:
        data[7] ^= 1
        path.unlink()
        path.write_bytes(data if harm == "flip" else data[:100])
    found = read(cache.with_cache(corpus, tmp_path / "kept"))
    assert all(np.array_equal(found[name].pcm16, wanted[name].pcm16) for name in wanted)


def test_without_a_place_to_write_the_sources_are_read(corpus, tmp_path):
    (tmp_path / "kept").write_text("a file where the folder should be")
    assert read(cache.with_cache(corpus, tmp_path / "kept")).keys() == read(corpus).keys()


def test_discard_removes_what_was_kept_and_nothing_else(corpus, tmp_path):
    read(cache.with_cache(corpus, tmp_path / "kept"))
    (tmp_path / "kept" / "note.txt").write_text("mine")
    cache.discard_cache(tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["note.txt"]
    (tmp_path / "kept" / "note.txt").unlink()
    cache.discard_cache(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    cache.discard_cache(tmp_path / "kept")  # nothing there is no fault
