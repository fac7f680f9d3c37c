"""The control attack: random signs within the same budget, to compare every fooling rate with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from staanet.attacks.selection import masking_weight
from staanet.core import Budget, Goal, Victim, clip_generators
from staanet.core.top_k import top_k_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Moves as many samples as the budget allows by all of epsilon, at random places and signs.

    With ``masking_power`` a sample moves by less, and is chosen less often, where the clip masks less:
    see ``masking_weight``.
    """

    budget: Budget = Budget(epsilon=0.03, max_density=0.2)
    masking_power: float = 0.0
    seed: int = 0
    needs_answer: ClassVar[bool] = False

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        score, signs = clip_noise(x, lengths, self.seed, draws=2)
        weight = masking_weight(x, lengths, source.sample_rate, self.masking_power)
        support = top_k_mask(score * weight, self.budget, lengths)
        epsilon = self.budget.epsilon_of(x, lengths, source.sample_rate) * weight
        delta = torch.where(signs < 0.5, -epsilon, epsilon) * support
        return (x + delta).clamp(-1, 1)


def clip_noise(x: Tensor, lengths: Tensor | None, seed: int, draws: int = 1) -> Tensor:
    """Returns uniform numbers in [0, 1), ``[draws, B, T]``, that depend on each clip and the seed alone.

    So a clip is attacked alike in any batch and order, and on any machine.
    """
    batch, time = x.shape
    noise = torch.zeros(draws, batch, time)
    for row, generator in enumerate(clip_generators(x, lengths, seed)):
        length = time if lengths is None else int(lengths[row])
        noise[:, row, :length] = torch.rand(draws, length, generator=generator)
    return noise.to(x.device)
