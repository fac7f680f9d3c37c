"""What an attacker wants a victim to answer: another class, a certain class, or numbers that moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor


class ClassGoal:
    """What goals about classes share: the ``label``, an ``int`` or one for each clip ``[B]``."""

    __slots__ = ()
    label: Tensor | int

    def select(self, rows: Sequence[int]) -> Self:
        """Returns the goal of some of the clips, each as often as it is named."""
        label = torch.as_tensor(self.label)
        return self if label.ndim == 0 else replace(self, label=label[rows])  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Untargeted(ClassGoal):
    """Any answer but ``label`` (the source's own clean answer, ``int`` or ``[B]``)."""

    label: Tensor | int
    is_targeted: ClassVar[bool] = False

    def margin(self, logits: Tensor) -> Tensor:
        """``z_c - max_{i != c} z_i``, ``[B, K] -> [B]``: negative once the attack has succeeded.

        >>> Untargeted(0).margin(torch.tensor([[3.0, 1.0, 2.0]]))
        tensor([1.])
        """
        score, other = _scores_of_label_and_best_other(logits, self.label)
        return score - other

    def achieved(self, logits: Tensor) -> Tensor:
        """``[B, K] -> [B]`` bool: the answer is another."""
        return logits.argmax(dim=1) != _as_rows(self.label, logits)


@dataclass(frozen=True, slots=True)
class Targeted(ClassGoal):
    """The answer ``label`` and no other."""

    label: Tensor | int
    is_targeted: ClassVar[bool] = True

    def margin(self, logits: Tensor) -> Tensor:
        """``max_{i != t} z_i - z_t``, ``[B, K] -> [B]``: negative once the attack has succeeded.

        >>> Targeted(1).margin(torch.tensor([[3.0, 1.0, 2.0]]))
        tensor([2.])
        """
        score, other = _scores_of_label_and_best_other(logits, self.label)
        return other - score

    def achieved(self, logits: Tensor) -> Tensor:
        """``[B, K] -> [B]`` bool: the answer is the wanted one."""
        return logits.argmax(dim=1) == _as_rows(self.label, logits)


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """Numbers that move away from the ``clean`` ones, the goal on a regression victim.

    Args:
        dimension: The number that is to move; None: any of them.
        by: How far, in the victim's units. Of one dimension a negative number is downwards; of any, it
            is the tolerance of each, ``[K]`` or one for all, in either direction.
        clean: The victim's answers to the clean clips, ``[B, K]``.
    """

    dimension: int | None
    by: Tensor | float
    clean: Tensor

    @property
    def is_targeted(self) -> bool:
        """Whether one dimension is to move in one direction."""
        return self.dimension is not None

    def margin(self, outputs: Tensor) -> Tensor:
        """``1 - shift / by`` of the largest shift, ``[B, K] -> [B]``: negative once it has succeeded.

        >>> clean = torch.tensor([[0.5, 3.0]])
        >>> Shift(1, -0.5, clean).margin(torch.tensor([[0.5, 2.75]]))
        tensor([0.5000])
        >>> Shift(None, 0.5, clean).margin(torch.tensor([[1.5, 2.75]]))
        tensor([-1.])
        """
        change = outputs - self.clean.to(outputs)
        if self.dimension is not None:
            return 1 - change[:, self.dimension] / float(self.by)
        size = change / torch.as_tensor(self.by).to(outputs)
        # where nothing has moved yet the slope is that of a rise, so that attacks have a gradient there
        return 1 - torch.where(size < 0, -size, size).max(dim=1).values

    def achieved(self, outputs: Tensor) -> Tensor:
        """``[B, K] -> [B]`` bool: it moved by more."""
        return self.margin(outputs) < 0

    def select(self, rows: Sequence[int]) -> Shift:
        """Returns the goal of some of the clips, each as often as it is named."""
        return replace(self, clean=self.clean[rows])


Goal = Untargeted | Targeted | Shift


def _as_rows(label: Tensor | int, logits: Tensor) -> Tensor:
    return torch.as_tensor(label, device=logits.device).expand(len(logits))


def _scores_of_label_and_best_other(logits: Tensor, label: Tensor | int) -> tuple[Tensor, Tensor]:
    rows = _as_rows(label, logits)[:, None]
    score = logits.gather(1, rows).squeeze(1)
    return score, logits.scatter(1, rows, -math.inf).amax(dim=1)
