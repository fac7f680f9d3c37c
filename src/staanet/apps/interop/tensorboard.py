"""Training curves in TensorBoard, as they grow (extra ``tensorboard``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from staanet.core import Progress
from staanet.errors import MissingExtra


class MetricLogger:
    """A progress that passes on what it is told, and writes each judgement of a training below
    ``folder``, a run of TensorBoard per network; see ``staanet.core.MetricLogger``."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self._writer_of = _library()
        self._writers: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int, figures: str = "") -> None:
        self.progress(what, done, total, figures)

    def note(self, what: str, row: Mapping[str, float]) -> None:
        """One point per figure of ``row`` at its ``step``."""
        if what not in self._writers:
            self._writers[what] = self._writer_of(str(self.folder / what.replace(" ", "_")))
        writer = self._writers[what]
        for figure, value in row.items():
            if figure not in ("step", "epoch"):
                writer.add_scalar(figure, value, int(row["step"]))
        writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()


@contextmanager
def logged(folder: Path, progress: Progress) -> Iterator[Progress]:
    """``with logged(out / "tensorboard", progress) as progress:`` around a training.

    Raises ``InvalidInput`` where the package tensorboard is absent.
    """
    scribe = MetricLogger(folder, progress)
    try:
        yield scribe
    finally:
        scribe.close()


def _library() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as problem:
        raise MissingExtra("tensorboard", "tensorboard") from problem
    return SummaryWriter
