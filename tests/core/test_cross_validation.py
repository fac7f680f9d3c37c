"""Folds: every clip in exactly one test part, no speaker in two parts, every class in training."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staanet.core import Corpus, Utterance
from staanet.core.cross_validation import fold_protocol
from staanet.errors import InvalidInput


def corpus_of(labels_of: dict[str, str], sexes: str = "fm", **options: str) -> Corpus:
    """Two clips of each label of each speaker."""
    clips = tuple(
        Utterance(
            f"{speaker}{label}{n}",
            Path(f"{speaker}{label}{n}.wav"),
            label,
            speaker,
            sex=sexes[index % len(sexes)],
            content=f"sentence {n}",
        )
        for index, (speaker, labels) in enumerate(sorted(labels_of.items()))
        for label in labels
        for n in range(2)
    )
    return Corpus("made", clips, tuple(sorted(set("".join(labels_of.values())))), **options)


def folds_of(corpus: Corpus, count: int, seed: int = 0) -> list[tuple[Corpus, Corpus, Corpus]]:
    return [corpus.split(seed, fold_protocol(number, count)) for number in range(1, count + 1)]


@given(st.integers(3, 14), st.integers(3, 7), st.integers(0, 99))
def test_every_clip_is_tested_once_by_models_of_other_speakers(speakers, count, seed):
    corpus = corpus_of({f"{n:02d}": "ab" for n in range(max(speakers, count))})
    folds = folds_of(corpus, count, seed)
    tested = sorted(u.id for _, _, test in folds for u in test.utterances)
    assert tested == sorted(u.id for u in corpus.utterances)
    assert sorted(s for _, dev, _ in folds for s in dev.speakers) == sorted(corpus.speakers)
    for parts in folds:
        heard = [speaker for part in parts for speaker in part.speakers]
        assert sorted(heard) == sorted(corpus.speakers), "each speaker is in exactly one part"
        assert {u.label for u in parts[0].utterances} == {"a", "b"}
    sizes = [len(test.speakers) for _, _, test in folds]
    assert max(sizes) - min(sizes) <= 1


def test_the_sexes_are_dealt_evenly_and_the_seed_draws():
    corpus = corpus_of({f"{n:02d}": "ab" for n in range(10)})
    for _, _, test in folds_of(corpus, 5):
        assert {u.sex for u in test.utterances} == {"f", "m"}
    first, second = ([test.speakers for _, _, test in folds_of(corpus, 5, seed)] for seed in (0, 1))
    assert first != second and first == [test.speakers for _, _, test in folds_of(corpus, 5)]
    assert len({parts[0].split_hash for parts in folds_of(corpus, 5)}) == 5


def test_a_rare_class_is_dealt_so_that_every_training_part_has_it():
    rare = {f"{n:02d}": "abc" if n < 4 else "ab" for n in range(12)}
    for train, _, _ in folds_of(corpus_of(rare), 4):
        assert {u.label for u in train.utterances} == {"a", "b", "c"}


def test_where_speakers_are_the_classes_sentences_are_dealt():
    clips = tuple(
        Utterance(f"{s}{n}", Path(f"{s}{n}.wav"), s, s, content=f"text {n}")
        for s in ("x", "y")
        for n in range(6)
    )
    corpus = Corpus("made", clips, ("x", "y"), classes="speaker")
    folds = folds_of(corpus, 3)
    assert sorted(c for _, _, test in folds for c in test.contents) == sorted(corpus.contents)
    assert all(not set(train.contents) & set(test.contents) for train, _, test in folds)


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("fold:1/2", "is no fold of 3 or more"),
        ("fold:6/5", "is no fold"),
        ("fold:0/5", "is no fold"),
        ("fold:x/5", "is no fold"),
        ("fold:1/9", "4 speakers cannot be divided into 9 folds"),
    ],
)
def test_what_cannot_be_is_refused(protocol, said):
    with pytest.raises(InvalidInput, match=said):
        corpus_of(dict.fromkeys("wxyz", "ab")).split(0, protocol)


def test_a_class_of_one_speaker_cannot_be_tested_and_trained():
    with pytest.raises(InvalidInput, match="class 'c' would have 0 train clips in fold"):
        corpus_of({"w": "abc", "x": "ab", "y": "ab", "z": "ab"}).split(0, "fold:1/4")
