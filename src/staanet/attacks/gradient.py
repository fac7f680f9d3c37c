"""White-box attacks that follow the gradient of a goal inside the L-infinity ball.

All take any ``Goal``. Where the budget limits the number of samples, the iterate moves every sample, and
each step evaluates the clip in which only the best-ranked samples have moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from staanet.attacks.loss import AttackTask, Loss, check_loss, unit_l1
from staanet.attacks.random import clip_noise
from staanet.attacks.selection import masking_weight, sum_runs
from staanet.core import Budget, Goal, Victim
from staanet.core.top_k import top_k_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class FGSM:
    """One step of epsilon against the gradient's sign (Goodfellow et al., 2015, arXiv:1412.6572).

    A limit on the number of samples keeps the ones of steepest gradient.
    """

    budget: Budget = Budget(epsilon=0.01)
    loss: Loss = "margin"  # the paper: cross_entropy
    seed: int = 0  # draws nothing

    def __post_init__(self) -> None:
        check_loss(self.loss)

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        gradient = AttackTask(source, x, goal, lengths).gradient(x, self.loss)
        support = top_k_mask(gradient.abs(), self.budget, lengths)
        epsilon = self.budget.step_limit(x, lengths, source.sample_rate)
        return (x - epsilon * gradient.sign() * support).clamp(-1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD:
    """Projected gradient descent in the L-infinity ball (Madry et al., 2018, arXiv:1706.06083).

    The settings of STAA-Net's paper: epsilon 0.01, step epsilon / 4, 20 steps, random start. Where the
    budget limits the number of samples, each step chooses them anew: those of the largest sum of past
    gradients, each divided by its L1 norm and ``decay`` weaker a step later. On speech this fools far
    more than keeping the samples of the steepest clean gradient. With ``masking_power`` a sample moves
    by less, and ranks lower, where the clip masks less: see ``masking_weight``.
    """

    budget: Budget = Budget(epsilon=0.01)
    steps: int = 20
    relative_step: float = 0.25  # step size as a share of epsilon
    decay: float = 0.8
    loss: Loss = "margin"  # the paper: cross_entropy
    masking_power: float = 0.0  # 0 treats all samples alike, 1 follows the masking threshold
    run_length: int = 1  # samples are chosen in runs of so many
    seed: int = 0

    def __post_init__(self) -> None:
        check_loss(self.loss)

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        task = AttackTask(source, x, goal, lengths)
        weight = masking_weight(x, lengths, source.sample_rate, self.masking_power)
        limit = self.budget.step_limit(x, lengths, source.sample_rate) * weight
        gradient = unit_l1(task.gradient(x, self.loss))
        support = top_k_mask(gradient.abs(), self.budget, lengths)
        delta = limit * (2 * clip_noise(x, lengths, self.seed)[0] - 1)
        length = x.shape[1] if lengths is None else lengths[:, None]
        is_limited = support.sum(dim=1, keepdim=True) < length
        # there a random start is worth less than the first gradient's signs
        delta = torch.where(is_limited, -limit * gradient.sign(), delta)
        return self.descend(task, delta, gradient, limit)

    def descend(self, task: AttackTask, delta: Tensor, total: Tensor, limit: Tensor) -> Tensor:
        """Runs the steps, and returns ``x_adv [B, T]``.

        Args:
            task: The clips, their source and goal.
            delta: The change of every sample to start from, ``[B, T]``.
            total: The sum of past gradients to start from, ``[B, T]``.
            limit: The largest change of each sample, ``[B, T]``. Times ``total`` it ranks the samples.
        """
        x = task.x
        support = self._support(task, total, limit)
        for _ in range(self.steps):
            gradient = task.gradient((x + delta * support).clamp(-1, 1), self.loss)
            total = self.decay * total + unit_l1(gradient)
            delta = (delta - self.relative_step * limit * gradient.sign()).clamp(-limit, limit)
            support = self._support(task, total, limit)
        return (x + delta * support).clamp(-1, 1)

    def _support(self, task: AttackTask, total: Tensor, limit: Tensor) -> Tensor:
        score = sum_runs(total.abs() * limit, self.run_length)
        return top_k_mask(score, self.budget, task.lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class MIFGSM:
    """Momentum iterative FGSM (Dong et al., 2018, arXiv:1710.06081): steadier, transfers better."""

    budget: Budget = Budget(epsilon=0.01)
    steps: int = 10  # T
    decay: float = 1.0  # mu
    loss: Loss = "cross_entropy"
    seed: int = 0  # draws nothing

    def __post_init__(self) -> None:
        check_loss(self.loss)

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        task = AttackTask(source, x, goal, lengths)
        return _follow_momentum(task, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class VMIFGSM:
    """MI-FGSM with variance tuning (Wang and He, 2021, arXiv:2103.15571).

    The gradient is corrected by how the gradients of ``neighbours`` within ``radius`` epsilon differed
    from it a step before.
    """

    budget: Budget = Budget(epsilon=0.01)
    steps: int = 10  # T
    decay: float = 1.0  # mu
    neighbours: int = 5  # N; the paper takes 20
    radius: float = 1.5  # beta, in units of epsilon
    loss: Loss = "cross_entropy"
    seed: int = 0

    def __post_init__(self) -> None:
        check_loss(self.loss)

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        task = AttackTask(source, x, goal, lengths)
        noise = 2 * clip_noise(x, lengths, self.seed, self.steps * self.neighbours) - 1
        noise = noise.view(self.steps, self.neighbours, *x.shape)
        noise = noise * self.radius * self.budget.step_limit(x, lengths, source.sample_rate)

        def variance(step: int, x_adv: Tensor, gradient: Tensor) -> Tensor:
            near = [task.gradient(x_adv + offset, self.loss) for offset in noise[step]]
            return torch.stack(near).mean(dim=0) - gradient

        return _follow_momentum(task, self, variance)


def _follow_momentum(
    task: AttackTask,
    settings: MIFGSM | VMIFGSM,
    variance: Callable[[int, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """The steps of MI-FGSM; ``variance`` gives what corrects the gradient of the next step."""
    x, budget = task.x, settings.budget
    epsilon = budget.step_limit(x, task.lengths, task.source.sample_rate)
    delta, momentum, support = torch.zeros_like(x), torch.zeros_like(x), torch.ones_like(x)
    correction = torch.zeros_like(x)
    for step in range(settings.steps):
        x_adv = (x + delta * support).clamp(-1, 1)
        gradient = task.gradient(x_adv, settings.loss)
        momentum = settings.decay * momentum + unit_l1(gradient + correction)
        if variance is not None:
            correction = variance(step, x_adv, gradient)
        delta = (delta - epsilon / settings.steps * momentum.sign()).clamp(-epsilon, epsilon)
        support = top_k_mask(momentum.abs(), budget, task.lengths).to(x.dtype)
    return (x + delta * support).clamp(-1, 1)
