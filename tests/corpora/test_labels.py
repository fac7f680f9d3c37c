"""Labels: words for none are no classes, number codes need a map, a map matches by content."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.corpora import emodb_tree, put, refusal, write

from staanet.corpora import load_corpus
from staanet.corpora.labels import resolve_labels
from staanet.errors import InvalidInput

MISSING = ("NaN", "nan", "None", "null", "N/A", "?", "-", "True", "False", " NULL ", "<NA>", "n.a.")


def manifest(root: Path, *labels: str) -> Path:
    rows = "".join(f"{number}.wav,{label},s{number}\n" for number, label in enumerate(labels))
    return write(root / "m.csv", f"file,label,speaker\n{rows}")


@pytest.mark.parametrize("word", MISSING)
def test_a_word_for_none_is_no_class(word: str, tmp_path: Path) -> None:
    path = manifest(tmp_path, "joy", word, "rage")
    corpus = load_corpus(f"folder:{path}")
    assert corpus.labels == ("joy", "rage") and len(corpus) == 2
    assert corpus.put_aside == ((f"{path}:3", f"the label is missing ('{word}')"),)


def test_a_folder_named_by_a_word_for_none_is_no_class(tmp_path: Path) -> None:
    put(tmp_path, "joy/a.wav", "None/b.wav", "rage/c.wav")
    corpus = load_corpus(f"folder:{tmp_path}")
    assert corpus.labels == ("joy", "rage") and corpus.put_aside[0][0] == str(tmp_path / "None")


def test_number_codes_ask_for_a_map_and_are_taken_with_one(tmp_path: Path) -> None:
    path = manifest(tmp_path, "1", "02", "3.0", "1")
    message = refusal(path)
    assert "m.csv:2: the label '1' is a number (and so are 02, 3.0)" in message
    assert "--label-map 1=CLASS,02=CLASS,3.0=CLASS" in message
    corpus = load_corpus(f"folder:{path}", label_map={"1": "neutral", "2": "anger", "3": "fear"})
    assert [u.label for u in corpus.utterances] == ["neutral", "anger", "fear", "neutral"]
    assert corpus.labels == ("anger", "fear", "neutral")


def test_a_code_without_an_entry_is_still_refused(tmp_path: Path) -> None:
    message = refusal(manifest(tmp_path, "1", "2"), label_map={"1": "neutral"})
    assert "m.csv:3: the label '2' is a number, which" in message


def test_json_numbers_are_codes_too(tmp_path: Path) -> None:
    text = "".join(f'{{"file": "{n}.wav", "label": {n}, "speaker": {n}}}\n' for n in range(3))
    path = write(tmp_path / "m.jsonl", text)
    corpus = load_corpus(f"folder:{path}", label_map={"0": "neutral", "1": "anger", "2": "none"})
    assert corpus.labels == ("anger", "neutral") and len(corpus) == 2, "'none' leaves a class out"


def test_a_map_matches_by_content_and_merges(tmp_path: Path) -> None:
    path = manifest(tmp_path, "Happy", " excited", "happy ", "sad")
    label_map = {"HAPPY": "happiness", "excited": "happiness"}
    corpus = load_corpus(f"folder:{path}", label_map=label_map)
    assert [u.label for u in corpus.utterances] == ["happiness"] * 3 + ["sad"]
    assert "differs from 'Happy' by upper and lower case" in refusal(path), "without a map"


def test_merged_labels_of_one_file_are_no_conflict(tmp_path: Path) -> None:
    text = "file,label,speaker\na.wav,happy,s\na.wav,excited,s\nb.wav,sad,t\n"
    path = write(tmp_path / "m.csv", text)
    assert len(load_corpus(f"folder:{path}")) == 1
    label_map = {"happy": "happiness", "excited": "happiness"}
    corpus = load_corpus(f"folder:{path}", label_map=label_map)
    assert [u.label for u in corpus.utterances] == ["happiness", "sad"]


def test_a_key_that_is_no_label_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = manifest(tmp_path, "happy", "sad")
    message = refusal(path, label_map={"hapy": "happiness"})
    assert (
        "unknown label in the label map: 'hapy'. Did you mean 'happy'? Known: happy, sad" in message
    )
    message = refusal(path, label_map={"sad": "sadness", "SAD": "grief"})
    assert "the label map gives 'SAD' two classes" in message


def test_a_corpus_with_names_of_its_own_is_mapped_too(tmp_path: Path) -> None:
    root = emodb_tree(tmp_path)
    label_map = {"happiness": "joy", "boredom": "neutral", "disgust": "-"}
    corpus = load_corpus(f"emodb:{root}", label_map=label_map)
    assert corpus.labels == ("anger", "fear", "joy", "neutral", "sadness") and len(corpus) == 60
    assert "clips without a class by the label map left out: 10" in corpus.notes
    counts = {label: sum(u.label == label for u in corpus.utterances) for label in corpus.labels}
    assert counts["neutral"] == 20 and counts["joy"] == 10
    message = refusal(f"emodb:{root}", label_map={"hapiness": "joy"})
    assert "Did you mean 'happiness'?" in message


def test_few_clips_of_a_class_are_a_warning(tmp_path: Path) -> None:
    corpus = load_corpus(f"folder:{manifest(tmp_path, *['joy'] * 12, *['rage'] * 9)}")
    few = [warning for warning in corpus.warnings if "fewer than" in warning]
    assert few == ["classes of fewer than 10 clips: rage 9; figures on them say little"]


@given(st.dictionaries(st.text(), st.text(), max_size=5), st.lists(st.text(max_size=9), max_size=9))
def test_any_labels_and_map_give_classes_or_a_refusal(label_map: dict, words: list) -> None:
    try:
        classes = resolve_labels(dict.fromkeys(words, "m.csv:2"), label_map)
    except InvalidInput as error:
        assert "\n" not in str(error)
        return
    assert classes.keys() == set(words)
    assert all(label is None or label.strip() for label in classes.values())
