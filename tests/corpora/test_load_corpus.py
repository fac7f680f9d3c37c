"""A corpus is named KIND:PATH; what is not one is corrected."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.corpora import refusal, write_wav

from staanet import audio
from staanet.corpora import CORPORA, load_corpus
from staanet.errors import InvalidInput, UnusableClip


@pytest.mark.parametrize("kind", sorted(set(CORPORA) - {"synthetic", "audb"}))
def test_a_missing_path_says_what_to_write(kind: str, tmp_path: Path) -> None:
    message = refusal(f"{kind}:{tmp_path / 'nowhere'}")
    assert "no such folder" in message and f"{kind}:PATH" in message


@pytest.mark.parametrize("kind", ["emodb", "ravdess"])
def test_an_empty_corpus_says_what_was_looked_for(kind: str, tmp_path: Path) -> None:
    sought = {"emodb": "03a01Fa.wav", "ravdess": "03-01-06-01-02-01-12.wav"}[kind]
    assert sought in refusal(f"{kind}:{tmp_path}")
    file = write_wav(tmp_path / "speech.wav")
    assert "speech.wav" in refusal(f"{kind}:{tmp_path}")
    assert "not a folder" in refusal(f"{kind}:{file}")


def test_a_mistyped_kind_is_corrected() -> None:
    assert "Did you mean 'emodb'?" in refusal("emobd:x")
    assert "KIND:PATH" in refusal("some/folder")
    assert "Pass synthetic:FOLDER" in refusal("synthetic:")


def test_the_home_folder_and_limits_are_honoured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_wav(tmp_path / "e" / "03a01Fa.wav", frames=500)
    corpus = load_corpus("emodb:~/e", audio.AudioLimits(max_seconds=0.01))
    with pytest.raises(UnusableClip):
        corpus.load(corpus.utterances[0], 16_000)
    assert "no such folder" in refusal("emodb:~nobody-has-this-name/e")


@pytest.mark.parametrize("spec", ["data/mine.csv", "manifest:data/mine.csv", "csv:data/mine.CSV"])
def test_a_manifest_without_its_kind_is_told_how_to_be_named(spec):
    with pytest.raises(InvalidInput, match=f"Write folder:{spec.rpartition(':')[2]}"):
        load_corpus(spec)
