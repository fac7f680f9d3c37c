"""The transfer matrix: how often each attack, crafted on a source, fools each target.

A cell is one attack, source, target and channel. ``rows`` holds one row per clip of each cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import NO_CHANNEL
from staanet.results import row_files, transfer_tables
from staanet.results.adversarial_set import TARGET_CLASS
from staanet.results.cells import Cell
from staanet.results.table import Table


@dataclass(frozen=True)
class TransferMatrix:
    """Cells with rates, intervals and counts, and the rows of the clips from which they were computed."""

    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]

    @property
    def cells(self) -> list[Mapping[str, Any]]:
        """All cells, as in ``summary.json``."""
        return list(self.summary["cells"])

    def cells_of_channel(self, channel: str) -> list[Mapping[str, Any]]:
        """Returns the cells of one channel; the channel ``pcm16`` is the files without any change."""
        return [cell for cell in self.cells if cell.get("channel", NO_CHANNEL) == channel]

    def cell(
        self, attack: str, source: str, target: str, channel: str = NO_CHANNEL
    ) -> Mapping[str, Any]:
        """Returns one cell; raises ``KeyError`` where it was not evaluated."""
        for cell in self.cells_of_channel(channel):
            if (cell["attack"], cell["source"], cell["target"]) == (attack, source, target):
                return cell
        raise KeyError((attack, source, target, channel))

    def table(self, metric: str = "fooling_rate") -> Table:
        """Returns the matrix of the files without any channel, with a column per target.

        ``metric`` is one of ``transfer_tables.METRICS``: fooling_rate, attack_success_rate or
        uar_after. Raises ``InvalidInput`` for another.
        """
        return transfer_tables.transfer_table(self._typed_cells(), metric)

    def to_markdown(self, metric: str = "fooling_rate") -> str:
        """Returns ``table`` as Markdown, in per cent with 95 % intervals and N."""
        return self.table(metric).to_markdown()

    def to_latex(self, metric: str = "fooling_rate") -> str:
        """Returns ``table`` for the LaTeX packages booktabs and graphicx."""
        return self.table(metric).to_latex()

    def to_parquet(self, path: Path | str) -> None:
        """Writes a row per cell and channel: names, budget, rates with interval and N, means."""
        row_files.write_parquet(Path(path), transfer_tables.flat_rows(self.cells))

    def save(self, folder: Path | str) -> None:
        """Writes all files of the results; ``summary.json`` comes last.

        ``results.parquet`` has a row per clip, ``cells.parquet`` and ``cells.csv`` a row per cell
        and channel, ``targeted.csv`` a row per pair of classes where attacks had a target class.
        ``matrix.md`` and ``matrix.tex`` are for reading.
        """
        folder = Path(folder)
        row_files.write_parquet(folder / "results.parquet", self.rows)
        self.to_parquet(folder / "cells.parquet")
        cells = transfer_tables.flat_rows(self.cells)
        columns = list(cells[0]) if cells else []
        storage.write_text(folder / "cells.csv", row_files.csv_text(columns, cells))
        targeted = [row for row in self.rows if row.get(TARGET_CLASS)]
        if targeted:
            text = row_files.csv_text(*transfer_tables.class_by_class(targeted))
            storage.write_text(folder / "targeted.csv", text)
        document = transfer_tables.matrix_document(self._typed_cells())
        storage.write_text(folder / "matrix.md", document)
        storage.write_text(folder / "matrix.tex", self.to_latex())
        storage.write_json(folder / "summary.json", dict(self.summary))

    def _typed_cells(self) -> list[Cell]:
        return [Cell.from_dict(cell) for cell in self.cells_of_channel(NO_CHANNEL)]
