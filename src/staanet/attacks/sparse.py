"""White-box attacks that look for the fewest changed samples.

Each keeps, clip by clip, the sparsest success it met. Where that takes more samples than the budget
allows, or there is none, the samples of the largest ``|gradient * change|`` are kept. With ``epsilon=2`` a sample may take any
value in [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from staanet import audio
from staanet.attacks.gradient import margin_gradient
from staanet.core import Budget, Goal, Untargeted, Victim, valid_mask
from staanet.core.top_k import top_k_mask
from staanet.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmaZero:
    """Gradient descent on a smooth count of changed samples (Cina et al., 2025, arXiv:2402.01879).

    The loss is the margin, clipped at 0, plus ``sum d^2 / (d^2 + sigma)`` over T. A step has
    unit maximum; components below ``tau`` are cut off, which grows while the clip is fooled and shrinks
    while it is not. Beyond the original: the box is [-1, 1], ``|d| <= epsilon``, and steps, ``tau`` and
    ``sqrt(sigma)`` are shares of epsilon (of 1 where epsilon is larger).
    """

    budget: Budget = Budget(epsilon=0.03)
    steps: int = 200  # N; the paper takes 1000
    learning_rate: float = 1.0  # eta_0, annealed by a cosine
    sigma: float = 1e-3
    threshold: float = 0.3  # tau_0
    threshold_rate: float = 0.01  # t
    seed: int = 0  # draws nothing

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        best = _Best(source, x, goal, self.budget, lengths)
        low, high = _box(x, self.budget)
        inside = _inside(x, lengths)
        reach = min(
            1.0, self.budget.epsilon_lsb / audio.FULL_SCALE
        )  # what a step and tau are shares of
        delta = torch.zeros_like(x)
        tau = torch.full((len(x), 1), self.threshold, device=x.device)
        for step in range(self.steps):
            with torch.enable_grad():
                moved = delta.detach().requires_grad_()
                logits = source(x + moved, lengths)
                smooth = moved.square() / (moved.square() + self.sigma * reach**2)
                share = smooth.sum(dim=1) / inside.sum(dim=1)
                loss = goal.margin(logits).clamp_min(0) + share
                (gradient,) = torch.autograd.grad(loss.sum(), moved)
            fooled = best.offer(delta, logits.detach())
            gradient = gradient / gradient.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
            rate = self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2
            delta = (delta - rate * reach * gradient).clamp(low, high) * inside
            change = self.threshold_rate * rate * torch.where(fooled, 1.0, -1.0)[:, None]
            tau = (tau + change).clamp(0, 1)
            delta = delta * (delta.abs() >= tau * reach)
        with torch.inference_mode():
            best.offer(delta, source(x + delta, lengths))
        return best.x_adv()


@dataclass(frozen=True, slots=True, kw_only=True)
class VFGA:
    """Voting folded Gaussian attack (Hajri et al., 2020, arXiv:2011.12423), made deterministic.

    Each step moves the sample whose move to the edge of its box promises the largest fall of the
    margin. A long clip needs thousands of samples, so a step moves ``growth`` of those already moved
    (at least one); the original moves one.
    """

    budget: Budget = Budget(epsilon=0.03)
    steps: int = 100
    growth: float = 0.1
    seed: int = 0  # draws nothing

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        best = _Best(source, x, goal, self.budget, lengths)
        low, high = _box(x, self.budget)
        delta = torch.zeros_like(x)
        count = torch.ones(len(x), dtype=torch.long)
        for _ in range(self.steps):
            gradient, logits = _gradient(source, x + delta, goal, lengths)
            done = best.offer(delta, logits)
            if bool(done.all()):
                break
            edge = torch.where(gradient > 0, low, high)
            gain = (-gradient * edge).masked_fill(delta != 0, -torch.inf)
            gain = gain.masked_fill(~_inside(x, lengths), -torch.inf)
            for row in torch.nonzero(~done)[:, 0].tolist():
                free = int(torch.isfinite(gain[row]).sum())
                places = gain[row].topk(min(free, int(count[row]))).indices
                delta[row, places] = edge[row, places]
                count[row] = max(1, int(self.growth * int((delta[row] != 0).sum())))
        with torch.inference_mode():
            best.offer(delta, source(x + delta, lengths))
        return best.x_adv()


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseFool:
    """Linear steps along the steepest samples (Modas et al., 2019, arXiv:1811.02248).

    At each step the boundary is taken for the plane through DeepFool's nearest point, pushed outwards
    by ``control``; the fewest samples, each moved to the edge of its box, are taken that reach it.
    The paper's settings: 20 steps, lambda 10, overshoot 0.02. Untargeted, as published. DeepFool's
    point counts too, where no sparser one was found: of speech the planes lead a few clips astray.
    """

    budget: Budget = Budget(epsilon=0.03)
    steps: int = 20
    control: float = 10.0  # lambda
    overshoot: float = 0.02
    deepfool_steps: int = 10
    seed: int = 0  # draws nothing

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        if not isinstance(goal, Untargeted):
            raise InvalidInput(
                "sparsefool changes the answer and cannot aim at a class, as published",
                remedy="Use --attack pgd or sigma_zero for a targeted attack",
            )
        best = _Best(source, x, goal, self.budget, lengths)
        low, high = _box(x, self.budget)
        delta = torch.zeros_like(x)
        for _ in range(self.steps):
            with torch.inference_mode():
                done = best.offer(delta, source(x + delta, lengths))
            if bool(done.all()):
                break
            normal, nearest = self._plane(source, x + delta, goal, lengths)
            beyond = delta + (1 + self.overshoot) * nearest
            beyond = torch.minimum(torch.maximum(beyond, low), high) * _inside(x, lengths)
            with torch.inference_mode():
                best.offer(beyond, source(x + beyond, lengths))
            wanted = (normal * self.control * nearest).sum(dim=1)  # w . (x_B - x), pushed outwards
            delta = torch.where(
                done[:, None], delta, _fewest(normal, wanted, delta, low, high, lengths)
            )
        with torch.inference_mode():
            best.offer(delta, source(x + delta, lengths))
        return best.x_adv()

    def _plane(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """DeepFool: the downhill direction at the boundary and the step ``[B, T]`` that reaches it."""
        step = torch.zeros_like(x)
        for _ in range(self.deepfool_steps):
            gradient, logits = _gradient(source, x + (1 + self.overshoot) * step, goal, lengths)
            open_ = ~goal.achieved(logits)
            if not bool(open_.any()):
                break
            norm = gradient.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
            move = -goal.margin(logits).clamp_min(0)[:, None] * gradient / norm
            step = step + move * open_[:, None]
        return -margin_gradient(source, x + (1 + self.overshoot) * step, goal, lengths), step


def _fewest(
    normal: Tensor, wanted: Tensor, delta: Tensor, low: Tensor, high: Tensor, lengths: Tensor | None
) -> Tensor:
    """``delta`` with the fewest more samples at the edge of their box that add ``wanted`` along normal."""
    edge = torch.where(normal > 0, high, low)
    gain = (normal * (edge - delta)).clamp_min(0) * _inside(delta, lengths)
    order = gain.argsort(dim=1, descending=True)
    reached = gain.gather(1, order).cumsum(dim=1)
    taken = (reached - gain.gather(1, order)) < wanted[:, None]
    chosen = torch.zeros_like(taken).scatter(1, order, taken) & (gain > 0)
    return torch.where(chosen, edge, delta)


def _gradient(
    source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradient of the margin ``[B, T]`` and the logits ``[B, K]`` of one pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = source(x, lengths)
        (gradient,) = torch.autograd.grad(goal.margin(logits).sum(), x)
    return gradient, logits.detach()


def _box(x: Tensor, budget: Budget) -> tuple[Tensor, Tensor]:
    """The lowest and highest change of each sample, ``[B, T]`` both: epsilon, and [-1, 1] for x + d."""
    epsilon = budget.epsilon_lsb / audio.FULL_SCALE
    return (-1 - x).clamp_min(-epsilon), (1 - x).clamp_max(epsilon)


def _inside(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Which samples belong to their clip, ``[B, T]`` bool."""
    if lengths is None:
        return torch.ones_like(x, dtype=torch.bool)
    return valid_mask(lengths, x.shape[1]).bool()


@dataclass
class _Best:
    """For each clip the sparsest success, else the last attempt; cut to the budget at the end."""

    source: Victim
    x: Tensor
    goal: Goal
    budget: Budget
    lengths: Tensor | None
    delta: Tensor = field(init=False)
    count: Tensor = field(init=False)
    last: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.delta = torch.zeros_like(self.x)
        self.last = torch.zeros_like(self.x)
        self.count = torch.full((len(self.x),), torch.inf, device=self.x.device)

    def offer(self, delta: Tensor, logits: Tensor) -> Tensor:
        """Take note of an attempt; which clips it fools, ``[B]`` bool."""
        fooled = self.goal.achieved(logits)
        count = (delta != 0).sum(dim=1)
        better = fooled & (count < self.count)
        self.delta[better], self.count[better] = delta[better], count[better].to(self.count.dtype)
        self.last = delta
        return fooled

    def x_adv(self) -> Tensor:
        """The clips with what was kept, cut to the samples that the budget allows."""
        delta = torch.where(torch.isfinite(self.count)[:, None], self.delta, self.last)
        gain = (margin_gradient(self.source, self.x, self.goal, self.lengths) * delta).abs()
        score = gain.masked_fill(delta == 0, -torch.inf)
        return (self.x + delta * top_k_mask(score, self.budget, self.lengths)).clamp(-1, 1)
