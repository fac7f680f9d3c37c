"""The tables of a cross-validation: how far its folds are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from staanet.core import NO_CHANNEL
from staanet.results.cells import Cell, finite_number
from staanet.results.formatting import first_items, percent
from staanet.results.run_folder import RunFolder
from staanet.results.table import Table, TableCell, rate_cell

SHOWN_FOLDS = 10
"""So many folds have a column of their own."""


def fold_table(run: RunFolder) -> Table:
    """Returns the pooled fooling rate of each cell beside those of the folds; no rows without folds."""
    folds = run.summary.get("folds") or []
    shown = [str(fold["fold"]) for fold in folds] if len(folds) <= SHOWN_FOLDS else []
    return Table(
        key="folds",
        caption="Fooling rate of all folds together and of each fold. Each fold trained its "
        "models and attacks and tested them on other speakers",
        columns=[
            "crafted on",
            "attack",
            "target",
            "all folds",
            "spread",
            "SD",
            *(f"fold {name}" for name in shown),
        ],
        rows=[_fold_row(cell, folds, is_shown=bool(shown)) for cell in run.cells] if folds else [],
        names=3,
        notes=["SD: standard deviation over the folds, in percentage points."],
    )


def _fold_row(cell: Cell, folds: Sequence[Mapping[str, Any]], *, is_shown: bool) -> list[object]:
    of_folds = [(rate, count) for fold in folds for rate, count in [_rate(cell, fold)]]
    rates = [rate for rate, _ in of_folds if rate is not None]
    deviation = f"{100 * stdev(rates):.1f}" if len(rates) > 1 else ""
    return [
        cell.source,
        TableCell(cell.title, mark=cell.mark),
        TableCell(cell.target, mark=cell.access),
        rate_cell(cell.fooling_rate, cell.count),
        f"{percent(min(rates))} to {percent(max(rates))}" if rates else "",
        deviation,
        *((TableCell(percent(rate), count=n) for rate, n in of_folds) if is_shown else ()),
    ]


def _rate(cell: Cell, fold: Mapping[str, Any]) -> tuple[float | None, int]:
    """The fooling rate of a cell in one fold, and its number of clips."""
    name = (*cell.key, cell.target, NO_CHANNEL)
    for raw in fold["cells"]:
        if (raw["attack"], raw["source"], raw["target"], raw["channel"]) == name:
            return finite_number(raw["fooling_rate"]["value"]), int(raw["count"])
    return None, 0


def fold_members_table(run: RunFolder) -> Table:
    """Returns who was tested in each fold, and how well its victims knew clean clips."""
    folds = run.summary.get("folds") or []
    return Table(
        key="fold-members",
        caption="Test speakers of each fold, and the UAR of its victims on the clean test clips",
        columns=["fold", "tested", "clips", *run.targets],
        rows=[
            [
                str(fold["fold"]),
                first_items(fold["speakers"], 20),
                f"{fold['clips']:,}",
                *(_clean_recall(target, fold) for target in run.targets),
            ]
            for fold in folds
        ],
        names=2,
        notes=["The report of each fold is folds/NUMBER/report/index.html."],
    )


def _clean_recall(target: str, fold: Mapping[str, Any]) -> str:
    cells = [c for c in fold["cells"] if c["target"] == target and c["channel"] == NO_CHANNEL]
    largest = max(cells, key=lambda cell: cell["count"], default=None)
    return percent(finite_number(largest["uar_before"]["value"])) if largest else ""
