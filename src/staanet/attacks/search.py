"""Black-box attacks: they see a source's logits, never its gradient, and search for a few samples."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from staanet import audio
from staanet.core import Budget, Goal, Targeted, Untargeted, Victim


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseRS:
    """Random search over k samples at the edge of the budget (Croce et al., 2022, arXiv:2006.12834).

    k is what the budget allows; each of them moves by plus or minus epsilon. A step draws a share of
    the samples anew and is kept where the margin does not rise; the share halves as queries are spent,
    at the points of the paper's schedule. It stops at success.
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
            for row, clip, aim in _each(x, goal, lengths):
                x_adv[row, : len(clip)] = self._search(source, clip, aim)
        return x_adv

    def _search(self, source: Victim, clip: Tensor, goal: Goal) -> Tensor:
        epsilon, count = _limits(self.budget, len(clip))
        if count == 0:
            return clip
        draw = _random(clip, self.seed)
        order = torch.randperm(len(clip), generator=draw)
        signs = _signs(count, draw)
        best = _moved(clip, order[:count], epsilon * signs)
        logits = source(best[None])
        lowest = float(goal.margin(logits))
        for step in range(1, self.steps):
            if bool(goal.achieved(logits)):
                break
            swapped = max(1, int(count * self.share * _schedule(step / self.steps)))
            out = torch.randperm(count, generator=draw)[:swapped]
            new_order, new_signs = order.clone(), signs.clone()
            free = len(clip) - count
            if free:  # exchange places with samples outside the set, as far as there are any
                away = count + torch.randperm(free, generator=draw)[:swapped]
                new_order[out[: len(away)]], new_order[away] = order[away], order[out[: len(away)]]
            new_signs[out] = _signs(swapped, draw)
            tried = _moved(clip, new_order[:count], epsilon * new_signs)
            answer = source(tried[None])
            if float(goal.margin(answer)) <= lowest:
                lowest, logits = float(goal.margin(answer)), answer
                best, order, signs = tried, new_order, new_signs
        return best


@dataclass(frozen=True, slots=True, kw_only=True)
class OnePixel:
    """Differential evolution over a few samples (Su et al., 2019, arXiv:1710.08864).

    A candidate is k places and k changes in [-epsilon, epsilon]; a child is ``a + F (b - c)`` of three
    of the population and replaces its parent where its margin is lower. k is what the budget allows,
    and 1 where it sets no limit. ``relative`` is the variant of STAA-Net's paper: a sample is multiplied
    by ``1 + change``, so that a sample of 0 can never move. It stops at success.
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
            for row, clip, aim in _each(x, goal, lengths):
                x_adv[row, : len(clip)] = self._evolve(source, clip, aim)
        return x_adv

    def _evolve(self, source: Victim, clip: Tensor, goal: Goal) -> Tensor:
        epsilon, count = _limits(self.budget, len(clip))
        if self.budget.max_density is None and self.budget.max_l0 is None:
            count = 1
        if count == 0:
            return clip
        draw = _random(clip, self.seed)
        shape = (self.population, count)
        places = torch.rand(shape, generator=draw) * len(clip)
        values = epsilon * (2 * torch.rand(shape, generator=draw) - 1)
        margins = self._margins(source, clip, goal, places, values)
        for _ in range(self.steps):
            if bool((margins < 0).any()):
                break
            a, b, c = torch.rand(3, self.population, generator=draw).argsort(dim=1)
            new_places = (places[a] + self.factor * (places[b] - places[c])).remainder(len(clip))
            new_values = values[a] + self.factor * (values[b] - values[c])
            new_values = new_values.clamp(-epsilon, epsilon)
            new = self._margins(source, clip, goal, new_places, new_values)
            better = new < margins
            places[better], values[better] = new_places[better], new_values[better]
            margins = torch.where(better, new, margins)
        best = int(margins.argmin())
        return self._clips(clip, places[best : best + 1], values[best : best + 1])[0]

    def _clips(self, clip: Tensor, places: Tensor, values: Tensor) -> Tensor:
        at = places.long().clamp_max(len(clip) - 1).to(clip.device)
        delta = torch.zeros(len(places), len(clip), device=clip.device)
        delta.scatter_(1, at, values.to(clip.device))
        return (clip + (delta * clip if self.relative else delta)).clamp(-1, 1)

    def _margins(
        self, source: Victim, clip: Tensor, goal: Goal, places: Tensor, values: Tensor
    ) -> Tensor:
        """The margin of each candidate, ``[P]`` on the CPU."""
        margins = []
        for start in range(0, len(places), self.batch_size):
            part = slice(start, start + self.batch_size)
            logits = source(self._clips(clip, places[part], values[part]))
            margins.append(goal.margin(logits).cpu())
        return torch.cat(margins)


def _each(x: Tensor, goal: Goal, lengths: Tensor | None) -> Iterator[tuple[int, Tensor, Goal]]:
    """Row, clip ``[T]`` without padding, and the clip's own goal."""
    labels = torch.as_tensor(goal.label).expand(len(x)).tolist()
    kind = Targeted if isinstance(goal, Targeted) else Untargeted
    for row, label in enumerate(labels):
        length = x.shape[1] if lengths is None else int(lengths[row])
        yield row, x[row, :length], kind(int(label))


def _limits(budget: Budget, length: int) -> tuple[float, int]:
    return budget.epsilon_lsb / audio.FULL_SCALE, budget.max_samples(length)


def _random(clip: Tensor, seed: int) -> torch.Generator:
    """Random numbers that belong to this clip and seed, whatever batch it comes in."""
    return torch.Generator().manual_seed(zlib.crc32(clip.cpu().numpy().tobytes(), seed))


def _signs(count: int, draw: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, (count,), generator=draw) - 1


def _moved(clip: Tensor, places: Tensor, values: Tensor) -> Tensor:
    delta = torch.zeros(len(clip)).index_put((places,), values)
    return (clip + delta.to(clip.device)).clamp(-1, 1)


def _schedule(progress: float) -> float:
    """Which part of the first share is drawn anew once ``progress`` of the queries is spent.

    >>> _schedule(0.1), _schedule(0.9)
    (0.125, 0.0078125)
    """
    ends = (0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8)  # of 10,000 queries in the paper, likewise here
    return 0.5 ** sum(progress >= end for end in ends)
