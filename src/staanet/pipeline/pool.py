"""Pools the results of the folds of a cross-validation: every clip once, the figures counted anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.evaluation import recount_matrix
from staanet.pipeline.context import Context
from staanet.pipeline.merge import evaluation_settings, read_summary, require_equal
from staanet.pipeline.trainings import read_trainings, save_trainings
from staanet.results import row_files
from staanet.results.run_folder import SELFCHECK
from staanet.results.transfer_matrix import TransferMatrix

FOLD_FIGURES = ("fooling_rate", "attack_success_rate", "uar_before", "uar_after")
"""What the summary keeps of each cell of each fold."""


def pool_folds(folders: Mapping[int, Path], out: Path, context: Context) -> TransferMatrix:
    """Writes ``out/results`` of finished folds, as one evaluation of all their clips would.

    The summary also has ``folds``: the test speakers, the number of clips and the main figures of each
    fold, so that a reader sees how far they are apart.

    Args:
        folders: The runs of the folds, by number.
        out: Folder of the whole.
        context: Its quarantine receives the clips that the folds put aside.

    Raises:
        InvalidInput: If two folds do not have the same attacks, targets and channels.
    """
    summaries = {number: read_summary(folder / "results") for number, folder in folders.items()}
    first = min(folders)
    for number, folder in folders.items():
        require_equal(
            folders[first],
            folder,
            evaluation_settings(summaries[first]),
            evaluation_settings(summaries[number]),
        )
    rows = [
        {**row, "fold": number}
        for number, folder in folders.items()
        for row in row_files.read_parquet(folder / "results" / "results.parquet")
    ]
    folds = [_describe_fold(number, summary, rows) for number, summary in summaries.items()]
    matrix = recount_matrix(rows, {**_whole(summaries), "folds": folds})
    for folder in folders.values():
        for row in storage.Journal(folder / "quarantine.jsonl").records():
            context.quarantine.put({key: str(value) for key, value in row.items()})
    matrix.save(out / "results")
    if again := read_trainings(folder / "results" for folder in folders.values()):
        matrix = save_trainings(matrix, again, out / "results")
    _join_selfchecks(folders, out)
    context.quarantine.save(out)
    return matrix


def _whole(summaries: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of the first fold, with what the others found doubtful."""
    first = summaries[min(summaries)]
    targets = {
        name: {**target, "doubts": _doubts(name, summaries)}
        for name, target in first["targets"].items()
    }
    quarantined = {str(row): row for s in summaries.values() for row in s.get("quarantined", ())}
    return {
        **first,
        "targets": targets,
        "machine": "; ".join(dict.fromkeys(str(s["machine"]) for s in summaries.values())),
        "quarantined": list(quarantined.values()),
    }


def _doubts(target: str, summaries: Mapping[int, Mapping[str, Any]]) -> list[str]:
    return [
        f"fold {number}: {doubt}"
        for number, summary in summaries.items()
        for doubt in summary["targets"][target].get("doubts", ())
    ]


def _describe_fold(
    number: int, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    clips = {row["id"]: str(row["speaker"]) for row in rows if row["fold"] == number}
    keys = ("attack", "source", "target", "channel", "count", *FOLD_FIGURES)
    return {
        "fold": number,
        "clips": len(clips),
        "speakers": sorted(set(clips.values())),
        "cells": [{key: cell[key] for key in keys} for cell in summary["cells"]],
    }


def _join_selfchecks(folders: Mapping[int, Path], out: Path) -> None:
    """Writes the checks of all folds as those of the whole, if each fold was checked."""
    paths = {number: folder / SELFCHECK for number, folder in folders.items()}
    if not all(path.is_file() for path in paths.values()):
        return
    records = {number: storage.read_json(path) for number, path in paths.items()}
    checks = [
        {**check, "subject": f"fold {number}{': ' if check['subject'] else ''}{check['subject']}"}
        for number, record in records.items()
        for check in record["checks"]
    ]
    whole = {
        **records[min(records)],
        "results_sha256": storage.sha256(out / "results" / "summary.json"),
        "failed": sum(record["failed"] for record in records.values()),
        "checked": f"each of {len(records)} folds",
        "checks": checks,
    }
    storage.write_json(out / SELFCHECK, whole)
