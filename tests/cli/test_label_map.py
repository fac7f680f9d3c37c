"""``--label-map`` brings a model's labels to the words of the clips, and a mistyped label is refused."""

from __future__ import annotations

import pytest
from torch import nn

from staanet.cli.session import check_label_map, load_corpus
from staanet.config import SplitRecipe
from staanet.errors import InvalidInput
from staanet.pipeline import Context
from staanet.pipeline.victim_check import match_clip_labels
from staanet.victims import TorchVictim


def victim_of(*labels):
    module = nn.Linear(100, len(labels))
    return TorchVictim(module, labels, 16_000)


def test_pairs_go_to_the_corpus_or_to_the_model_and_typing_errors_to_neither(tiny_corpus):
    victim = victim_of("LABEL_0", "LABEL_1")
    split = SplitRecipe(label_map={"high": "up", "LABEL_0": "up", "LABEL_1": "low"})
    corpus = load_corpus(f"folder:{tiny_corpus}", split, victims=[victim])
    assert {utterance.label for utterance in corpus.utterances} == {"up", "low"}
    context = Context(label_map=split.label_map)
    labels = [utterance.label for utterance in corpus.utterances]
    match_clip_labels([victim], labels, context, where="clips")
    assert victim.labels == ("up", "low") and "LABEL_0 = up" in context.quarantine.notes[0]
    match_clip_labels([victim], labels, context, where="clips")
    with pytest.raises(InvalidInput, match="LABEL_7"):
        load_corpus(
            f"folder:{tiny_corpus}", SplitRecipe(label_map={"LABEL_7": "up"}), victims=[victim]
        )
    with pytest.raises(InvalidInput, match="'hgh'"):
        check_label_map({"hgh": "high"}, [victim_of("high", "low")])


def test_placeholders_without_a_map_are_refused():
    with pytest.raises(InvalidInput, match="--label-map LABEL_0="):
        match_clip_labels(
            [victim_of("LABEL_0", "LABEL_1")], ["anger", "joy"], Context(), where="clips"
        )
