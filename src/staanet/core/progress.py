"""The progress protocol: how long work reports to a progress bar or metric logger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, current figures); the command line draws a bar from it."""


def silent(what: str, done: int, total: int, figures: str = "") -> None:
    """The progress that shows nothing."""


@runtime_checkable
class MetricLogger(Protocol):
    """A progress that also takes the figures of a training as numbers, such as TensorBoard's."""

    def note(self, what: str, row: Mapping[str, float]) -> None: ...
