"""Are tables and answers those of the files? Distances, budget and predictions, from the audio anew."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet.attacks import logits_of
from staanet.core import Budget, Victim
from staanet.report.verify import TOLERANCE, measure
from staanet.results.cells import DISTANCES, Distances
from staanet.sanity import Check
from staanet.sanity.run_folder import Finished, Made
from staanet.sanity.verdicts import AGAIN, judged, no_victim


def disk(run: Finished, one: Made) -> Check:
    """l0, density, linf, SNR of every clip, from its files, in the set's table and in the results;
    the budget that the card names is kept.
    """
    reported = defaultdict(list)
    for row in run.rows:
        if (row["attack"], row["source"]) == one.key:
            reported[str(row["id"])].append(row)
    wrong = []
    for clip_id, told in one.rows.items():
        pair = one.pair(clip_id)
        true = measure(pair.clean.pcm16, pair.adversarial)
        wrong += [f"{clip_id}: {what}" for what in _differing(told, true, "metadata.csv")]
        for row in reported[clip_id]:
            wrong += [f"{clip_id}: {what}" for what in _differing(row, true, "results.parquet")]
            wrong += [
                f"{clip_id}: {key} is '{told[key]}' in metadata.csv and '{row[key]}' in "
                f"results.parquet for {row['target']}"
                for key in ("label", "speaker")
                if str(row[key] or "") != told[key]
            ]
        budget = _budget(one)
        wrong += [
            f"{clip_id}: {what}" for what in budget.violations(pair.clean.pcm16, pair.adversarial)
        ]
        if not reported[clip_id]:
            wrong.append(f"{clip_id}: is in no row of results.parquet")
    wrong += [f"{i}: has results and no files" for i in reported if i not in one.rows]
    return judged(
        "disk", one.name, wrong, len(one.rows), "tables and budget are those of the files", AGAIN
    )


def _budget(one: Made) -> Budget:
    told = one.card.get("budget") or {}
    known = {field.name for field in fields(Budget)}
    return Budget(**{"epsilon": one.epsilon} | {k: v for k, v in told.items() if k in known})


def _differing(told: Mapping[str, Any], true: Distances, table: str) -> Iterator[str]:
    for name in DISTANCES:
        value, own = float(told[name]), getattr(true, name)
        finite = value if math.isfinite(value) else None
        same = (
            finite is own if finite is None or own is None else abs(finite - own) <= TOLERANCE[name]
        )
        if not same:
            yield f"{name} is {own} in the file and {told[name]} in {table}"


def predictions(run: Finished, one: Made, ids: Sequence[str]) -> Check:
    """Each victim, given the files again, answers what results.parquet says."""
    wrong, count, absent = [], 0, set()
    rows = {
        (str(row["id"]), str(row["target"])): row
        for row in run.rows
        if (row["attack"], row["source"]) == one.key
    }
    for clip_id in ids:
        pair = one.pair(clip_id)
        both = [pair.clean, replace(pair.clean, pcm16=pair.adversarial)]
        for target in run.summary["targets"]:
            victim, row = run.victims.get(target), rows.get((clip_id, target))
            if victim is None or row is None:
                absent.add(target)
                continue
            for name, logits in zip(("clean", "adversarial"), logits_of(victim, both), strict=True):
                told, count = str(row[f"{name}_prediction"]), count + 1
                if not _answers(victim, logits, told):
                    wrong.append(
                        f"{clip_id}: {target} answers {victim.labels[int(logits.argmax())]} to the "
                        f"{name} file, results.parquet says {told}"
                    )
    if not count:
        return no_victim("predictions", one.name, ", ".join(sorted(absent)))
    return judged(
        "predictions", one.name, wrong, count, "the victims answer again as the results say", AGAIN
    )


def _answers(victim: Victim, logits: NDArray[np.float64], told: str) -> bool:
    """Whether ``told`` is the answer, or ties with it within the rounding of another machine."""
    if told not in victim.labels:
        return False
    reach = 1e-3 * max(float(logits.max() - logits.min()), 1e-9)
    return bool(logits[victim.labels.index(told)] >= logits.max() - reach)
