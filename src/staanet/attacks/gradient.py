"""White-box attacks that follow the gradient of the goal's margin inside the L-infinity ball.

All take any ``Goal``. Where the budget limits the number of samples, the iterate moves every sample,
and each step iterations only at the clip in which the best-ranked samples have moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from staanet.attacks.support import clip_noise, masking_weight, sum_runs
from staanet.core import Budget, Goal, Victim
from staanet.core.top_k import top_k_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class FGSM:
    """One step of epsilon against the gradient's sign (Goodfellow et al., 2015, arXiv:1412.6572).

    A limit on the number of samples keeps the ones of steepest gradient.
    """

    budget: Budget = Budget(epsilon=0.01)
    seed: int = 0  # draws nothing

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        gradient = margin_gradient(source, x, goal, lengths)
        support = top_k_mask(gradient.abs(), self.budget, lengths)
        epsilon = self.budget.step_limit(x, lengths)
        return (x - epsilon * gradient.sign() * support).clamp(-1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD:
    """Projected gradient descent in the L-infinity ball (Madry et al., 2018, arXiv:1706.06083).

    The paper's settings: epsilon 0.01, step epsilon / 4, 20 steps, random start. Where the budget
    limits the number of samples, they are chosen anew at each step: the ones of the largest sum of
    past gradients, each divided by its L1 norm and ``decay`` weaker a step later. On speech this fools
    far more than keeping the samples of the steepest clean gradient. With ``hide`` a sample moves by
    at most epsilon times, and is ranked by its sum times, how well the clip masks a change there.
    """

    budget: Budget = Budget(epsilon=0.01)
    steps: int = 20
    relative_step: float = 0.25  # step size as a share of epsilon
    decay: float = 0.8
    masking_power: float = (
        0.0  # power of the weight of masking: 0 hides nowhere, 1 as the masking threshold
    )
    run_length: int = 1  # samples are chosen in runs of so many
    seed: int = 0

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        weight = masking_weight(x, lengths, source.sample_rate, self.masking_power)
        limit = self.budget.step_limit(x, lengths) * weight
        gradient = normalised(margin_gradient(source, x, goal, lengths))
        support = top_k_mask(gradient.abs(), self.budget, lengths)
        delta = limit * (2 * clip_noise(x, lengths, self.seed)[0] - 1)
        length = x.shape[1] if lengths is None else lengths[:, None]
        limited = support.sum(dim=1, keepdim=True) < length  # each clip by itself, padding apart
        # there a random start is worth less than the first gradient's signs
        delta = torch.where(limited, -limit * gradient.sign(), delta)
        return descend(
            source,
            x,
            goal,
            lengths,
            self.budget,
            delta,
            gradient,
            limit=limit,
            steps=self.steps,
            relative_step=self.relative_step,
            decay=self.decay,
            run_length=self.run_length,
        )


def descend(
    source: Victim,
    x: Tensor,
    goal: Goal,
    lengths: Tensor | None,
    budget: Budget,
    delta: Tensor,
    total: Tensor,
    *,
    limit: Tensor,
    steps: int,
    relative_step: float,
    decay: float,
    run_length: int = 1,
) -> Tensor:
    """Steps of PGD from a change ``delta [B, T]`` of every sample and gradients ``total`` summed so
    far; no sample moves by more than ``limit [B, T]``, and that times its sum ranks it. See ``PGD``."""
    support = top_k_mask(sum_runs(total.abs() * limit, run_length), budget, lengths)
    for _ in range(steps):
        gradient = margin_gradient(source, (x + delta * support).clamp(-1, 1), goal, lengths)
        total = decay * total + normalised(gradient)
        delta = (delta - relative_step * limit * gradient.sign()).clamp(-limit, limit)
        support = top_k_mask(sum_runs(total.abs() * limit, run_length), budget, lengths)
    return (x + delta * support).clamp(-1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MIFGSM:
    """Momentum iterative FGSM (Dong et al., 2018, arXiv:1710.06081): steadier, transfers better."""

    budget: Budget = Budget(epsilon=0.01)
    steps: int = 10  # T
    decay: float = 1.0  # mu
    seed: int = 0  # draws nothing

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        epsilon = self.budget.step_limit(x, lengths)
        delta, momentum, support = torch.zeros_like(x), torch.zeros_like(x), torch.ones_like(x)
        for _ in range(self.steps):
            now = margin_gradient(source, (x + delta * support).clamp(-1, 1), goal, lengths)
            momentum = self.decay * momentum + normalised(now)
            delta = (delta - epsilon / self.steps * momentum.sign()).clamp(-epsilon, epsilon)
            support = top_k_mask(momentum.abs(), self.budget, lengths).to(x.dtype)
        return (x + delta * support).clamp(-1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VMIFGSM:
    """MI-FGSM with variance tuning (Wang and He, 2021, arXiv:2103.15571): the gradient is corrected
    by how the gradients of ``neighbours`` within ``spread`` epsilon differed from it a step before.
    """

    budget: Budget = Budget(epsilon=0.01)
    steps: int = 10  # T
    decay: float = 1.0  # mu
    neighbours: int = 5  # N; the paper takes 20
    spread: float = 1.5  # beta
    seed: int = 0

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        epsilon = self.budget.step_limit(x, lengths)
        noise = 2 * clip_noise(x, lengths, self.seed, self.steps * self.neighbours) - 1
        noise = noise.view(self.steps, self.neighbours, *x.shape) * self.spread * epsilon
        delta, momentum, support = torch.zeros_like(x), torch.zeros_like(x), torch.ones_like(x)
        variance = torch.zeros_like(x)
        for around in noise:
            x_adv = (x + delta * support).clamp(-1, 1)
            now = margin_gradient(source, x_adv, goal, lengths)
            momentum = self.decay * momentum + normalised(now + variance)
            near = [margin_gradient(source, x_adv + one, goal, lengths) for one in around]
            variance = torch.stack(near).mean(dim=0) - now
            delta = (delta - epsilon / self.steps * momentum.sign()).clamp(-epsilon, epsilon)
            support = top_k_mask(momentum.abs(), self.budget, lengths).to(x.dtype)
        return (x + delta * support).clamp(-1, 1)


def normalised(gradient: Tensor) -> Tensor:
    """Each clip's gradient over its L1 norm; zero stays zero."""
    return gradient / gradient.abs().sum(dim=1, keepdim=True).clamp_min(1e-12)


def margin_gradient(source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None) -> Tensor:
    """Gradient of each clip's own margin with respect to its samples, ``[B, T]``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(goal.margin(source(x, lengths)).sum(), x)
    return gradient
