"""Goals on numbers: how far they moved, in which direction, and the words that say so."""

from __future__ import annotations

import pytest
import torch

from staanet.core import Shift, Targeted, Untargeted, Victim, answers_to, goal_of, possible_answers
from staanet.core.answers import UNMOVED, require_classes
from staanet.core.victim import check_victim_card
from staanet.errors import InvalidInput

CLEAN = torch.tensor([[0.0, 2.0], [1.0, 1.0]])


def dimensional() -> Victim:
    return Victim(name="d", labels=["arousal", "valence"], tolerance=[0.5, 1.0])


def test_a_shift_is_achieved_in_its_direction_only():
    up, down = (Shift(0, by, CLEAN) for by in (0.5, -0.5))
    moved = CLEAN + torch.tensor([[0.6, 9.0], [-0.6, -9.0]])
    assert up.achieved(moved).tolist() == [True, False]
    assert down.achieved(moved).tolist() == [False, True]
    assert torch.allclose(up.margin(moved), torch.tensor([-0.2, 2.2]))


def test_any_shift_counts_each_dimension_in_its_tolerance():
    goal = goal_of(dimensional(), CLEAN)
    assert goal.achieved(CLEAN + torch.tensor([[0.6, 0.0], [0.4, 0.9]])).tolist() == [True, False]
    assert goal.achieved(CLEAN - torch.tensor([[0.0, 1.1], [0.4, 0.9]])).tolist() == [True, False]


def test_a_goal_has_a_gradient_where_nothing_has_moved():
    outputs = CLEAN.clone().requires_grad_()
    goal_of(dimensional(), CLEAN).margin(outputs).sum().backward()
    assert (outputs.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(
    "goal", [Untargeted(torch.tensor([0, 1])), Targeted(1), Shift(None, 0.5, CLEAN)]
)
def test_the_goal_of_some_clips_is_the_goal_of_all_at_these(goal):
    outputs = torch.tensor([[0.3, 2.0], [4.0, 1.0]])
    rows = [1, 0, 1]
    assert torch.equal(goal.select(rows).margin(outputs[rows]), goal.margin(outputs)[rows])


def test_answers_say_what_moved_and_how():
    victim = dimensional()
    moved = CLEAN + torch.tensor([[0.6, -1.1], [0.4, 0.0]])
    assert answers_to(victim, CLEAN, CLEAN) == [UNMOVED] * 2
    assert answers_to(victim, CLEAN, moved) == ["arousal+", UNMOVED]  # 1.2 tolerances, not 1.1
    assert answers_to(victim, CLEAN, moved, "valence-") == ["valence-", UNMOVED]
    assert set(possible_answers(victim)) == {"arousal+", "arousal-", "valence+", "valence-"}
    with pytest.raises(InvalidInput) as error:
        goal_of(victim, CLEAN, "dominance+")
    assert "arousal+" in str(error.value)


def test_a_classifiers_answer_is_its_class_whatever_came_before():
    victim = Victim(name="c", labels=["a", "b"])
    assert victim.task == "classification" and possible_answers(victim) == ("a", "b")
    assert answers_to(victim, CLEAN, CLEAN) == ["b", "a"]
    require_classes([victim], "this")
    with pytest.raises(InvalidInput) as error:
        require_classes([dimensional()], "a certificate")
    assert "numbers" in str(error.value) and "certificate" in str(error.value)


@pytest.mark.parametrize("tolerance", [[1.0], [1.0, -1.0], [1.0, "x"], "11", [1.0, float("inf")]])
def test_a_card_with_an_unfit_tolerance_is_refused(tolerance, tmp_path):
    card = {"name": "v", "labels": ["a", "b"], "sample_rate": 16_000, "tolerance": tolerance}
    with pytest.raises(InvalidInput) as error:
        check_victim_card(card, tmp_path)
    assert "tolerance" in str(error.value)
