"""White-box attacks that follow the gradient of the goal's margin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from staanet import audio
from staanet.attacks.support import best_ranked, clip_noise
from staanet.core import Budget, Goal, Victim


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD:
    """Projected gradient descent in the L-infinity ball (Madry et al., 2018, arXiv:1706.06083).

    The paper's settings: epsilon 0.01, step epsilon / 4, 20 steps, random start. Where the budget
    limits the number of samples, the ones with the steepest clean gradient are chosen first and the
    steps move only those.
    """

    budget: Budget = Budget(epsilon=0.01)
    steps: int = 20
    relative_step: float = 0.25  # step size as a share of epsilon
    seed: int = 0

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        epsilon = self.budget.steps / audio.FULL_SCALE
        support = best_ranked(margin_gradient(source, x, goal, lengths).abs(), self.budget, lengths)
        delta = epsilon * (2 * clip_noise(x, lengths, self.seed)[0] - 1) * support
        for _ in range(self.steps):
            downhill = margin_gradient(source, (x + delta).clamp(-1, 1), goal, lengths).sign()
            step = self.relative_step * epsilon * downhill * support
            delta = (delta - step).clamp(-epsilon, epsilon)
        return (x + delta).clamp(-1, 1)


def margin_gradient(source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None) -> Tensor:
    """Gradient of each clip's own margin with respect to its samples, ``[B, T]``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(goal.margin(source(x, lengths)).sum(), x)
    return gradient
