"""Sparse-PGD: learns which samples change and by how much, for a fixed number of samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from staanet.attacks.loss import AttackTask
from staanet.core import Budget, Goal, Victim, clip_generators
from staanet.core.top_k import top_k_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsePGD:
    """Projected gradient descent on magnitude and mask (Zhong et al., 2024, arXiv:2405.05075).

    The change is ``p * m``: p is a dense magnitude that takes PGD's steps, m the k highest sigmoids of a
    continuous mask, and k the number of samples that the budget allows. Both gradients go through the
    sigmoid rather than m (the paper's sPGD_unproj), or with ``projected`` through m (sPGD_proj). A mask
    whose k highest stay the same for ``patience`` steps is drawn anew. A clip ends at its first success,
    and otherwise keeps its lowest margin. The loss is the margin; the paper's is cross-entropy far from
    the boundary.
    """

    budget: Budget = Budget(epsilon=0.03, max_density=0.05)
    steps: int = 100  # T; the paper takes up to 10 000
    relative_step: float = 0.25  # alpha, a share of epsilon
    mask_step: float = 0.25  # beta, a share of sqrt(T)
    patience: int = 3  # t
    projected: bool = False
    seed: int = 0

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        task = AttackTask(source, x, goal, lengths)
        epsilon = self.budget.step_limit(x, lengths, source.sample_rate)
        low, high = (-1 - x).clamp(min=-epsilon), (1 - x).clamp(max=epsilon)
        sizes = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
        generators = clip_generators(x, lengths, self.seed)
        rows = list(zip(sizes, generators, strict=True))
        p = low.lerp(high, _pad_rows(x, [torch.rand(size, generator=g) for size, g in rows]))
        mask = _pad_rows(x, [torch.randn(size, generator=g) for size, g in rows])
        support, unchanged = top_k_mask(mask, self.budget, lengths), [0] * len(x)
        best, lowest = torch.zeros_like(x), x.new_full((len(x),), torch.inf)
        is_searching = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for _ in range(self.steps):
            delta = (p * support).clamp(low, high)
            gradient, logits = task.gradient_and_logits(x + delta)
            is_fooled, margin = goal.achieved(logits), goal.margin(logits)
            is_better = is_searching & (is_fooled | (margin < lowest))
            best[is_better], lowest[is_better] = delta[is_better], margin[is_better]
            is_searching &= ~is_fooled
            if not bool(is_searching.any()):
                break
            soft = mask.sigmoid()
            grad_p = gradient * (support if self.projected else soft)
            mask = self._step_mask(mask, gradient * p * soft * (1 - soft), sizes)
            p = (p - self.relative_step * epsilon * grad_p.sign()).clamp(low, high)
            before, support = support, top_k_mask(mask, self.budget, lengths)
            for row, (size, generator) in enumerate(rows):
                is_same = torch.equal(before[row], support[row])
                unchanged[row] = unchanged[row] + 1 if is_same else 0
                if unchanged[row] == self.patience and bool(is_searching[row]):
                    unchanged[row] = 0
                    mask[row, :size] = torch.randn(size, generator=generator).to(x)
            support = top_k_mask(mask, self.budget, lengths)
        return torch.where(best != 0, (x + best).clamp(-1, 1), x)

    def _step_mask(self, mask: Tensor, gradient: Tensor, sizes: list[int]) -> Tensor:
        """The mask after a step of ``beta sqrt(T)`` along its normalised gradient."""
        length = torch.tensor(sizes, device=mask.device)[:, None]
        unit = gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
        stepped: Tensor = mask - self.mask_step * length.sqrt() * unit
        return stepped


def _pad_rows(x: Tensor, rows: list[Tensor]) -> Tensor:
    """Rows of several lengths as one tensor like ``x [B, T]``, zero beyond them."""
    padded = torch.zeros_like(x)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = values.to(x)
    return padded
