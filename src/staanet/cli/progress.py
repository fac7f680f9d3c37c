"""Shows progress: bars on a terminal, lines elsewhere, curves for TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from staanet.cli.printing import say
from staanet.errors import printable


@dataclass
class Bars:
    """Progress on standard error: a bar with remaining time on a terminal, else a line now and then."""

    begun: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Time and position of the first report of each work, so that work of a killed command is not timed."""
    last_line: float = 0.0

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
        if now - self.last_line < 10 and (done < total or now - begun < 2):
            return
        self.last_line = now
        rest = (now - begun) / max(done - before, 1) * (total - done)
        when = f", about {rest:.0f} s left" if now - begun >= 1 and before < done < total else ""
        tail = f", {figures}" if figures else ""
        say(f"{what}: {done}/{total}{when}{tail}")


@contextmanager
def log_progress(folder: Path | None) -> Iterator[Callable[[str, int, int, str], None]]:
    """Shows the bars and, with a folder, also writes training curves for TensorBoard there."""
    with Bars.shown() as progress:
        if folder is None:
            yield progress
            return
        from staanet.apps.interop.tensorboard import log_training

        with log_training(folder, progress) as logger:
            yield logger
