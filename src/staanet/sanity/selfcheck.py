"""Runs every check on a finished run: its victims, files, split and figures.

``selfcheck`` reads a run folder, tries its victims, recomputes its files and figures, and writes
``RUN/selfcheck.json``, which the report shows beside the headline.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.config import SELFCHECK_CLIPS
from staanet.core import Progress, Victim, silent
from staanet.results.checks import Check
from staanet.results.run_folder import SELFCHECK, SUMMARY
from staanet.sanity.jobs import jobs_of
from staanet.sanity.loaded_run import LoadedRun, load_run


def selfcheck(
    run: Path | str,
    *,
    clips: int = SELFCHECK_CLIPS,
    seed: int = 0,
    corpus: str | None = None,
    victims: Mapping[str, Victim] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[Check]:
    """Makes every check on a finished run, writes ``RUN/selfcheck.json``, and returns the checks.

    Files and figures are checked whole.

    Args:
        run: The folder of ``staanet run``.
        clips: Victims are tried on so many test clips, classes in turn.
        seed: Draws these clips.
        corpus: Replaces the recipe's, as ``KIND:PATH``.
        victims: Added to those of the run, or in place of some, by name.
        device: Where victims compute.
        progress: Receives a call per check, and more from those that take long.

    Raises:
        InvalidInput: ``run`` is not the folder of a finished run.
    """
    folder = Path(run)
    loaded = load_run(folder, corpus=corpus, victims=victims, device=device)
    jobs = list(jobs_of(loaded, clips, seed))
    checks, seconds = [], []
    for index, job in enumerate(jobs):

        def report(what: str, index: int = index, name: str = f"{job.name} {job.subject}") -> None:
            progress("self-check", index, len(jobs), f"{name.strip()} {what}".strip())

        report("")
        start = time.perf_counter()
        checks.append(job.run(report))
        seconds.append(time.perf_counter() - start)
    progress("self-check", len(jobs), len(jobs), "")
    record = {
        "schema": 1,
        "clips": clips,
        "seed": seed,
        "results_sha256": results_hash(folder),
        "checked": describe_extent(loaded, clips),
        **as_json(checks),
        "seconds": [round(value, 3) for value in seconds],
    }
    storage.write_json(folder / SELFCHECK, record)
    return checks


def describe_extent(run: LoadedRun, clips: int) -> str:
    """Returns the scope of a self-check of this run, as a sentence."""
    clip_count = sum(len(stored.rows) for stored in run.files.sets.values())
    sets = f"{_number(clip_count, 'clip')} of {_number(len(run.files.sets), 'set')}"
    trained = Counter(kind for kind, _ in run.trained("generator", "vector"))
    models = [
        _number(len(run.victims), "victim"),
        *(_number(count, kind) for kind, count in trained.items()),
    ]
    corpus = run.corpus.name if run.corpus else f"no corpus ({run.problem})"
    return (
        f"{', '.join(models)}; {sets} and {_number(len(run.files.rows), 'row')} of results, all of "
        f"them; victims tried on up to {_number(clips, 'clip')}; {corpus}"
    )


def _number(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def failed_checks(checks: Sequence[Check]) -> list[Check]:
    """Returns the checks that say no."""
    return [check for check in checks if check.verdict == "fail"]


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Returns the checks as JSON can hold them."""
    record: dict[str, Any] = _name_infinities(
        {"failed": len(failed_checks(checks)), "checks": [asdict(check) for check in checks]}
    )
    return record


def results_hash(run: Path) -> str:
    """Returns the sha256 of a run's summary: which results a self-check belongs to."""
    return storage.sha256(run / "results" / SUMMARY)


def is_current(run: Path, seed: int) -> bool:
    """Returns whether the run was checked with this seed since its results were written."""
    if not (run / SELFCHECK).is_file():
        return False
    record = storage.read_json(run / SELFCHECK)
    return bool(record.get("seed") == seed and record.get("results_sha256") == results_hash(run))


def _name_infinities(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become their names."""
    if isinstance(value, Mapping):
        return {key: _name_infinities(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_name_infinities(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
