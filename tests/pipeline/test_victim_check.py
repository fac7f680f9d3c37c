"""What is doubtful about a victim reaches results and verdicts; what cannot be judged stops a command."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.speech import RATE, tone

from staanet import audio, corpora, pipeline, storage
from staanet.attacks import ATTACKS, craft
from staanet.config import AuditLimits, AuditRecipe
from staanet.core import Budget, Clip
from staanet.errors import InvalidInput
from staanet.victims import CallableVictim

LABELS = ("anger", "sadness")
AUDIT = AuditRecipe(
    epsilons=(0.05,),
    densities=(0.5,),
    clips=8,
    query_clips=1,
    queries=20,
    surrogates=("zhao19",),
    surrogate_steps=2,
    generator_steps=2,
    channels=(),
    defences=(),
)


def clips_of(labels=LABELS, count=6):
    return [
        Clip(f"{label}{n}", tone(0.3, hz + 9 * n, n), RATE, label, f"s{n % 3}")
        for label, hz in zip(labels, (1500, 200), strict=True)
        for n in range(count)
    ]


def scores(x):
    share = (np.diff(np.sign(x), axis=1) != 0).mean(axis=1)
    return np.stack([share - 0.1, 0.1 - share], axis=1)


def softmax(x):
    odds = np.exp(20 * scores(x))
    return odds / odds.sum(axis=1, keepdims=True)


def constant(x):
    return np.tile([0.0, 1.0], (len(x), 1))


@pytest.fixture
def crafted(tmp_path):
    attack = ATTACKS["random"](budget=Budget(epsilon=0.01))
    craft(attack, CallableVictim(scores, LABELS, RATE), clips_of()).save(tmp_path / "set")
    return tmp_path / "set"


def evaluate(crafted, victim, context=None):
    out = crafted.parent / "results"
    context = context or pipeline.Context()
    return pipeline.evaluate([crafted], [victim], out, context=context)


def test_a_doubt_is_in_the_summary_and_among_its_flags(crafted):
    matrix = evaluate(crafted, CallableVictim(softmax, LABELS, RATE))
    (doubt,) = matrix.summary["targets"]["callable"]["doubts"]
    assert "probabilities" in doubt and doubt in matrix.summary["flags"]
    honest = evaluate(crafted, CallableVictim(scores, LABELS, RATE, name="honest"))
    assert "doubts" not in honest.summary["targets"]["honest"]


def test_a_victim_that_cannot_be_judged_gets_no_figure(crafted):
    with pytest.raises(InvalidInput, match="answers the same to each"):
        evaluate(crafted, CallableVictim(constant, LABELS, RATE))
    assert not (crafted.parent / "results").exists()


def test_words_for_the_same_are_matched_and_the_match_is_noted(crafted):
    context = pipeline.Context()
    matrix = evaluate(crafted, CallableVictim(scores, ("angry", "sad"), RATE), context)
    assert matrix.cells[0]["uar_before"]["value"] == 1.0
    assert context.quarantine.notes == [
        "callable: labels matched by their words: angry = anger, sad = sadness"
    ]


def test_labels_that_do_not_meet_stop_with_both_lists_until_a_map_is_there(crafted):
    with pytest.raises(InvalidInput) as error:
        evaluate(crafted, CallableVictim(scores, ("hiss", "hum"), RATE))
    assert all(word in str(error.value) for word in ("hiss", "hum", *LABELS, "--label-map"))
    context = pipeline.Context(label_map={"hiss": "anger", "hum": "sadness"})
    matrix = evaluate(crafted, CallableVictim(scores, ("hiss", "hum"), RATE), context)
    assert matrix.cells[0]["uar_before"]["value"] == 1.0


def test_where_some_classes_meet_the_number_of_clips_that_count_is_said(tmp_path):
    three = [*clips_of(), *clips_of(("boredom", "fear"))]
    attack = ATTACKS["random"](budget=Budget(epsilon=0.01))
    craft(attack, CallableVictim(scores, LABELS, RATE), three).save(tmp_path / "set")
    context = pipeline.Context()
    evaluate(tmp_path / "set", CallableVictim(scores, LABELS, RATE), context)
    assert any("12 of 24 clips have one of its classes" in f for f in context.quarantine.flags)


@pytest.mark.parametrize("fn, outcome", [(softmax, "not established"), (constant, None)])
def test_an_audit_of_a_model_that_is_wired_wrong_never_passes(tmp_path, fn, outcome):
    for clip in clips_of(count=12):
        folder = tmp_path / "tones" / str(clip.label) / f"s{int(clip.id[-1]) % 6}"
        storage.write_bytes(folder / f"{clip.id}.wav", audio.encode(clip.pcm16, RATE))
    corpus = corpora.load_corpus(f"folder:{tmp_path / 'tones'}")
    victim, context = CallableVictim(fn, LABELS, RATE), pipeline.Context()
    if outcome is None:
        with pytest.raises(InvalidInput, match="answers the same to each"):
            pipeline.audit(victim, corpus, tmp_path / "a", recipe=AUDIT, context=context)
        assert not (tmp_path / "a" / "surrogates").exists()
        return
    facts = pipeline.audit(
        victim,
        corpus,
        tmp_path / "a",
        recipe=AUDIT,
        limits=AuditLimits(fail_above=1.0),
        context=context,
    )
    assert facts["outcome"] == outcome and facts["victim"]["flags"]
