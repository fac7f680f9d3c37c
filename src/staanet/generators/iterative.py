"""Generators that contain classifiers and apply their backward passes one or several times."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from staanet.config.epsilon import Epsilon
from staanet.core import Budget, Goal, Shift, Targeted, Untargeted
from staanet.errors import InvalidInput
from staanet.generators.base import Generator, apply_perturbation, unit_rms

LogitsAndBackward = tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]
"""Logits ``[B, K]`` of a classifier, and its backward pass.

The backward pass takes a gradient ``[B, K]`` and returns the heads magnitude and position, each ``[B, T]``.
"""
FEATURES = 3
DECAY = 2.0
"""An iteration keeps the sigmoid of this, 0.88, of the sum so far, until training says otherwise."""
RIVAL_TEMPERATURE = 0.2
"""Of the probabilities among the other classes: low, so that a direction mostly raises the nearest one."""
FOOLED_SHARE = 0.25
"""Weight of the proposal of a classifier that is fooled already, beside those that are not."""


class IterativeGenerator(Generator):
    """A generator with classifiers inside it, which follows their (learned) gradients.

    It knows the attack's budget: ``budget_features`` sets how much of earlier proposals an iteration keeps,
    and a subclass may use them too. Each of the ``iterations`` runs on the clip as the proposals so far
    change it. Proposals have unit root mean square, and their decayed sum moves and ranks the samples.
    Where there are several classifiers, those that are not yet fooled lead. ``BestProposal`` decides which
    sum is returned: no classifier that fewer iterations fool is lost by more.
    """

    is_ranked_by_magnitude = True
    iterations: int
    tolerance: tuple[float, ...]
    """Of regression victims inside it: the change of each number that counts; empty for classifiers."""

    def __init__(
        self, *, iterations: int, epsilon: Epsilon, tolerance: Sequence[float] = (), **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.settings |= {"iterations": iterations, "epsilon": epsilon}
        self.settings |= {"tolerance": list(tolerance)} if tolerance else {}
        self.tolerance = tuple(tolerance)
        self.iterations, self.epsilon = iterations, epsilon
        self.decay = budget_layer(1, bias=DECAY)

    def freeze_encoder(self) -> None:
        """Freezes the classifier, so that training changes the backward pass alone."""
        raise TypeError(f"{type(self).__name__} does not implement freeze_encoder")

    def run_classifiers(
        self, x: Tensor, lengths: Tensor | None, features: Tensor
    ) -> list[LogitsAndBackward]:
        """Returns the logits and the backward pass of each classifier on ``x [B, T]``.

        ``lengths`` is ``[B]`` or None. ``features [B, FEATURES]`` describe the budget (``budget_features``).
        """
        raise TypeError(f"{type(self).__name__} does not implement run_classifiers")

    def member_weights(self) -> Tensor | Sequence[float]:
        """Returns the weight of each classifier's proposal."""
        return [1.0]

    def with_iterations(self, iterations: int) -> Self:
        """Returns the same weights with another number of iterations, 1 or more."""
        if iterations < 1:
            raise InvalidInput(
                f"a generator of kind '{self.architecture}' cannot run {iterations} iterations",
                remedy="Give 1 or more",
            )
        other = copy.copy(self)  # shares every weight
        other.iterations = iterations
        return other

    def heads(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        target_class: Tensor | None,
        budget: Budget | None = None,
    ) -> tuple[Tensor, Tensor]:
        usual = budget or Budget(epsilon=self.epsilon, max_density=self.density)
        features = budget_features(waveforms, lengths, usual, self.sample_rate)
        decay = torch.sigmoid(self.decay(features))
        magnitude = position = torch.zeros_like(waveforms)
        best = None
        for iteration in range(self.iterations):
            x = waveforms
            if iteration:
                x = self._preview(waveforms, magnitude, position, lengths, budget)
            runs = self.run_classifiers(x, lengths, features)
            best = best or BestProposal.initial(waveforms, runs, target_class, self.tolerance)
            margins = best.margins(runs)
            if iteration:
                best = best.update(magnitude, position, margins)
            step = self._combine(runs, best.goals, margins, lengths)
            magnitude = decay * magnitude + unit_rms(step[0], lengths)
            position = decay * position + step[1]
        if best is None or self.iterations == 1 or self.training:
            return magnitude, position
        x = self._preview(waveforms, magnitude, position, lengths, budget)
        best = best.update(
            magnitude, position, best.margins(self.run_classifiers(x, lengths, features))
        )
        return best.magnitude, best.position

    def _preview(
        self,
        waveforms: Tensor,
        magnitude: Tensor,
        position: Tensor,
        lengths: Tensor | None,
        budget: Budget | None,
    ) -> Tensor:
        """The clips as a proposal would change them; no gradient passes."""
        with torch.no_grad():
            is_limited = bool(budget and (budget.max_density or budget.max_l0))
            order_only = is_limited and self.has_ranking  # positions near 1 rank no more
            change = self.propose(magnitude, position, lengths, order_only=order_only)
            return apply_perturbation(
                waveforms,
                change,
                lengths,
                self.epsilon,
                budget,
                has_ranking=self.has_ranking,
                sample_rate=self.sample_rate,
            )

    def _combine(
        self,
        runs: Sequence[LogitsAndBackward],
        goals: Sequence[Goal],
        margins: Tensor,
        lengths: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum of the classifiers' proposals; the fooled ones (margin below 0) count less."""
        magnitude = position = torch.zeros(())
        parts = zip(runs, goals, margins, self.member_weights(), strict=True)
        for (logits, backward), goal, margin, weight in parts:
            step_magnitude, step_position = backward(logit_gradient(logits, goal))
            share = torch.where(margin < 0, FOOLED_SHARE, 1.0)[:, None] * weight
            magnitude = magnitude + share * unit_rms(step_magnitude, lengths)
            position = position + step_position
        return magnitude, position


@dataclass(frozen=True, slots=True)
class BestProposal:
    """For each clip, the proposal that fools most classifiers, and takes the worst one furthest.

    The goal of a classifier is the ``target_class``, or any class but its own clean prediction. A proposal
    replaces another only if it fools every classifier that the other fools.
    """

    goals: Sequence[Goal]
    magnitude: Tensor
    position: Tensor
    fooled: Tensor
    """``[M, B]`` bool: which classifiers the proposal fools."""
    worst: Tensor
    """``[B]``: the largest margin of a classifier."""

    @classmethod
    def initial(
        cls,
        waveforms: Tensor,
        runs: Sequence[LogitsAndBackward],
        target_class: Tensor | None,
        tolerance: Sequence[float] = (),
    ) -> Self:
        """The state before the first proposal, from the classifiers' outputs on clean clips.

        With a ``tolerance`` the outputs are numbers, any of which is to move by more.
        """
        goals = [_goal_on(logits.detach(), target_class, tolerance) for logits, _ in runs]
        zeros, batch = torch.zeros_like(waveforms), len(waveforms)
        fooled = torch.zeros(len(runs), batch, dtype=torch.bool, device=waveforms.device)
        return cls(goals, zeros, zeros, fooled, waveforms.new_full((batch,), torch.inf))

    def margins(self, runs: Sequence[LogitsAndBackward]) -> Tensor:
        """Returns each classifier's margin of its goal, ``[M, B]``."""
        pairs = zip(self.goals, runs, strict=True)
        return torch.stack([goal.margin(logits.detach()).float() for goal, (logits, _) in pairs])

    def update(self, magnitude: Tensor, position: Tensor, margins: Tensor) -> Self:
        """Takes a proposal ``[B, T], [B, T]`` for each clip that it serves better; see the class."""
        fooled, worst = margins < 0, margins.amax(dim=0)
        is_superset = (fooled | ~self.fooled).all(dim=0)
        has_more = fooled.sum(dim=0) > self.fooled.sum(dim=0)
        is_better = is_superset & (has_more | (worst < self.worst))
        return replace(
            self,
            magnitude=torch.where(is_better[:, None], magnitude, self.magnitude),
            position=torch.where(is_better[:, None], position, self.position),
            fooled=(is_better & fooled) | (~is_better & self.fooled),
            worst=torch.where(is_better, worst, self.worst),
        )


def _goal_on(outputs: Tensor, target_class: Tensor | None, tolerance: Sequence[float]) -> Goal:
    if tolerance:
        return Shift(None, outputs.new_tensor(tolerance), outputs.clone())
    return Untargeted(outputs.argmax(dim=1)) if target_class is None else Targeted(target_class)


def budget_layer(
    outputs: int, bias: float = 0.0, slopes: Sequence[float] = (0.0,) * FEATURES
) -> nn.Linear:
    """Returns a layer ``[B, FEATURES] -> [B, outputs]`` that at first gives ``bias`` plus ``slopes`` times them."""
    layer = nn.Linear(FEATURES, outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(slopes))
        layer.bias.fill_(bias)
    return layer


def budget_features(
    x: Tensor, lengths: Tensor | None, budget: Budget, sample_rate: int | None = None
) -> Tensor:
    """Returns the budget of each clip of ``x [B, T]`` as numbers of about -1 to 1, ``[B, FEATURES]``.

    They are logarithms, and none depends on the level of the recording: of the share of samples, of the change
    of a sample relative to the clip's root mean square, and of what ``min_snr_db`` takes of epsilon.

    >>> tone = torch.full((1, 1000), 0.1)
    >>> budget_features(tone, None, Budget(epsilon=0.01, max_density=0.1)).round(decimals=1)
    tensor([[0.3000, 0.5000, 0.0000]])
    """
    if lengths is None:
        share = budget.max_samples(x.shape[1]) / x.shape[1]
        density, mean = x.new_ones(len(x)) * share, x.square().mean(dim=1)
    else:
        shares = [budget.max_samples(size) / size for size in lengths.tolist()]
        density, mean = x.new_tensor(shares), x.square().sum(dim=1) / lengths
    density = density.clamp_min(1e-3)
    snr_db, by_epsilon = budget.min_snr_db, budget
    if snr_db is not None:
        by_epsilon = replace(budget, min_snr_db=None)
    step = epsilon = by_epsilon.step_limit(x, lengths, sample_rate)[:, 0]
    if snr_db is not None:
        step = torch.minimum(epsilon, (mean / density / 10 ** (snr_db / 10)).sqrt())
    level = torch.log10(step.clamp_min(1e-6) / mean.sqrt().clamp_min(1e-4))
    taken = torch.log10(epsilon / step.clamp_min(1e-6))
    return torch.stack([density.log10() + 1.3, level + 1.5, taken], dim=1).clamp(-1.5, 1.5)


def logit_gradient(logits: Tensor, goal: Goal) -> Tensor:
    """Returns the direction in which logits ``[B, K]`` should change, ``[B, K]``, summing to 0.

    For an untargeted goal the clip's class goes down by 1 and each other class goes up by its
    probability among the others, at ``RIVAL_TEMPERATURE``. For a targeted goal the target class goes up
    and the others down.
    Of numbers, the one that has moved furthest goes on, by 1 in its tolerance.

    >>> logit_gradient(torch.tensor([[2.0, 1.0, 1.0]]), Untargeted(0))
    tensor([[-1.0000,  0.5000,  0.5000]])
    >>> logit_gradient(torch.tensor([[2.0, 1.0]]), Shift(None, 0.5, torch.tensor([[2.0, 1.5]])))
    tensor([[ 0., -2.]])
    """
    if isinstance(goal, Shift):
        return _shift_direction(logits.detach(), goal)
    label = torch.as_tensor(goal.label, device=logits.device).expand(len(logits))
    is_label = label[:, None] == torch.arange(logits.shape[1], device=logits.device)
    rivals = logits.masked_fill(is_label, -torch.inf)
    others = torch.softmax(rivals / RIVAL_TEMPERATURE, dim=1)
    one_hot = is_label.to(logits.dtype)
    return one_hot - others if isinstance(goal, Targeted) else others - one_hot


def _shift_direction(outputs: Tensor, goal: Shift) -> Tensor:
    """The slope of the margin, downwards, ``[B, K]``."""
    by = torch.as_tensor(goal.by).to(outputs)
    numbers = torch.arange(outputs.shape[1], device=outputs.device)
    if goal.dimension is not None:
        return ((numbers == goal.dimension) / by).expand_as(outputs)
    size = (outputs - goal.clean.to(outputs)) / by
    is_furthest = numbers == size.abs().argmax(dim=1, keepdim=True)
    return torch.where(size < 0, -1.0, 1.0) / by * is_furthest
