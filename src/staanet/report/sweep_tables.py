"""Reads the tables of a sweep: the success at each point of the budget grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.errors import InvalidInput

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep from one source: its points, and the clips of attacks without a limit."""

    source: str
    points: Rows
    clips: Rows

    @property
    def targets(self) -> list[str]:
        """The targets; the source comes first if it is one of them."""
        ordered = list(dict.fromkeys(str(row["target"]) for row in self.points))
        return sorted(ordered, key=lambda target: target != self.source)

    @property
    def attacks(self) -> list[str]:
        """The attacks, in the order of the table."""
        return list(dict.fromkeys(str(row["attack"]) for row in self.points))


def read(folder: Path) -> Sweep:
    """Reads the tables of a finished sweep.

    Raises ``InvalidInput`` where one is missing or is not what staanet writes.
    """
    return read_tables(folder, str(storage.read_card(folder, "sweep").get("source")))


def read_tables(folder: Path, source: str) -> Sweep:
    """Reads the tables of a sweep that has no card yet."""
    points = _rows(folder / "sweep.parquet", _POINTS)
    return Sweep(source, points, _rows(folder / "clips.parquet", _CLIPS))


def read_all(run: Path) -> list[Sweep]:
    """Reads all finished sweeps of a run."""
    parent = run / "sweeps"
    folders = sorted(parent.iterdir()) if parent.is_dir() else []
    return [read(folder) for folder in folders if (folder / storage.CARD).is_file()]


_POINTS = (
    "attack",
    "title",
    "control",
    "minimising",
    "target",
    "epsilon",
    "max_density",
    "fooling_rate",
    "fooling_rate_low",
    "fooling_rate_high",
    "density_mean",
    "snr_db_mean",
)
_CLIPS = ("attack", "target", "clean_prediction", "adversarial_prediction", "density", "snr_db")


def _rows(path: Path, names: Sequence[str]) -> Rows:
    import pandas

    try:
        frame = pandas.read_parquet(path, columns=list(names))
    except (OSError, ValueError, KeyError) as problem:  # pyarrow's errors derive from these
        raise InvalidInput(
            f"not a table of a sweep ({problem})", where=path, remedy="Run staanet sweep again"
        ) from None
    table = frame.astype(object).where(frame.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
