"""What several trainings of one generator achieve: the luck of training, beside that of speakers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from staanet.core import NO_CHANNEL, Victim
from staanet.evaluation import transfer_matrix
from staanet.evaluation.comparisons import CELL_NAMES, is_fooled
from staanet.pipeline.context import Context
from staanet.results import row_files
from staanet.results.adversarial_set import AdversarialSet
from staanet.results.transfer_matrix import TransferMatrix

ROWS = "trainings.parquet"
KEPT = ("id", *CELL_NAMES, "speaker", "clean_prediction", "adversarial_prediction")


def evaluate_trainings(
    matrix: TransferMatrix,
    sets: Mapping[int, Sequence[Path]],
    targets: Sequence[Victim],
    out: Path,
    context: Context,
) -> TransferMatrix:
    """Adds the fooling rate of each further training to the cells of a matrix, and saves it.

    Args:
        matrix: Of the first training.
        sets: The same attacks with generators of other trainings, by the number of the training.
        targets: Of the matrix.
        out: Folder of the results; a row per clip goes to ``trainings.parquet``.
        context: Of the command.

    Returns:
        The matrix; a cell whose attack was trained again has ``trainings``, the rate of each.
    """
    rows = [
        {**{key: row[key] for key in KEPT}, "draw": draw}
        for draw, folders in sets.items()
        if folders
        for row in transfer_matrix(
            [AdversarialSet.load(folder) for folder in folders], targets, progress=context.progress
        ).rows
    ]
    return save_trainings(matrix, rows, out) if rows else matrix


def save_trainings(
    matrix: TransferMatrix, rows: Sequence[Mapping[str, Any]], out: Path
) -> TransferMatrix:
    """The matrix with the rates of further trainings, whose rows have their ``draw``, saved."""
    outcomes: dict[tuple[Any, ...], dict[int, list[bool]]] = {}
    for row in rows:
        of_cell = outcomes.setdefault(tuple(row[key] for key in CELL_NAMES), {})
        of_cell.setdefault(int(row["draw"]), []).append(is_fooled(row))
    cells = [
        {**cell, "trainings": [cell["fooling_rate"]["value"], *_rates(again)]}
        if cell["channel"] == NO_CHANNEL
        and (again := outcomes.get(tuple(cell[key] for key in CELL_NAMES)))
        else cell
        for cell in matrix.cells
    ]
    whole = replace(matrix, summary={**matrix.summary, "cells": cells})
    row_files.write_parquet(out / ROWS, rows)
    whole.save(out)
    return whole


def _rates(outcomes: Mapping[int, Sequence[bool]]) -> list[float]:
    return [sum(hits) / len(hits) for _, hits in sorted(outcomes.items())]


def read_trainings(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The rows of further trainings in folders of results, those of all after each other."""
    return [
        row
        for folder in folders
        if (folder / ROWS).is_file()
        for row in row_files.read_parquet(folder / ROWS)
    ]
