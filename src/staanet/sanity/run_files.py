"""Recomputes distances, budgets and predictions of a run from its audio files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from staanet.attacks import logits_of
from staanet.core import Victim
from staanet.report.verify import clip_problems
from staanet.results.cells import ClipResult
from staanet.results.checks import Check
from staanet.results.stored import StoredSet
from staanet.sanity.loaded_run import REMEDY, LoadedRun, no_victim


def disk(run: LoadedRun, stored: StoredSet) -> Check:
    """Distances of every clip are those of its files, in the set's table and in the results.

    Labels and speakers are the same in both, and the budget that the card names is kept.
    """
    rows: dict[str, list[ClipResult]] = defaultdict(list)
    for row in run.files.rows_of(stored.key):
        rows[row.id].append(row)
    wrong = []
    for clip_id, table in stored.rows.items():
        wrong += [f"{clip_id}: {what}" for what in clip_problems(stored, clip_id, rows[clip_id])]
        wrong += [
            f"{clip_id}: {key} is '{table[key]}' in metadata.csv and '{getattr(row, key)}' in "
            f"results.parquet for {row.target}"
            for row in rows[clip_id]
            for key in ("label", "speaker")
            if getattr(row, key) != table[key]
        ]
        if not rows[clip_id]:
            wrong.append(f"{clip_id}: is in no row of results.parquet")
    wrong += [f"{i}: has results and no files" for i in rows if i not in stored.rows]
    right = "tables and budget are those of the files"
    return Check.list_wrong("disk", stored.name, wrong, len(stored.rows), right, REMEDY)


def predictions(run: LoadedRun, stored: StoredSet, ids: Sequence[str]) -> Check:
    """Checks that victims, given the files again, answer as in results.parquet."""
    wrong, count, absent = [], 0, set()
    rows = {(row.id, row.target): row for row in run.files.rows_of(stored.key)}
    for clip_id in ids:
        pair = stored.pair(clip_id)
        for target in run.files.labels:
            row = rows.get((clip_id, target))
            if target not in run.victims or row is None:
                absent.add(target)
                continue
            victim = run.victims[target]
            if victim.task == "regression":  # its words compare two clips
                absent.add(target)
                continue
            count += 2
            attacked = logits_of(victim, [replace(pair.clean, pcm16=pair.adversarial)])[0]
            for name, logits, answer in (
                ("clean", run.clean_logits(target, pair.clean), row.clean_prediction),
                ("adversarial", attacked, row.adversarial_prediction),
            ):
                if not _is_answer(victim, logits, answer):
                    wrong.append(
                        f"{clip_id}: {target} answers {victim.labels[int(logits.argmax())]} to the "
                        f"{name} file, results.parquet says {answer}"
                    )
    if not count:
        return no_victim("predictions", stored.name, ", ".join(sorted(absent)))
    right = "the victims answer again as the results say"
    return Check.list_wrong("predictions", stored.name, wrong, count, right, REMEDY)


def _is_answer(victim: Victim, logits: NDArray[np.float64], answer: str) -> bool:
    """Whether ``answer`` is the largest logit, or within the rounding of another machine."""
    if answer not in victim.labels:
        return False
    tolerance = 1e-3 * max(float(logits.max() - logits.min()), 1e-9)
    return bool(logits[victim.labels.index(answer)] >= logits.max() - tolerance)
