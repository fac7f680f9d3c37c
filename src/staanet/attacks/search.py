"""Black-box attacks that search for a few samples; they use a source's logits, never its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from staanet.core import Budget, Goal, Victim, clip_generators

SCHEDULE = {0: 2, 50: 4, 200: 5, 500: 6, 1000: 8, 2000: 10, 4000: 12, 6000: 15, 8000: 20}
"""Sparse-RS: what its first share is divided by after so many of 10,000 queries, as in the authors' code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseRS:
    """Random search over k samples at the edge of the budget (Croce et al., 2022, arXiv:2006.12834).

    k is what the budget allows; each of them moves by plus or minus epsilon. A step exchanges a share of
    the samples for others and is kept where it lowers the margin. The share falls as queries are spent,
    by the authors' ``SCHEDULE`` scaled to ``steps``. The search stops at success.
    """

    budget: Budget = Budget(epsilon=0.03, max_density=0.05)
    steps: int = 500  # N, queries; the paper takes up to 10,000
    share: float = 0.3  # alpha_init
    seed: int = 0

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        x_adv = x.clone()
        with torch.inference_mode():
            for row, clip, clip_goal in _each_clip(x, goal, lengths):
                x_adv[row, : len(clip)] = self._search(source, clip, clip_goal)
        return x_adv

    def _search(self, source: Victim, clip: Tensor, goal: Goal) -> Tensor:
        epsilon, count = _limits(self.budget, clip, source.sample_rate)
        if count == 0:
            return clip
        (random,) = clip_generators(clip[None], None, self.seed)
        order = torch.randperm(len(clip), generator=random)
        signs = _random_signs(count, random)
        best = _move_samples(clip, order[:count], epsilon * signs)
        logits = source(best[None])
        lowest = float(goal.margin(logits))
        for step in range(1, self.steps):
            if bool(goal.achieved(logits)):
                break
            swapped = max(1, int(count * self.share / _divisor(step / self.steps)))
            leaving = torch.randperm(count, generator=random)[:swapped]
            new_order, new_signs = order.clone(), signs.clone()
            free = len(clip) - count
            if free:  # exchange with samples outside the set, as far as there are any
                entering = count + torch.randperm(free, generator=random)[:swapped]
                leaving_pairs = leaving[: len(entering)]
                new_order[leaving_pairs], new_order[entering] = (
                    order[entering],
                    order[leaving_pairs],
                )
            new_signs[leaving] = _random_signs(swapped, random)
            candidate = _move_samples(clip, new_order[:count], epsilon * new_signs)
            candidate_logits = source(candidate[None])
            margin = float(goal.margin(candidate_logits))
            if margin < lowest:
                lowest, logits = margin, candidate_logits
                best, order, signs = candidate, new_order, new_signs
        return best


@dataclass(frozen=True, slots=True, kw_only=True)
class OnePixel:
    """Differential evolution over a few samples (Su et al., 2019, arXiv:1710.08864).

    A candidate is k positions and k changes in [-epsilon, epsilon]. A child is ``a + F (b - c)`` of three
    of the population and replaces its parent where its margin is lower. k is what the budget allows, and
    1 where it sets no limit. ``relative`` is the variant of STAA-Net's paper: a sample is multiplied by
    ``1 + change``, so that a sample of 0 can never move. The search stops at success.
    """

    budget: Budget = Budget(epsilon=0.03, max_l0=1)
    population: int = 300
    steps: int = 20
    factor: float = 0.5  # F
    relative: bool = False
    batch_size: int = 50
    seed: int = 0

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        x_adv = x.clone()
        with torch.inference_mode():
            for row, clip, clip_goal in _each_clip(x, goal, lengths):
                x_adv[row, : len(clip)] = self._evolve(source, clip, clip_goal)
        return x_adv

    def _evolve(self, source: Victim, clip: Tensor, goal: Goal) -> Tensor:
        epsilon, count = _limits(self.budget, clip, source.sample_rate)
        if self.budget.max_density is None and self.budget.max_l0 is None:
            count = 1
        if count == 0:
            return clip
        (random,) = clip_generators(clip[None], None, self.seed)
        shape = (self.population, count)
        positions = torch.rand(shape, generator=random) * len(clip)
        values = epsilon * (2 * torch.rand(shape, generator=random) - 1)
        margins = self._margins(source, clip, goal, positions, values)
        for _ in range(self.steps):
            if bool((margins < 0).any()):
                break
            a, b, c = torch.rand(3, self.population, generator=random).argsort(dim=1)
            new_positions = (positions[a] + self.factor * (positions[b] - positions[c])).remainder(
                len(clip)
            )
            new_values = values[a] + self.factor * (values[b] - values[c])
            new_values = new_values.clamp(-epsilon, epsilon)
            new_margins = self._margins(source, clip, goal, new_positions, new_values)
            is_better = new_margins < margins
            positions[is_better], values[is_better] = (
                new_positions[is_better],
                new_values[is_better],
            )
            margins = torch.where(is_better, new_margins, margins)
        best = int(margins.argmin())
        return self._apply(clip, positions[best : best + 1], values[best : best + 1])[0]

    def _apply(self, clip: Tensor, positions: Tensor, values: Tensor) -> Tensor:
        """The clip ``[T]`` with each candidate's changes, ``[P, k], [P, k] -> [P, T]``."""
        index = positions.long().clamp_max(len(clip) - 1).to(clip.device)
        delta = torch.zeros(len(positions), len(clip), device=clip.device)
        delta.scatter_(1, index, values.to(clip.device))
        return (clip + (delta * clip if self.relative else delta)).clamp(-1, 1)

    def _margins(
        self, source: Victim, clip: Tensor, goal: Goal, positions: Tensor, values: Tensor
    ) -> Tensor:
        """The margin of each candidate, ``[P]`` on the CPU."""
        margins = []
        for start in range(0, len(positions), self.batch_size):
            part = slice(start, start + self.batch_size)
            logits = source(self._apply(clip, positions[part], values[part]))
            margins.append(goal.margin(logits).cpu())
        return torch.cat(margins)


def _each_clip(x: Tensor, goal: Goal, lengths: Tensor | None) -> Iterator[tuple[int, Tensor, Goal]]:
    """The row, the clip ``[T]`` without padding, and the goal of each clip."""
    for row in range(len(x)):
        length = x.shape[1] if lengths is None else int(lengths[row])
        yield row, x[row, :length], goal.select([row])


def _limits(budget: Budget, clip: Tensor, sample_rate: int) -> tuple[float, int]:
    """Epsilon of a clip ``[T]``, and how many of its samples may move."""
    return float(budget.epsilon_of(clip[None], None, sample_rate)), budget.max_samples(len(clip))


def _random_signs(count: int, random: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, (count,), generator=random) - 1


def _move_samples(clip: Tensor, positions: Tensor, values: Tensor) -> Tensor:
    delta = torch.zeros(len(clip)).index_put((positions,), values)
    return (clip + delta.to(clip.device)).clamp(-1, 1)


def _divisor(progress: float) -> int:
    """The divisor of the first share after a fraction ``progress`` of the queries.

    >>> _divisor(0.1), _divisor(0.9)
    (6, 20)
    """
    query = int(progress * 10_000)
    return max(divisor for start, divisor in SCHEDULE.items() if start < query or not start)
