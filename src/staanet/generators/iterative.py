"""Generators that contain a classifier and apply its backward pass one or several times."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from staanet.core import Budget, Goal, Targeted, Untargeted
from staanet.errors import InvalidInput
from staanet.generators.base import Generator, apply_perturbation, unit_rms

Step = Callable[[Tensor], tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]]
"""Waveforms ``[B, T]`` -> logits ``[B, K]``, and a backward pass from their gradient to two heads."""


class IterativeGenerator(Generator):
    """A generator with a classifier inside it, which follows the classifier's (learned) gradient.

    Each of the ``iterations`` runs on the clip as the proposals so far change it, by ``epsilon`` or as
    the attack's budget says. The proposals of all iterations are summed, each at unit root mean square.
    ``BestProposal`` decides which sum is returned.
    """

    is_ranked_by_magnitude = True
    iterations: int

    def __init__(self, *, iterations: int, epsilon: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.settings |= {"iterations": iterations, "epsilon": epsilon}
        self.iterations, self.epsilon = iterations, epsilon

    def freeze_encoder(self) -> None:
        """Freezes the classifier, so that training changes the backward pass alone."""
        raise TypeError(f"{type(self).__name__} does not implement freeze_encoder")

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

    def iterate(
        self,
        step: Step,
        waveforms: Tensor,
        lengths: Tensor | None,
        target_class: Tensor | None,
        budget: Budget | None,
    ) -> tuple[Tensor, Tensor]:
        """Runs ``step`` as often as there are iterations; see ``Generator.heads`` for the rest."""
        x, best = waveforms, None
        magnitude = position = torch.zeros_like(waveforms)
        for iteration in range(self.iterations):
            if iteration:
                with torch.no_grad():
                    change = self.propose(magnitude, position, lengths)
                    x = apply_perturbation(
                        waveforms,
                        change,
                        lengths,
                        self.epsilon,
                        budget,
                        has_ranking=self.has_ranking,
                    )
            logits, backward = step(x)
            if best is None:
                best = BestProposal.initial(waveforms, logits, target_class)
            else:
                best = best.update(magnitude, position, logits)
            step_magnitude, step_position = backward(logit_gradient(logits, best.goal))
            magnitude = magnitude + unit_rms(step_magnitude, lengths)
            position = position + step_position
        return (magnitude, position) if best is None else best.or_default(magnitude, position)


@dataclass(frozen=True, slots=True)
class BestProposal:
    """For each clip, the proposal that takes the classifier furthest beyond the goal's boundary.

    The goal is the ``target_class``, or any class but the classifier's own clean prediction.
    """

    goal: Goal
    magnitude: Tensor
    position: Tensor
    margin: Tensor
    """``[B]``: the goal's margin, negative where a proposal has reached the goal, else 0."""

    @classmethod
    def initial(cls, waveforms: Tensor, logits: Tensor, target_class: Tensor | None) -> Self:
        """The state before the first proposal, from the logits ``[B, K]`` of the clean clips."""
        goal = Untargeted(logits.argmax(dim=1)) if target_class is None else Targeted(target_class)
        zeros = torch.zeros_like(waveforms)
        return cls(goal, zeros, zeros, logits.new_zeros(len(logits)))

    def update(self, magnitude: Tensor, position: Tensor, logits: Tensor) -> Self:
        """Takes a proposal ``[B, T], [B, T]`` for each clip whose margin it lowers."""
        margin = self.goal.margin(logits.detach())
        is_better = margin < self.margin
        return replace(
            self,
            magnitude=torch.where(is_better[:, None], magnitude, self.magnitude),
            position=torch.where(is_better[:, None], position, self.position),
            margin=torch.where(is_better, margin, self.margin),
        )

    def or_default(self, magnitude: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the best proposal of each clip, or the given one where none reached the goal."""
        has_reached = self.margin[:, None] < 0
        return (
            torch.where(has_reached, self.magnitude, magnitude),
            torch.where(has_reached, self.position, position),
        )


def logit_gradient(logits: Tensor, goal: Goal) -> Tensor:
    """Returns the direction in which logits ``[B, K]`` should change, ``[B, K]``, summing to 0.

    For an untargeted goal the clip's class goes down by 1 and each other class goes up by its
    probability among the others. For a targeted goal the target class goes up and the others down.

    >>> logit_gradient(torch.tensor([[2.0, 1.0, 1.0]]), Untargeted(0))
    tensor([[-1.0000,  0.5000,  0.5000]])
    """
    label = torch.as_tensor(goal.label, device=logits.device).expand(len(logits))
    is_label = label[:, None] == torch.arange(logits.shape[1], device=logits.device)
    others = torch.softmax(logits.masked_fill(is_label, -torch.inf), dim=1)
    one_hot = is_label.to(logits.dtype)
    return one_hot - others if isinstance(goal, Targeted) else others - one_hot
