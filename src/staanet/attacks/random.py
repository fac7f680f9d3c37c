"""The control without which no fooling rate means anything: noise of the same budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from staanet import audio
from staanet.attacks.support import clip_noise, masking_weight
from staanet.core import Budget, Goal, Victim
from staanet.core.top_k import top_k_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Move as many samples as the budget allows by all of epsilon, at random places, either way.

    With ``hide`` by epsilon times, and rather at places of, a large weight of masking: see ``PGD``.
    """

    budget: Budget = Budget(epsilon=0.03, max_density=0.2)
    masking_power: float = 0.0
    seed: int = 0
    needs_answer: ClassVar[bool] = False

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        places, signs = clip_noise(x, lengths, self.seed, draws=2)
        weight = masking_weight(x, lengths, source.sample_rate, self.masking_power)
        support = top_k_mask(places * weight, self.budget, lengths)
        epsilon = self.budget.epsilon_lsb / audio.FULL_SCALE * weight
        delta = torch.where(signs < 0.5, -epsilon, epsilon) * support
        return (x + delta).clamp(-1, 1)
