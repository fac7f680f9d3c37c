"""Compares each attack's fooling rate with that of noise of the same size, paired by clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from staanet.core.paired import paired_difference
from staanet.evaluation.comparisons import is_fooled

CONTROLS = ("random", "uap")
"""Control attacks that a real attack must beat: noise, and one universal vector for all clips."""
NOISE = "random"
Cell = Mapping[str, Any]


def add_above_control(
    cells: Sequence[dict[str, Any]], rows_of_cells: Sequence[Sequence[Mapping[str, Any]]]
) -> None:
    """Adds ``above_control`` to each cell of an attack: its fooling rate less that of noise.

    The difference is paired by clip, its interval clustered by speaker (``core.paired``). The value is
    None where no noise of comparable size was evaluated on the same clips. Cells of controls get no such
    key.

    Args:
        cells: Cells of one matrix; changed in place.
        rows_of_cells: The rows behind each cell, in the same order.
    """
    for cell, rows in zip(cells, rows_of_cells, strict=True):
        if cell["control"]:
            continue
        index = _noise_for(cell, cells)
        cell["above_control"] = None
        if index is not None:
            noise = {row["id"]: row for row in rows_of_cells[index]}
            pairs = [(row, noise[row["id"]]) for row in rows if row["id"] in noise]
            difference = paired_difference(
                [is_fooled(row) for row, _ in pairs],
                [is_fooled(row) for _, row in pairs],
                [row["speaker"] for row, _ in pairs],
            )
            cell["above_control"] = {"control": cells[index]["attack"], **asdict(difference)}


def changes_far_more(control: Cell, cell: Cell) -> bool:
    """Whether a control changes over twice as many samples, and so cannot be compared with a sparse
    attack."""
    most, few = control["mean"]["density"], cell["mean"]["density"]
    return most is not None and few is not None and most > 2 * few


def _noise_for(cell: Cell, cells: Sequence[Cell]) -> int | None:
    """Index of the noise that is like an attack: matched to it, or else nearest in density."""
    key = ("source", "target", "channel")
    candidates = [
        index
        for index, control in enumerate(cells)
        if control["algorithm"] == NOISE and all(control[k] == cell[k] for k in key)
    ]
    folder = f"{cell['attack']}__{cell['source']}"
    matched = [i for i in candidates if cells[i]["matched"] == folder]
    if matched:
        return matched[0]
    alike = [
        i
        for i in candidates
        if not changes_far_more(cells[i], cell)
        and not changes_far_more(cell, cells[i])
        and cells[i]["budget"].get("epsilon") == cell["budget"].get("epsilon")
    ]
    density = cell["mean"]["density"] or 0.0
    return min(
        alike, key=lambda i: abs((cells[i]["mean"]["density"] or 0.0) - density), default=None
    )
