"""Black-box attacks: no gradient, few queries, better than chance on a victim known by hand."""

from __future__ import annotations

import pytest
import torch

from staanet.attacks import OnePixel, Random, SparseRS
from staanet.core import Budget, Targeted, Untargeted


class Opaque(torch.nn.Module):
    """A victim that refuses to be differentiated and counts the clips it answers."""

    def __init__(self, victim):
        super().__init__()
        self.victim, self.queries = victim, 0
        self.sample_rate = victim.sample_rate

    def forward(self, x, lengths=None):
        assert not x.requires_grad and not torch.is_grad_enabled()
        self.queries += len(x)
        return self.victim(x, lengths)


def near_boundary(linear, margin=0.02):
    x = 0.1 * torch.randn(1, 1600, generator=torch.Generator().manual_seed(3))
    wanted = margin - float(x @ linear.weight)
    return x + wanted * linear.weight[None] / linear.weight.square().sum()


@pytest.mark.parametrize("goal", [Untargeted(0), Targeted(1)], ids=["untargeted", "targeted"])
@pytest.mark.parametrize(
    "attack",
    [
        SparseRS(budget=Budget(epsilon=0.03, max_l0=80), steps=300),
        OnePixel(budget=Budget(epsilon=0.03, max_l0=1), population=60, steps=5),
    ],
    ids=["sparse_rs", "one_pixel"],
)
def test_a_search_crosses_a_near_boundary_without_a_gradient(linear, attack, goal):
    source = Opaque(linear)
    x = near_boundary(linear)
    x_adv = attack(source, x, goal)
    assert bool(goal.achieved(linear(x_adv)))
    assert 0 < int((x_adv != x).sum()) <= attack.budget.max_l0
    assert source.queries <= 360  # steps, or the population once and five times more


def test_random_search_beats_random_signs(linear):
    x, goal, budget = near_boundary(linear, 30.0), Untargeted(0), Budget(epsilon=0.03, max_l0=80)
    margins = [
        float(goal.margin(linear(attack(linear, x, goal))))
        for attack in (SparseRS(budget=budget, steps=200), Random(budget=budget))
    ]
    assert margins[0] < margins[1] - 1


def test_one_pixel_in_the_relative_variant_cannot_move_silence(linear):
    x = torch.zeros(1, 1600)
    settings = {"budget": Budget(epsilon=0.03, max_l0=5), "population": 8, "steps": 2}
    assert torch.equal(OnePixel(relative=True, **settings)(linear, x, Targeted(1)), x)
    assert not torch.equal(OnePixel(**settings)(linear, x, Targeted(1)), x)


def test_sparse_rs_at_every_sample_only_turns_signs(linear):
    x = near_boundary(linear, 5.0)
    x_adv = SparseRS(budget=Budget(epsilon=0.01), steps=20)(linear, x, Untargeted(0))
    assert int((x_adv != x).sum()) == 1600
