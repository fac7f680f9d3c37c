"""Attacks that minimise the number of samples: near the closed-form optimum, honest where they fail."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from staanet import audio
from staanet.attacks import ATTACKS, FGSM, PGD, VFGA, SigmaZero, SparseFool, craft
from staanet.attacks.sparse import BEYOND, _reach_plane
from staanet.core import Budget, Clip, Targeted, Untargeted, Victim
from staanet.errors import InvalidInput
from staanet.evaluation import transfer_matrix

MINIMISING = ["sigma_zero", "sparsefool", "vfga"]


class Toy(Victim):
    """Two convolutions and a mean over time, four classes."""

    architecture = "toy"

    def __init__(self) -> None:
        super().__init__(name="toy", labels=("a", "b", "c", "d"))
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv1d(1, 8, 9, 4),
            nn.ReLU(),
            nn.Conv1d(8, 16, 9, 4),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(8),
            nn.Flatten(),
            nn.Linear(128, 4),
        )

    def logits(self, standardised, lengths):
        return self.body(standardised[:, None])


@pytest.fixture(scope="module")
def toy():
    return Toy().requires_grad_(False).eval()


@pytest.fixture(scope="module")
def speech_like():
    return 0.1 * torch.randn(3, 4000, generator=torch.Generator().manual_seed(1))


def linear_case(linear, wanted):
    """Clips whose fewest fooling samples at epsilon 0.02 are known: the ``wanted`` largest weights."""
    epsilon = 655 / 32768
    weight = linear.weight.abs().sort(descending=True).values
    margin = epsilon * float(weight[: wanted - 1].sum() + 0.5 * weight[wanted - 1])
    direction = 0.1 * torch.randn(1, 1600, generator=torch.Generator().manual_seed(3))
    score = float(direction @ linear.weight)
    return direction + (margin - score) * linear.weight[None] / linear.weight.square().sum()


@pytest.mark.parametrize("name", MINIMISING)
@pytest.mark.parametrize("wanted", [5, 60, 300])
def test_a_minimising_attack_comes_near_the_closed_form_optimum(linear, name, wanted):
    x = linear_case(linear, wanted)
    settings = {"control": 1.0} if name == "sparsefool" else {}  # 10 aims ten times too far here
    attack = ATTACKS[name](budget=Budget(epsilon=0.02), **settings)
    x_adv = attack(linear, x, Untargeted(0))
    count = int((x_adv != x).sum())
    assert bool(Untargeted(0).achieved(linear(x_adv)))
    assert wanted <= count <= 1.35 * wanted + 2


@pytest.mark.parametrize("name", MINIMISING)
def test_with_epsilon_free_every_clip_is_fooled_within_the_box(toy, speech_like, name):
    goal = Untargeted(toy(speech_like).argmax(dim=1))
    x_adv = ATTACKS[name](budget=Budget(epsilon=2))(toy, speech_like, goal)
    assert bool(goal.achieved(toy(x_adv)).all())
    assert float(x_adv.abs().max()) <= 1
    assert int((x_adv != speech_like).sum(dim=1).max()) < 400


def test_sigma_zero_needs_no_more_samples_than_sparsefool(toy, speech_like):
    goal = Untargeted(toy(speech_like).argmax(dim=1))
    counts = [
        (kind(budget=Budget(epsilon=0.3))(toy, speech_like, goal) != speech_like)
        .sum(dim=1)
        .median()
        for kind in (SigmaZero, SparseFool)
    ]
    assert counts[0] <= counts[1]


@pytest.mark.parametrize("name", ["sigma_zero", "vfga", "pgd", "fgsm", "mi_fgsm", "vmi_fgsm"])
def test_a_targeted_goal_is_reached_where_the_attack_can_aim(linear, name):
    x = linear_case(linear, 20)
    goal = Targeted(1)
    x_adv = ATTACKS[name](budget=Budget(epsilon=0.03, max_l0=200))(linear, x, goal)
    assert bool(goal.achieved(linear(x_adv)))


def test_sparsefool_says_that_it_cannot_aim(toy, speech_like):
    with pytest.raises(InvalidInput, match="cannot aim"):
        SparseFool()(toy, speech_like, Targeted(1))


@pytest.mark.parametrize("name", MINIMISING)
def test_a_clip_that_cannot_be_fooled_still_keeps_the_budget(linear, name):
    x = linear_case(linear, 900)
    budget = Budget(epsilon=0.02, max_l0=50)
    x_adv = ATTACKS[name](budget=budget)(linear, x, Untargeted(0))
    assert not bool(Untargeted(0).achieved(linear(x_adv)))
    assert 0 < int((x_adv != x).sum()) <= 50
    steepest = linear.weight.abs().sort(descending=True).values[:50].sum()
    fall = float(linear(x)[0, 0] - linear(x_adv)[0, 0])  # it gets what 50 samples can give
    assert fall >= 0.9 * budget.epsilon_lsb / 32768 * float(steepest)


def test_more_steps_choose_better_samples_than_one(toy, speech_like):
    goal = Untargeted(toy(speech_like).argmax(dim=1))
    budget = Budget(epsilon=0.02, max_density=0.1)
    one, many = (
        goal.margin(toy(kind(budget=budget)(toy, speech_like, goal))).mean() for kind in (FGSM, PGD)
    )
    assert many < one


def test_a_sparse_attack_that_changed_most_samples_is_flagged_as_dense(linear):
    far = audio.snap(linear_case(linear, 900)[0].numpy())
    made = craft(SparseFool(budget=Budget(epsilon=0.001)), linear, [Clip("far", far, 16_000)])
    assert made.card["flags"][0].startswith("dense: SparseFool changed more than half")
    assert any("dense" in flag for flag in transfer_matrix([made], [linear]).summary["flags"])
    few = craft(PGD(budget=Budget(epsilon=0.001)), linear, [Clip("far", far, 16_000)])
    assert "flags" not in few.card  # PGD does not promise few samples


def test_vfga_moves_one_sample_a_step_and_counts_every_candidate(toy, speech_like):
    clip = Clip("a", audio.snap(speech_like[0].numpy()), 16_000)
    (made,) = craft(VFGA(budget=Budget(epsilon=2), steps=3, growth=0.0, draws=4), toy, [clip])
    steps = len(made.support)
    assert 1 <= steps <= 3
    # the clean clip, then for each step one gradient and 2 x 4 candidates, and the ranking at the end
    assert made.queries == 1 + 9 * steps + 1


def test_sparsefool_stops_at_the_plane_with_its_last_sample():
    normal = torch.tensor([[0.8, -0.6, 0.0]])
    box = torch.full((1, 3), -1.0), torch.ones(1, 3)
    moved = _reach_plane(normal, 1.1 * normal, torch.zeros(1, 3), box)
    assert torch.allclose(moved, torch.tensor([[1.0, -(1.1 + BEYOND - 0.8) / 0.6, 0.0]]))
