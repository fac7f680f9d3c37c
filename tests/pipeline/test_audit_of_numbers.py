"""Audits of a regression victim, on clips with its numbers and on clips with classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.audit_facts import SMALL_AUDIT
from tests.support.models import LinearNumbers
from tests.support.speech import clip

from staanet import pipeline
from staanet.core import Clip, Corpus, Utterance
from staanet.core.dimensions import DIMENSIONS
from staanet.errors import InvalidInput
from staanet.pipeline.audit_stages import Audit
from staanet.report.audit_verdict import quality_sentence
from staanet.victims import build_victim

WEIGHT = torch.randn(3200, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def world(monkeypatch):
    """Makes a corpus of tones by six speakers, with these labels."""
    clips: dict[str, Clip] = {}
    monkeypatch.setattr(Corpus, "load", lambda self, utterance, rate: clips[utterance.id])

    def make(words: list[str], **about: object) -> Corpus:
        utterances = []
        for number in range(12):
            name, speaker, label = f"{number:02d}", f"s{number // 2}", words[number % len(words)]
            hz = 200.0 + 50 * number
            clips[name] = clip(0.2, hz, number, id=name, label=label, speaker=speaker)
            utterances.append(Utterance(name, Path(name), label, speaker))
        return Corpus("tones", tuple(utterances), **about)

    return make


def test_clips_with_numbers_give_ccc(world, tmp_path):
    labels = [f"arousal={n % 5} valence={n % 3}" for n in range(12)]
    corpus = world(labels, labels=("arousal", "valence"), classes=DIMENSIONS)
    victim = LinearNumbers(WEIGHT, (1.0, 2.0))
    context = pipeline.Context()
    assert Audit(victim, corpus, tmp_path, SMALL_AUDIT, context, []).surrogate_names() == (
        "logmel_cnn",
    )
    recipe = replace(SMALL_AUDIT, surrogates=())
    facts = pipeline.audit(victim, corpus, tmp_path, recipe=recipe, context=context)
    assert set(facts["attackers"]) == {"noise", "queries", "white_box"}
    assert set(facts["ccc"]) == {"arousal", "valence"} and "ccc" in facts["defences"][0]
    assert facts["attackers"]["white_box"]["fooling_rate"] == 1.0
    text = (tmp_path / "audit.md").read_text("utf-8")
    assert "reaches a CCC of arousal" in text and "UAR" not in text


def test_clips_with_classes_train_no_surrogate_and_say_so(world, tmp_path):
    corpus = world(["high", "low"], labels=("high", "low"))
    victim, context = LinearNumbers(WEIGHT, (1.0, 2.0)), pipeline.Context()
    assert Audit(victim, corpus, tmp_path, SMALL_AUDIT, context, []).surrogate_names() == ()
    assert "no surrogate was trained" in context.quarantine.flags[0]
    facts = {
        "victim": {"name": "v", "labels": ["arousal"], "tolerance": [0.5]},
        "corpus": {"clips": 4, "of": 5, "speakers": 2},
    }
    sentence = quality_sentence(facts)
    assert "lack the numbers of the model" in sentence and sentence.endswith("arousal 0.5.")


def test_a_classifier_on_clips_with_numbers_is_refused(world, tmp_path):
    corpus = world(["arousal=1", "arousal=2"], labels=("arousal",), classes=DIMENSIONS)
    victim = build_victim("logmel_cnn", ("joy", "fear")).requires_grad_(False).eval()
    with pytest.raises(InvalidInput, match="drop --task regression"):
        pipeline.audit(victim, corpus, tmp_path, recipe=SMALL_AUDIT, context=pipeline.Context())
