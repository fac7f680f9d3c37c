"""White-box attacks that minimise the number of changed samples.

Each keeps, clip by clip, the sparsest success that it met. Where that takes more samples than the budget
allows, or there is none, the samples of the largest ``|gradient * change|`` are kept. With ``epsilon=2``
a sample may take any value in [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from staanet.attacks.loss import AttackTask, goal_loss
from staanet.core import Budget, Goal, Untargeted, Victim, clip_generators
from staanet.core.top_k import top_k_mask
from staanet.errors import InvalidInput

BEYOND = 1e-3
"""How far beyond its plane SparseFool aims, in L2; the authors' code calls it beta."""
MIN_STEP = 1e-4
"""The shortest move of a sample, and step of DeepFool, in SparseFool; as in the authors' code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmaZero:
    """Gradient descent on a smooth count of changed samples (Cina et al., 2025, arXiv:2402.01879).

    The loss is the margin, clipped at 0, plus ``sum d^2 / (d^2 + sigma)`` over T. A step has unit
    maximum. Components below ``tau`` are cut off; it grows while the clip is fooled and shrinks while it
    is not. Beyond the original, the box is [-1, 1] and ``|d| <= epsilon``, and steps, ``tau`` and
    ``sqrt(sigma)`` are shares of epsilon (of 1 where epsilon is larger).
    """

    budget: Budget = Budget(epsilon=0.03)
    steps: int = 200  # N; the paper takes 1000
    learning_rate: float = 1.0  # eta_0, annealed by a cosine
    sigma: float = 1e-3
    threshold: float = 0.3  # tau_0
    threshold_rate: float = 0.01  # t
    seed: int = 0  # draws nothing
    minimises_samples: ClassVar[bool] = True

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        task = AttackTask(source, x, goal, lengths)
        best = SparsestSuccess(task, self.budget)
        low, high = _box(task, self.budget)
        inside = task.inside
        unit = self.budget.epsilon_of(x, lengths, source.sample_rate).clamp_max(
            1
        )  # of steps and tau
        delta = torch.zeros_like(x)
        tau = torch.full((len(x), 1), self.threshold, device=x.device)
        for step in range(self.steps):
            with torch.enable_grad():
                change = delta.detach().requires_grad_()
                logits = source(x + change, lengths)
                smooth = change.square() / (change.square() + self.sigma * unit**2)
                share = smooth.sum(dim=1) / inside.sum(dim=1)
                loss = goal.margin(logits).clamp_min(0) + share
                (gradient,) = torch.autograd.grad(loss.sum(), change)
            is_fooled = best.offer(delta, goal.achieved(logits.detach()))
            gradient = gradient / gradient.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
            rate = self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2
            delta = (delta - rate * unit * gradient).clamp(low, high) * inside
            change_of_tau = self.threshold_rate * rate * torch.where(is_fooled, 1.0, -1.0)[:, None]
            tau = (tau + change_of_tau).clamp(0, 1)
            delta = delta * (delta.abs() >= tau * unit)
        best.evaluate(delta)
        return best.x_adv()


@dataclass(frozen=True, slots=True, kw_only=True)
class VFGA:
    """Voting folded Gaussian attack (Hajri et al., 2020, arXiv:2011.12423).

    Each step looks for the sample whose move up, and the one whose move down, promises most. For both it
    tries ``draws`` lengths, each the absolute value of a normal number times the way to the edge of the
    box. Of these candidates the best is kept: one that reaches the goal, else the one of the lowest
    probability of the clip's class (of the highest of the target class). The original moves one sample a
    step. A long clip within a small epsilon needs thousands, so a step moves ``growth`` times as many as
    have moved already, at least one; 0 is the original.
    """

    budget: Budget = Budget(epsilon=0.03)
    steps: int = 100
    draws: int = 10  # n_samples, for each direction
    growth: float = 0.1
    seed: int = 0
    minimises_samples: ClassVar[bool] = True

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        task = AttackTask(source, x, goal, lengths)
        best = SparsestSuccess(task, self.budget)
        generators = clip_generators(x, lengths, self.seed)
        delta = torch.zeros_like(x)
        is_done = best.evaluate(delta)
        for _ in range(self.steps):
            rows = (~is_done).nonzero()[:, 0].tolist()
            if not rows:
                break
            gradient, _ = task.gradient_and_logits(x + delta, "cross_entropy")
            noise = torch.stack(
                [torch.randn(2, self.draws, generator=generators[row]) for row in rows]
            )
            candidates = self._candidates(task.rows(rows), delta[rows], gradient[rows], noise)
            delta[rows], is_done[rows] = self._vote(task.rows(rows), candidates)
            best.offer(delta, is_done)
        return best.x_adv()

    def _candidates(
        self, task: AttackTask, delta: Tensor, gradient: Tensor, noise: Tensor
    ) -> Tensor:
        """The changes to choose from, ``[B, 2 * draws, T]``: samples that move up, then down.

        ``delta [B, T]`` is the change so far and ``noise [B, 2, draws]`` normal numbers.
        """
        is_free = (delta == 0) & task.inside
        counts = [max(1, int(self.growth * int(row.count_nonzero()))) for row in delta]
        candidates = delta[:, None].repeat(1, 2 * self.draws, 1)
        for direction, edge in enumerate(reversed(_box(task, self.budget))):
            gain = (-gradient * edge).masked_fill(~is_free, -torch.inf)
            shares = noise[:, direction].abs().clamp_max(1).to(delta)  # of the way to the edge
            for row, count in enumerate(counts):
                index = gain[row].topk(min(count, int(is_free[row].sum()))).indices
                moves = shares[row][:, None] * edge[row, index]
                first = direction * self.draws
                candidates[row, first : first + self.draws, index] = moves
        return candidates

    def _vote(self, task: AttackTask, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The best change of each clip ``[B, T]``, and whether it reaches the goal, ``[B]`` bool."""
        batch, count, _ = candidates.shape
        task = task.rows([row for row in range(batch) for _ in range(count)])
        with torch.inference_mode():
            logits = task.source(task.x + candidates.flatten(0, 1), task.lengths)
            is_reached = task.goal.achieved(logits).view(batch, count)
            loss = goal_loss(task.goal, logits, "cross_entropy").view(batch, count)
        any_reached = is_reached.any(dim=1)
        loss = loss.masked_fill(any_reached[:, None] & ~is_reached, torch.inf)
        return candidates[torch.arange(batch), loss.argmin(dim=1)], any_reached


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseFool:
    """Linear steps along the steepest samples (Modas et al., 2019, arXiv:1811.02248).

    Each step takes the boundary for a plane through DeepFool's nearest point, pushed outwards by
    ``control``. It then moves samples in the order of the plane's normal, each to the edge of its box,
    the last one only as far as the plane. Settings of STAA-Net's paper: 20 steps, lambda 10, overshoot
    0.02; those of SparseFool's own: lambda 3 on images. The attack is untargeted, as published.

    A plane that is pushed too far for the box is never reached, and then every sample moves. With lambda
    10 at epsilon 0.03 that happens for most clips of speech: see ``staanet.attacks.density_flags``.
    """

    budget: Budget = Budget(epsilon=0.03)
    steps: int = 20
    control: float = 10.0  # lambda
    overshoot: float = 0.02
    deepfool_steps: int = 50
    seed: int = 0  # draws nothing
    minimises_samples: ClassVar[bool] = True

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        if not isinstance(goal, Untargeted):
            raise InvalidInput(
                "sparsefool changes the class that is predicted; it cannot aim at one, nor move numbers",
                remedy="Use --attack pgd or sigma_zero",
            )
        task = AttackTask(source, x, goal, lengths)
        best = SparsestSuccess(task, self.budget)
        low, high = _box(task, self.budget)
        delta = torch.zeros_like(x)
        is_done = best.evaluate(delta)
        for _ in range(self.steps):
            if bool(is_done.all()):
                break
            normal, nearest = self._deepfool(task, x + delta)
            step = _reach_plane(normal, self.control * nearest, delta, (low, high))
            delta = torch.where(is_done[:, None], delta, step)
            is_done = is_done | best.evaluate(((1 + self.overshoot) * delta).clamp(low, high))
        return best.x_adv()

    def _deepfool(self, task: AttackTask, x: Tensor) -> tuple[Tensor, Tensor]:
        """DeepFool (Moosavi-Dezfooli et al., 2016): the unit normal of the boundary near ``x [B, T]``,
        and the step ``[B, T]`` to its nearest point."""
        assert isinstance(task.goal, Untargeted), "checked before"
        label = torch.as_tensor(task.goal.label, device=x.device).expand(len(x))
        step = torch.zeros_like(x)
        is_open = torch.ones_like(label, dtype=torch.bool)
        for _ in range(self.deepfool_steps):
            step = step + is_open[:, None] * self._nearest_plane(task, x + step, label)
            with torch.inference_mode():
                logits = task.source(x + (1 + self.overshoot) * step, task.lengths)
            is_open = logits.argmax(dim=1) == label
            if not bool(is_open.any()):
                break
        other = logits.scatter(1, label[:, None], -torch.inf).argmax(dim=1)
        with torch.enable_grad():
            point = (x + step).detach().requires_grad_()
            logits = task.source(point, task.lengths)
            rise = logits.gather(1, other[:, None]) - logits.gather(1, label[:, None])
            (normal,) = torch.autograd.grad(rise.sum(), point)
        return normal / normal.norm(dim=1, keepdim=True).clamp_min(1e-12), step

    def _nearest_plane(self, task: AttackTask, x: Tensor, label: Tensor) -> Tensor:
        """The step ``[B, T]`` to the nearest of the planes between the clip's class and the others."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = task.source(x, task.lengths)
            slopes = torch.stack(
                [
                    torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0]
                    for k in range(logits.shape[1])
                ],
                dim=1,
            )
        rows, logits = torch.arange(len(x), device=x.device), logits.detach()
        normals = slopes - slopes[rows, label][:, None]
        norms = normals.norm(dim=2)
        distances = (logits - logits.gather(1, label[:, None])).abs() / norms.clamp_min(1e-12)
        nearest = distances.scatter(1, label[:, None], torch.inf).argmin(dim=1)
        length = distances[rows, nearest].clamp_min(MIN_STEP) / norms[rows, nearest]
        step: Tensor = length[:, None] * normals[rows, nearest]
        return step


def _reach_plane(
    normal: Tensor, to_plane: Tensor, delta: Tensor, box: tuple[Tensor, Tensor]
) -> Tensor:
    """``delta [B, T]`` with more samples moved, so that the plane ``to_plane [B, T]`` away is reached.

    Samples move in the order of the unit ``normal [B, T]`` to the edge of the box, the last one less.
    """
    low, high = box
    missing = (normal * to_plane).double().sum(dim=1, keepdim=True).clamp_min(0) + BEYOND
    room = torch.where(normal > 0, high - delta, delta - low).double()
    slope, order = normal.double().abs().sort(dim=1, descending=True)
    room = room.gather(1, order)
    before = (slope * room).cumsum(dim=1) - slope * room
    move = ((missing - before) / slope.clamp_min(1e-300)).clamp_min(MIN_STEP).minimum(room)
    move = torch.where((before < missing) & (slope > 0), move, 0.0)
    moves = torch.zeros_like(delta).scatter(1, order, move.to(delta.dtype))
    return delta + normal.sign() * moves


def _box(task: AttackTask, budget: Budget) -> tuple[Tensor, Tensor]:
    """The lowest and highest change of each sample, ``[B, T]`` both: epsilon, and [-1, 1] for x + d."""
    epsilon = budget.epsilon_of(task.x, task.lengths, task.source.sample_rate)
    inside = task.inside
    low, high = (-1 - task.x).clamp(min=-epsilon), (1 - task.x).clamp(max=epsilon)
    return low * inside, high * inside


@dataclass
class SparsestSuccess:
    """Tracks the sparsest success of each clip, else its last attempt; cuts it to the budget at the end."""

    task: AttackTask
    budget: Budget
    delta: Tensor = field(init=False)
    count: Tensor = field(init=False)
    last: Tensor = field(init=False)

    def __post_init__(self) -> None:
        x = self.task.x
        self.delta, self.last = torch.zeros_like(x), torch.zeros_like(x)
        self.count = torch.full((len(x),), torch.inf, device=x.device)

    def evaluate(self, delta: Tensor) -> Tensor:
        """Runs the source on an attempt ``[B, T]``; returns which clips reach the goal, ``[B]`` bool."""
        with torch.inference_mode():
            logits = self.task.source(self.task.x + delta, self.task.lengths)
            is_reached = self.task.goal.achieved(logits)
        return self.offer(delta, is_reached.clone())

    def offer(self, delta: Tensor, is_reached: Tensor) -> Tensor:
        """Takes note of an attempt ``[B, T]`` that reaches the goal for some clips, ``[B]`` bool."""
        count = (delta != 0).sum(dim=1)
        is_better = is_reached & (count < self.count)
        self.delta[is_better] = delta[is_better]
        self.count[is_better] = count[is_better].to(self.count.dtype)
        self.last = delta
        return is_reached

    def x_adv(self) -> Tensor:
        """Returns the clips with the best attempt, cut to the samples that the budget allows."""
        task = self.task
        delta = torch.where(torch.isfinite(self.count)[:, None], self.delta, self.last)
        gain = (task.gradient(task.x) * delta).abs()
        score = gain.masked_fill(delta == 0, -torch.inf)
        return (task.x + delta * top_k_mask(score, self.budget, task.lengths)).clamp(-1, 1)
