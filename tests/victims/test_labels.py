"""Labels of a model and of a corpus meet by their meaning, or both lists are shown."""

from __future__ import annotations

import pytest
import torch
from tests.support.models import LinearVictim

from staanet.defences import Defended
from staanet.errors import InvalidInput
from staanet.transforms import parse_transform
from staanet.victims.labels import (
    WORDS,
    canonical_label,
    check_class_labels,
    match_labels,
    rename_labels,
)

CORPUS = ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness")


@pytest.mark.parametrize(
    "labels",
    [
        ("ang", "bor", "dis", "fea", "hap", "neu", "sad"),
        ("Angry", "Bored", "Disgusted", "Fearful", "Happy", "Neutral", "Sad"),
        ("Ärger", "Langeweile", "Ekel", "Angst", "Freude", "neutral", "Trauer"),
        ("rabbia", "noia", "disgusto", "paura", "gioia", "neutrale", "tristezza"),
    ],
)
def test_well_known_words_meet_and_are_told(labels):
    match = match_labels(labels, CORPUS)
    assert tuple(match.mapping.values()) == CORPUS and not match.corpus_only
    assert all(f"{a} = {b}" in match.note for a, b in zip(labels, CORPUS, strict=True) if a != b)
    match.check("model", "corpus")


def test_equal_words_need_no_note_and_go_before_words_for_the_same():
    assert match_labels(CORPUS, CORPUS).note == ""
    match = match_labels(["happy", "happiness", "sad"], ["happiness", "sadness"])
    assert match.mapping == {"happiness": "happiness", "sad": "sadness"}
    assert match.model_only == ("happy",)


def test_two_words_for_one_class_are_left_apart():
    match = match_labels(["happy", "joyful", "sad", "angry"], CORPUS)
    assert (
        match.mapping == {"sad": "sadness", "angry": "anger"} and "happiness" in match.corpus_only
    )


def test_where_fewer_than_two_classes_meet_both_lists_are_shown():
    match = match_labels(["cat", "dog", "neutral"], ["anger", "neutral"])
    with pytest.raises(InvalidInput) as error:
        match.check("pets", "emodb")
    text = str(error.value)
    assert all(word in text for word in ("cat", "dog", "anger", "--label-map", "pets", "emodb"))


@pytest.mark.parametrize("labels", [["LABEL_0", "LABEL_1"], ["0", "1"], ["class 1", "class 2"]])
def test_placeholders_are_refused_until_a_map_says_what_they_are(labels):
    with pytest.raises(InvalidInput, match="--label-map"):
        match_labels(labels, ["anger", "joy"])
    label_map = dict(zip(labels, ["joy", "anger"], strict=True))
    assert match_labels(labels, ["anger", "joy"], label_map).mapping == label_map
    assert match_labels(["0", "1"], ["0", "1"]).mapping == {"0": "0", "1": "1"}


@pytest.mark.parametrize(
    "label_map, said",
    [
        ({"cat": "anger"}, "'cat'"),
        ({"ang": "rage"}, "'rage'"),
        ({"ang": "anger", "hap": "anger"}, "two labels"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(label_map, said):
    with pytest.raises(InvalidInput, match=said):
        match_labels(["ang", "hap"], ["anger", "happiness"], label_map)


def test_a_renamed_victim_answers_in_the_corpus_s_words_through_a_defence():
    inner = LinearVictim(torch.ones(100))
    inner.labels = ("angry", "other")
    victim = Defended(inner, [parse_transform("median:3")])
    rename_labels(victim, match_labels(victim.labels, CORPUS))
    assert victim.labels == inner.labels == ("anger", "other")


@pytest.mark.parametrize(
    "labels, said",
    [
        (["arousal", "dominance", "valence"], "regression"),
        (["Valence", "Activation"], "regression"),
        (["anger"], "1 class"),
        (["anger", "joy", "Anger"], "2 times"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, said):
    with pytest.raises(InvalidInput, match=said):
        check_class_labels(labels, where="model")


def test_no_word_stands_for_two_emotions():
    for noun, words in WORDS.items():
        assert all(canonical_label(word) == noun for word in (noun, *words.split()))
