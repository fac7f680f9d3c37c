"""Sparse-PGD: which samples move is learned like how far they move, for a fixed number of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from staanet.core import Budget, Goal, Victim, clip_generators
from staanet.core.top_k import top_k_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsePGD:
    """Projected gradient descent on magnitude and mask (Zhong et al., 2024, arXiv:2405.05075).

    The change is ``p * m``: p a dense magnitude that takes PGD's steps, m the k highest sigmoids of
    a continuous mask, k as many samples as the budget allows. Both feel the sigmoid rather than m
    (the paper's sPGD_unproj), or with ``projected`` m itself (sPGD_proj). A mask whose k highest stay
    the same for ``patience`` steps is drawn anew. A clip ends at its first success, and else keeps
    its lowest margin. The loss is the margin; the paper takes cross-entropy far from the boundary.
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
        epsilon = self.budget.step_limit(x, lengths)
        low, high = (-1 - x).clamp(min=-epsilon), (1 - x).clamp(max=epsilon)
        draws = clip_generators(x, lengths, self.seed)
        sizes = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
        p = low.lerp(high, _padded(x, [torch.rand(n, generator=d) for n, d in _zip(sizes, draws)]))
        mask = _padded(x, [torch.randn(n, generator=d) for n, d in _zip(sizes, draws)])
        support, still = top_k_mask(mask, self.budget, lengths), [0] * len(x)
        kept, lowest = torch.zeros_like(x), x.new_full((len(x),), torch.inf)
        searching = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for _ in range(self.steps):
            delta = (p * support).clamp(low, high)
            with torch.enable_grad():
                x_adv = (x + delta).requires_grad_()
                logits = source(x_adv, lengths)
                (gradient,) = torch.autograd.grad(goal.margin(logits).sum(), x_adv)
            fooled, margin = goal.achieved(logits), goal.margin(logits.detach())
            better = searching & (fooled | (margin < lowest))
            kept[better], lowest[better] = delta[better], margin[better]
            searching &= ~fooled
            if not bool(searching.any()):
                break
            soft = mask.sigmoid()
            upon_p = gradient * (support if self.projected else soft)
            mask = self._stepped(mask, gradient * p * soft * (1 - soft), sizes)
            p = (p - self.relative_step * epsilon * upon_p.sign()).clamp(low, high)
            before, support = support, top_k_mask(mask, self.budget, lengths)
            for row, (size, draw) in enumerate(_zip(sizes, draws)):
                still[row] = still[row] + 1 if torch.equal(before[row], support[row]) else 0
                if still[row] == self.patience and bool(searching[row]):
                    still[row], mask[row, :size] = 0, torch.randn(size, generator=draw).to(x)
            support = top_k_mask(mask, self.budget, lengths)
        return torch.where(kept != 0, (x + kept).clamp(-1, 1), x)

    def _stepped(self, mask: Tensor, gradient: Tensor, sizes: list[int]) -> Tensor:
        """The mask after a step of ``beta sqrt(T)`` along its normalised gradient."""
        length = torch.tensor(sizes, device=mask.device)[:, None]
        unit = gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
        stepped: Tensor = mask - self.mask_step * length.sqrt() * unit
        return stepped


def _zip(sizes: list[int], draws: list[torch.Generator]) -> list[tuple[int, torch.Generator]]:
    return list(zip(sizes, draws, strict=True))


def _padded(x: Tensor, rows: list[Tensor]) -> Tensor:
    """Rows of several lengths as one tensor like ``x [B, T]``, zero beyond them."""
    padded = torch.zeros_like(x)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = values.to(x)
    return padded
