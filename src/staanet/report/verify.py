"""Recomputes every figure of a run from its files; the report uses verified figures only.

The distances and the budget of every clip are recomputed from its 16-bit integers and compared with
the table of its set and with the results. Rates and means of the summary are recomputed from the
rows behind them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np

from staanet import audio
from staanet.core import NO_CHANNEL, Progress, Samples
from staanet.errors import InvalidInput
from staanet.results.cells import DISTANCES, Cell, ClipResult, Distances
from staanet.results.run_folder import ROWS, SUMMARY, RunFolder
from staanet.results.stored import StoredSet

TOLERANCE = {"l0": 0.0, "density": 1e-6, "linf": 1e-6, "snr_db": 0.01, "peak_ratio_db": 0.01}
"""l0 and linf are exact: a step of the grid is 3e-5."""
_REMEDY = "Attack and evaluate again: a report shows the figures of its files or none"


def measure(clean: Samples, adversarial: Samples) -> Distances:
    """Returns the distances of two 16-bit clips ``[T]``; ratios are None where nothing changed.

    >>> measure(np.int16([0, 100]), np.int16([0, 110]))
    Distances(l0=1, density=0.5, linf=0.00030517578125, snr_db=20.0, peak_ratio_db=20.0)
    """
    x, delta = clean.astype(np.int64), adversarial.astype(np.int64) - clean
    l0, largest = int(np.count_nonzero(delta)), int(np.abs(delta).max(initial=0))
    signal, peak = int(np.square(x).sum()), int(np.abs(x).max(initial=0))
    defined = l0 > 0 and signal > 0
    return Distances(
        l0=l0,
        density=l0 / max(1, len(x)),
        linf=largest / audio.FULL_SCALE,
        snr_db=10 * math.log10(signal / int(np.square(delta).sum())) if defined else None,
        peak_ratio_db=20 * math.log10(peak / largest) if defined else None,
    )


def verify(run: RunFolder, progress: Progress) -> int:
    """Checks all figures; returns how many clips of the results have no files.

    Raises ``InvalidInput`` that names the file and both values where they differ, and
    ``UnusableClip`` where a file is damaged.
    """
    _check_cells(run)
    _check_perceptual(run)
    reported: dict[tuple[str, str, str], list[ClipResult]] = defaultdict(list)
    for row in (*run.rows, *run.channel_rows):
        reported[row.attack, row.source, row.id].append(row)
    pairs = [(stored, clip_id) for stored in run.sets.values() for clip_id in stored.rows]
    checked = set()
    for number, (stored, clip_id) in enumerate(pairs, start=1):
        if not stored.has_audio(clip_id):
            continue
        key = (*stored.key, clip_id)
        for problem in clip_problems(stored, clip_id, reported.get(key, ())):
            raise InvalidInput(problem, where=stored.path(clip_id), remedy=_REMEDY)
        checked.add(key)
        progress("check figures against files", number, len(pairs), "")
    return len(reported.keys() - checked)


def clip_problems(stored: StoredSet, clip_id: str, rows: Sequence[ClipResult]) -> Iterator[str]:
    """Yields each figure of a clip that is not that of its files, and each limit that it breaks.

    Args:
        stored: The set.
        clip_id: Which clip of it.
        rows: What the results say of the clip.

    Raises:
        InvalidInput: A file is damaged.
    """
    pair = stored.pair(clip_id)
    clean, adversarial = pair.clean.pcm16, pair.adversarial
    measured = measure(clean, adversarial)
    tables = [("metadata.csv", stored.distances(clip_id)), *((ROWS, row.distances) for row in rows)]
    for table, written in tables:
        for name in DISTANCES:
            a, b = getattr(written, name), getattr(measured, name)
            is_same = a is b if a is None or b is None else abs(a - b) <= TOLERANCE[name]
            if not is_same:
                yield f"{name} is {_shown(b)} in the file and {_shown(a)} in {table}"
    rate, budget = pair.clean.sample_rate, stored.budget
    for violation in budget.violations(clean, adversarial, rate) if budget else ():
        yield f"beyond its budget: {violation}"


def _check_cells(run: RunFolder) -> None:
    where = run.folder / "results" / SUMMARY
    behind: dict[tuple[str, ...], list[ClipResult]] = defaultdict(list)
    for row in (*run.rows, *run.channel_rows):
        behind[row.attack, row.source, row.target, row.channel].append(row)
    for cell in (*run.cells, *run.channel_cells):
        rows = behind[*cell.key, cell.target, cell.channel]
        after = f" after {cell.channel}" if cell.channel != NO_CHANNEL else ""
        name_of_cell = f"{cell.title} from {cell.source} on {cell.target}{after}"
        for name, written, measured in _figures(cell, rows):
            if _differ(written, measured):
                raise InvalidInput(
                    f"{name} of {name_of_cell} is {_shown(written)}, but {_shown(measured)} by its rows in {ROWS}",
                    where=where,
                    remedy=_REMEDY,
                )


def _check_perceptual(run: RunFolder) -> None:
    for (attack, source), scores_of_set in run.perceptual.items():
        rows = run.rows_of((attack, source))
        by_clip = {row.id: row.scores for row in rows}  # the same for every target
        for name, score in scores_of_set.items():
            values = [v for scores in by_clip.values() if (v := scores.get(name)) is not None]
            measured = fmean(values) if values else None
            if _differ(score.value, measured) or (score.count, score.of) != (
                len(values),
                len(by_clip),
            ):
                raise InvalidInput(
                    f"mean {name} of {attack} from {source} is {_shown(score.value)} over "
                    f"{score.count} of {score.of} clips, but {_shown(measured)} over {len(values)} of "
                    f"{len(by_clip)} by its rows in {ROWS}",
                    where=run.folder / "results" / SUMMARY,
                    remedy=_REMEDY,
                )


def _differ(written: float | None, measured: float | None) -> bool:
    if written is None or measured is None:
        return written is not measured
    return abs(written - measured) > 1e-6 * abs(measured or 1)


def _figures(
    cell: Cell, rows: Sequence[ClipResult]
) -> list[tuple[str, float | None, float | None]]:
    """Name of each figure, its value in the summary, and its value by the rows."""

    def mean(name: str, of: Sequence[ClipResult]) -> float | None:
        values = [value for row in of if (value := getattr(row.distances, name)) is not None]
        return fmean(values) if values else None

    fooled = [row for row in rows if row.fooled]
    pairs: list[tuple[str, float | None, float | None]] = [
        ("count", cell.count, len(rows)),
        ("fooling_rate", cell.fooling_rate.value, len(fooled) / len(rows) if rows else None),
        ("untouched", cell.untouched, sum(row.distances.l0 == 0 for row in rows)),
    ]
    for name in DISTANCES:
        pairs.append((f"mean {name}", getattr(cell.mean, name), mean(name, rows)))
        pairs.append(
            (f"mean {name} of fooled", getattr(cell.mean_fooled, name), mean(name, fooled))
        )
    return pairs


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.10g}"
