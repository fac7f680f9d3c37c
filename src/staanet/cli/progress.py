"""How far a command is: bars on a terminal, a line at times elsewhere, curves for TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from staanet.cli.shell import say
from staanet.errors import printable


@dataclass
class Bars:
    """Progress on standard error: a bar with remaining time on a terminal, else a line at times."""

    begun: dict[str, tuple[float, int]] = field(default_factory=dict)
    """When each work was first heard of, and how far it was then: what a killed command left is not timed."""
    said: float = 0.0

    @classmethod
    @contextmanager
    def shown(cls) -> Iterator[Callable[[str, int, int, str], None]]:
        if not sys.stderr.isatty():
            yield cls().line
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        with Progress(
            TextColumn("{task.description:<28.28}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
        ) as bars:
            tasks: dict[str, Any] = {}

            def bar(what: str, done: int, total: int, figures: str = "") -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(
                        printable(what), total=total, completed=done, figures=""
                    )
                bars.update(tasks[what], completed=done, total=total, figures=figures)

            yield bar

    def line(self, what: str, done: int, total: int, figures: str = "") -> None:
        now = time.monotonic()
        begun, before = self.begun.setdefault(what, (now, done))
        if now - self.said < 10 and (done < total or now - begun < 2):
            return
        self.said = now
        left = (now - begun) / max(done - before, 1) * (total - done)
        when = f", about {left:.0f} s left" if now - begun >= 1 and before < done < total else ""
        tail = f", {figures}" if figures else ""
        say(f"{what}: {done}/{total}{when}{tail}")


@contextmanager
def logging(wanted: bool, folder: Path) -> Iterator[Callable[[str, int, int, str], None]]:
    """The bars and, where wanted, also training curves for TensorBoard in ``folder``."""
    with Bars.shown() as progress:
        if not wanted:
            yield progress
            return
        from staanet.apps.interop.tensorboard import log_training

        with log_training(folder, progress) as scribe:
            yield scribe


@contextmanager
def speaking(
    out: Path, *, tensorboard: bool = False
) -> Iterator[Callable[[str, int, int, str], None]]:
    """The output folder locked and progress shown, by the first of the processes that train together."""
    from staanet import storage
    from staanet.core import silent
    from staanet.nn import distributed

    if not distributed.is_first():
        yield silent
        return
    boards = logging(tensorboard, out / "tensorboard")
    with storage.FolderLock(out), boards as progress:
        yield progress
