"""Sparse-PGD: its number of samples, its clips apart from each other, and the known optimum."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.support.speech import clip

from staanet.attacks import craft
from staanet.attacks.sparse_pgd import SparsePGD
from staanet.core import Budget, Targeted, Untargeted
from staanet.victims import build_victim

BOTH = pytest.mark.parametrize("projected", [False, True], ids=["unprojected", "projected"])


def at_score(victim, wanted):
    noise = 0.1 * torch.randn(1, len(victim.weight), generator=torch.Generator().manual_seed(3))
    away = wanted - noise @ victim.weight
    return noise + away[:, None] * victim.weight / victim.weight.square().sum()


@BOTH
@pytest.mark.parametrize("limit", [40, 400, None])
@pytest.mark.parametrize("goal", [Untargeted(0), Targeted(1)], ids=["untargeted", "targeted"])
def test_the_boundary_is_crossed_near_the_closed_form_optimum(linear, projected, limit, goal):
    epsilon = 328 / 32768
    reach = epsilon * float(linear.weight.abs().sort(descending=True).values[:limit].sum())
    share = 0.6 if projected else 0.98  # a projected gradient explores few samples, as published
    attack = SparsePGD(budget=Budget(epsilon=epsilon, max_l0=limit), projected=projected)
    for part, crossed in ((share, True), (1.02, False)):
        x = at_score(linear, part * reach)
        x_adv = attack(linear, x, goal)
        assert bool(goal.achieved(linear(x_adv))) is crossed
        assert 0 < int((x_adv != x).sum()) <= (limit or 1600)


@pytest.mark.parametrize("budget", [Budget(epsilon=0.1, max_l0=0), Budget(epsilon=1e-5)], ids=str)
def test_a_budget_that_allows_nothing_leaves_the_clip_as_it_is(linear, budget):
    x = at_score(linear, 0.01)
    assert torch.equal(SparsePGD(budget=budget, steps=5)(linear, x, Untargeted(0)), x)


def test_more_steps_never_leave_a_higher_margin(linear):
    x, goal = at_score(linear, 50.0), Untargeted(0)
    attack = SparsePGD(budget=Budget(epsilon=0.01, max_l0=40))
    margins = [
        float(goal.margin(linear(replace(attack, steps=n)(linear, x, goal)))) for n in (1, 5, 50)
    ]
    assert margins == sorted(margins, reverse=True) and margins[0] > margins[-1]


def test_padding_is_never_touched_and_a_batch_equals_single_clips():
    torch.manual_seed(0)
    source = build_victim("zhao19", ("a", "b", "c")).requires_grad_(False).eval()
    budget = Budget(epsilon=0.03, max_density=0.2)
    clips = [clip(0.25, 300, 1), clip(0.4, 500, 2), clip(0.31, 900, 3)]
    attack = SparsePGD(budget=budget, steps=6)
    together = craft(attack, source, clips, batch_size=3)
    for one, alone in zip(together, craft(attack, source, clips), strict=True):
        assert budget.violations(one.clean.pcm16, one.adversarial) == []
        assert int((one.adversarial != alone.adversarial).sum()) <= 0.01 * len(one.adversarial)
