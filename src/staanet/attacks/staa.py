"""STAA-Net: one pass of a trained generator (Chang et al. 2024, arXiv 2402.01227)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from staanet import audio
from staanet.attacks.support import best_ranked
from staanet.core import Budget, Goal, Untargeted, Victim
from staanet.errors import InvalidInput
from staanet.generator import Generator, Perturbation


@dataclass(frozen=True, slots=True, kw_only=True)
class Staa:
    """Add ``epsilon * magnitude`` where the generator's position is at least 1/2.

    Where that is more samples than the budget allows, the ones of highest position are kept. The
    source is not called: what it answers was learned in training.
    """

    generator: Generator
    budget: Budget = Budget(epsilon=0.03, max_density=0.2)  # the paper's epsilon

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        if not isinstance(goal, Untargeted):
            raise InvalidInput(
                "this generator was trained to change the answer, not to reach a wanted class",
                remedy="Use --attack pgd for a targeted attack",
            )
        with torch.inference_mode():
            change = self.generator(x, lengths)
            mask = chosen(change, self.budget, lengths)
            delta = (self.budget.steps / audio.FULL_SCALE) * change.magnitude
            x_adv: Tensor = (x + mask * delta).clamp(
                -1, 1
            )  # mask 0 leaves x bit-identical: l0 is exact
        return x_adv


def chosen(change: Perturbation, budget: Budget, lengths: Tensor | None = None) -> Tensor:
    """Samples of position at least 1/2, the best-ranked ones if that is too many; ``[B, T]`` bool."""
    position = change.position.detach()
    return best_ranked(position.masked_fill(position < 0.5, -torch.inf), budget, lengths)
