"""A regression victim learns numbers of synthetic speech, in their unit; attacks move them the right way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.support.speech import clip

from staanet import pipeline, storage, training
from staanet.attacks import PGD, craft, logits_of
from staanet.config import VictimRecipe
from staanet.core import Budget, Clip, Corpus, Utterance, metrics
from staanet.core.dimensions import DIMENSIONS, dimension_label
from staanet.errors import InvalidInput
from staanet.evaluation.everyday import measure_everyday
from staanet.evaluation.quiet_budget import largest_quiet_budget
from staanet.training.regression import numbers_of
from staanet.victims import build_victim, load_victim

CALM, FAST = 2.0, 7.0
"""The least and the largest arousal of the tones, which rises with the logarithm of the pitch."""


def tones(speakers: range) -> list[Clip]:
    rng = np.random.default_rng(speakers.start)
    clips = []
    for speaker in speakers:
        for number in range(6):
            arousal = float(rng.uniform(CALM, FAST))
            hz = 200 * 10 ** ((arousal - CALM) / (FAST - CALM))
            label = dimension_label({"arousal": arousal})
            name = f"{speaker}_{number}"
            clips.append(
                clip(0.25, hz, 10 * speaker + number, id=name, label=label, speaker=f"s{speaker}")
            )
    return clips


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """A network that answers the arousal of a tone."""
    training.seed_weights(0)
    made = build_victim("logmel_cnn", ("arousal",))
    made.tolerance = (1.0,)
    schedule = training.Schedule(
        steps=60, batch_size=8, seconds=0.2, evaluate_every=30, speed=0.0, learning_rate=3e-3
    )
    folder = tmp_path_factory.mktemp("victim")
    history = training.train_regression(made, tones(range(6)), tones(range(6, 9)), schedule, folder)
    assert history.rows[-1]["dev_ccc"] == history.rows[-1]["dev_ccc_arousal"]
    made.tolerance = (0.5,)
    return made


def test_numbers_are_learnt_in_the_unit_of_the_labels(victim):
    test = tones(range(20, 24))
    truth = numbers_of(test, victim.labels)[:, 0]
    answers = logits_of(victim, test)[:, 0]
    assert metrics.ccc(truth, answers) > 0.8 and np.abs(truth - answers).mean() < 1


@pytest.mark.parametrize(("word", "sign"), [("arousal+", 1), ("arousal-", -1)])
def test_a_shift_has_the_right_sign(victim, word, sign):
    clips = tones(range(30, 31))
    before = logits_of(victim, clips)[:, 0]
    pairs = craft(PGD(budget=Budget(epsilon=0.02), steps=8), victim, clips, label=word)
    after = logits_of(victim, [Clip(p.clean.id, p.adversarial, 16_000) for p in pairs])[:, 0]
    assert ((after - before) * sign > 0.3).all()


def test_a_number_that_never_changes_is_refused(tmp_path):
    made = build_victim("logmel_cnn", ("arousal",))
    clips = [clip(0.25, label="arousal=3", id=str(n)) for n in range(3)]
    with pytest.raises(InvalidInput, match="the arousal of all train clips is the same"):
        training.train_regression(made, clips, clips, training.Schedule(steps=1), tmp_path)


def test_everyday_change_and_quiet_budgets_know_numbers(victim):
    clips = tones(range(40, 43))
    conditions = {
        "unheard": {"as it is": "gain:0", "softer": "gain:-6"},
        "noise": {"noise": "noise:-15"},
    }
    measured = measure_everyday(victim, clips, conditions=conditions)
    same, softer, noisy = measured.conditions
    assert measured.uar is None and measured.ccc is not None and measured.ccc > 0.8
    assert same.passed and same.ccc == measured.ccc and same.ccc_loss.value == 0
    assert softer.unchanged.value == 1.0  # the network standardises its clips
    assert not noisy.passed and noisy.ccc_loss.value > 0.05 and noisy.uar_loss.value is None
    assert measured.summary()["ccc"] == measured.ccc
    quiet = largest_quiet_budget(victim, clips[:6], 1.0, limit=0.6, draws=1)
    assert quiet.epsilon is not None and quiet.control <= quiet.bound < 0.6


def test_train_victim_writes_ccc_tolerance_and_unchanged_shares(tmp_path, monkeypatch):
    held = {c.id: c for c in tones(range(6))}
    corpus = Corpus(
        "tones by numbers",
        tuple(Utterance(c.id, tmp_path / c.id, c.label, c.speaker) for c in held.values()),
        ("arousal",),
        classes=DIMENSIONS,
    )
    monkeypatch.setattr(Corpus, "load", lambda self, utterance, rate: held[utterance.id])
    recipe = VictimRecipe(
        network="logmel_cnn", steps=2, batch_size=4, seconds=0.25, augment=("none",)
    )
    pipeline.train_victim(corpus, "v", tmp_path / "v", recipe=recipe, context=pipeline.Context())
    victim = load_victim(tmp_path / "v")
    train = corpus.split(0)[0]
    spread = numbers_of([held[u.id] for u in train.utterances], ["arousal"]).std()
    assert victim.task == "regression" and victim.labels == ("arousal",)
    assert math.isclose(victim.tolerance[0], 0.5 * spread, rel_tol=1e-4)
    card = storage.read_card(tmp_path / "v", "victim")
    assert {"dev_ccc", "test_ccc", "test_ccc_arousal", "test_mae_arousal"} <= card.keys()
    assert len(card["test_unchanged"]) == 5 and "test_uar" not in card


def test_chance_of_ranks():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=40)
    assert metrics.rank_chance_p(truth, truth + 0.5 * rng.normal(size=40)) < 0.01
    assert metrics.rank_chance_p(truth, -truth) > 0.99
    by_chance = [metrics.rank_chance_p(truth, rng.normal(size=40)) for _ in range(200)]
    assert 0.01 < np.mean(np.array(by_chance) < 0.05) < 0.12
