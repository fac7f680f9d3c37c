"""Attacks move the numbers of a regression victim: the known optimum, both directions, every attack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.models import LinearNumbers
from tests.support.speech import clip

from staanet.attacks import ATTACKS, PGD, craft, logits_of
from staanet.core import Budget, answers_to
from staanet.core.answers import UNMOVED
from staanet.errors import InvalidInput
from staanet.victims import CallableVictim, Ensemble
from staanet.victims.quick_check import check_victim

NEEDS_A_CLASS = {"sparsefool", "staa", "uap"}


WEIGHT = torch.randn(1600, generator=torch.Generator().manual_seed(0))
EPSILON = 0.01
REACH = EPSILON * float(WEIGHT.abs().sum())


def attacked(victim, attack, label=None):
    """The word of the answer to a clip after the attack, and how far its first number moved."""
    (pair,) = craft(attack, victim, [clip(0.1, hz=300.0)], label=label)
    before, after = (
        torch.from_numpy(logits_of(victim, [one]))
        for one in (pair.clean, type(pair.clean)("a", pair.adversarial, 16_000))
    )
    return answers_to(victim, before, after, label)[0], float(after[0, 0] - before[0, 0])


@pytest.mark.parametrize("label", ["arousal+", "arousal-"])
@pytest.mark.parametrize(("share", "is_reached"), [(0.97, True), (1.03, False)])
def test_pgd_moves_a_number_to_its_optimum_and_no_further(label, share, is_reached):
    victim = LinearNumbers(WEIGHT, (share * REACH, 1e9))
    word, shift = attacked(victim, PGD(budget=Budget(epsilon=EPSILON)), label)
    assert (word == label) is is_reached
    assert (shift > 0) == (label[-1] == "+") and abs(shift) <= 1.01 * REACH


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - NEEDS_A_CLASS - {"random"}))
def test_every_attack_that_follows_a_margin_moves_numbers(name):
    victim = LinearNumbers(WEIGHT, (0.005 * REACH, 0.01 * REACH))
    word, _ = attacked(victim, ATTACKS[name](budget=Budget(epsilon=0.05)))
    assert word != UNMOVED


def test_a_few_clips_of_several_lengths_are_attacked_together():
    victim = LinearNumbers(WEIGHT, (0.2 * REACH, 0.5 * REACH))
    clips = [clip(0.1, seed=1), clip(0.06, seed=2), clip(0.1, seed=3)]
    for attack in (PGD(budget=Budget(epsilon=EPSILON)), ATTACKS["vfga"]()):
        assert len(craft(attack, victim, clips, label="valence+")) == 3


def test_an_attack_on_classes_says_so():
    with pytest.raises(InvalidInput) as error:
        craft(ATTACKS["sparsefool"](), LinearNumbers(WEIGHT, (1, 1)), [clip(0.1)])
    assert "numbers" in str(error.value)
    with pytest.raises(InvalidInput):
        craft(PGD(), LinearNumbers(WEIGHT, (1, 1)), [clip(0.1)], label="joy+")


def test_a_python_function_may_answer_one_number_and_queries_move_it():
    loudness = CallableVictim(
        lambda x: np.abs(x).mean(axis=1, keepdims=True), ["loudness"], 16_000, tolerance=[1e-4]
    )
    assert loudness.task == "regression"
    attack = ATTACKS["sparse_rs"](budget=Budget(epsilon=0.1, max_density=0.1), steps=40)
    assert attacked(loudness, attack)[0].startswith("loudness")


def test_an_ensemble_answers_the_mean_of_numbers():
    parts = [LinearNumbers(k * WEIGHT, (1, 1)) for k in (1, 3)]
    parts[1].name = "other"
    x = torch.randn(2, 1600)
    assert torch.allclose(Ensemble(parts)(x), 2 * parts[0](x), atol=1e-4)


def test_a_quick_look_takes_numbers_and_refuses_constant_ones():
    clips = [clip(0.1, hz=200.0 + 50 * n, seed=n) for n in range(9)]
    assert not check_victim(LinearNumbers(WEIGHT, (1, 1)), clips).flags
    with pytest.raises(InvalidInput):
        check_victim(LinearNumbers(0 * WEIGHT, (1, 1)), clips)
