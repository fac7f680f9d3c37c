"""The protocol that every attack follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from staanet.core.budget import Budget
from staanet.core.goals import Goal
from staanet.core.victim import Victim

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass of its paper's settings: changes waveforms within its ``budget``.

    ``x [B, T]`` in [-1, 1] -> ``x_adv [B, T]``; samples beyond ``lengths`` are returned untouched.
    """

    @property
    def budget(self) -> Budget: ...

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor: ...
