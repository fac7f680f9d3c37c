"""Writes training curves for TensorBoard while they grow; needs the extra ``tensorboard``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from staanet.core import Progress
from staanet.errors import needs_extra


class MetricLogger:
    """A progress that also writes each evaluation of a training below ``folder``.

    Each network is a run of TensorBoard. See ``staanet.core.MetricLogger``.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self._writer_of = _library()
        self._writers: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int, figures: str = "") -> None:
        self.progress(what, done, total, figures)

    def note(self, what: str, row: Mapping[str, float]) -> None:
        """Writes a point per figure of ``row`` at its ``step``."""
        if what not in self._writers:
            self._writers[what] = self._writer_of(str(self.folder / what.replace(" ", "_")))
        writer = self._writers[what]
        for figure, value in row.items():
            if figure not in ("step", "epoch"):
                writer.add_scalar(figure, value, int(row["step"]))
        writer.flush()

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()


@contextmanager
def log_training(folder: Path, progress: Progress) -> Iterator[Progress]:
    """Logs a training: ``with log_training(out / "tensorboard", progress) as progress:``.

    Raises ``InvalidInput`` where the package tensorboard is missing.
    """
    logger = MetricLogger(folder, progress)
    try:
        yield logger
    finally:
        logger.close()


def _library() -> Any:
    with needs_extra("tensorboard", "tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter
