"""The transfer matrix: how often each attack, crafted on a source, fools each target.

A cell is one attack, source, target and channel. The matrix keeps the row of every clip beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import NO_CHANNEL
from staanet.results import row_files, tables
from staanet.results.adversarial_set import WANTED


@dataclass(frozen=True)
class TransferMatrix:
    """Cells (attack, source, target, channel) with rates, intervals, counts; the rows behind them."""

    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]

    @property
    def cells(self) -> list[Mapping[str, Any]]:
        return list(self.summary["cells"])

    def after(self, channel: str) -> list[Mapping[str, Any]]:
        """The cells of one channel; ``pcm16`` is the files as they are."""
        return [cell for cell in self.cells if cell.get("channel", NO_CHANNEL) == channel]

    def cell(
        self, attack: str, source: str, target: str, channel: str = NO_CHANNEL
    ) -> Mapping[str, Any]:
        """One cell; ``KeyError`` where it was not evaluated."""
        for cell in self.after(channel):
            if (cell["attack"], cell["source"], cell["target"]) == (attack, source, target):
                return cell
        raise KeyError((attack, source, target, channel))

    def save(self, folder: Path | str) -> None:
        """Write ``results.parquet`` (a row per clip), ``cells.parquet`` and ``cells.csv`` (a row per
        cell and channel), ``matrix.md``, ``matrix.tex`` and, last, ``summary.json``."""
        folder = Path(folder)
        row_files.write_parquet(folder / "results.parquet", self.rows)
        cells = tables.tidy(self.cells)
        row_files.write_parquet(folder / "cells.parquet", cells)
        columns = list(cells[0]) if cells else []
        storage.write_text(folder / "cells.csv", row_files.csv_text(columns, cells))
        aimed = [row for row in self.rows if row.get(WANTED)]
        if aimed:
            storage.write_text(
                folder / "targeted.csv", row_files.csv_text(*tables.class_by_class(aimed))
            )
        storage.write_text(folder / "matrix.md", tables.document(self.after(NO_CHANNEL)))
        storage.write_text(folder / "matrix.tex", self.to_latex())
        storage.write_json(folder / "summary.json", dict(self.summary))

    def to_markdown(self, metric: str = "fooling_rate") -> str:
        """The matrix of the files as they are in Markdown, in per cent with 95 % intervals and N.

        ``metric`` is one of ``tables.METRICS``: fooling_rate, attack_success_rate or uar_after.
        """
        return tables.markdown(self.after(NO_CHANNEL), metric)

    def to_latex(self, metric: str = "fooling_rate") -> str:
        """The matrix of the files as they are as a booktabs table, its caption telling the budgets."""
        return tables.latex(self.after(NO_CHANNEL), metric)

    def to_parquet(self, path: Path | str) -> None:
        """Write one flat row per cell and channel: names, budget, rates with interval and N, means."""
        row_files.write_parquet(Path(path), tables.tidy(self.cells))
