"""Is a finished run honest? Every check on its victims, its files, its split and its figures.

``selfcheck`` reads a run folder, tries its victims (``probes``), recomputes its files and figures, and
writes ``RUN/selfcheck.json``, which the report shows beside the headline.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import Progress, Victim, silent
from staanet.sanity import Check
from staanet.sanity.copies import correlation, shared_recordings
from staanet.sanity.figures import accuracy, beats_control, counted, planted_example, rates
from staanet.sanity.files import disk, predictions
from staanet.sanity.held_out import clean_audio, split, unlabelled
from staanet.sanity.jobs import jobs_of
from staanet.sanity.knowledge import weights_hash, white_box_marks
from staanet.sanity.run_folder import Finished, Made, learned, read, require_finished, sampled
from staanet.sanity.verdicts import guarded

__all__ = [
    "FILE",
    "Finished",
    "Made",
    "accuracy",
    "as_json",
    "beats_control",
    "clean_audio",
    "correlation",
    "counted",
    "disk",
    "failed",
    "is_current",
    "looked_at",
    "planted_example",
    "predictions",
    "rates",
    "read",
    "require_finished",
    "results_hash",
    "sampled",
    "selfcheck",
    "shared_recordings",
    "split",
    "unlabelled",
    "weights_hash",
    "white_box_marks",
]


FILE = "selfcheck.json"


def selfcheck(
    run: Path | str,
    *,
    clips: int = 24,
    seed: int = 0,
    corpus: str | None = None,
    victims: Mapping[str, Victim] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[Check]:
    """Every check on a finished run; writes ``RUN/selfcheck.json``.

    Victims are tried on ``clips`` test clips, classes in turn, drawn by ``seed``; files and figures
    are checked whole. ``corpus`` replaces the recipe's, ``victims`` adds or replaces some by name.
    Raises ``InvalidInput`` where ``run`` holds no results.
    """
    finished = read(Path(run), corpus=corpus, victims=victims, device=device)
    jobs = list(jobs_of(finished, clips, seed))
    checks = []
    for number, (name, subject, work) in enumerate(jobs):

        def tell(what: str, done: int = number, told: str = f"{name} {subject}".strip()) -> None:
            progress("self-check", done, len(jobs), f"{told} {what}".strip())

        tell("")
        checks.append(guarded(name, subject, partial(work, tell)))
    progress("self-check", len(jobs), len(jobs), "")
    told = {
        "clips": clips,
        "seed": seed,
        "results_sha256": results_hash(Path(run)),
        "checked": looked_at(finished, clips),
    }
    storage.write_json(Path(run) / FILE, {"schema": 1, **told, **as_json(checks)})
    return checks


def looked_at(run: Finished, clips: int) -> str:
    """What a self-check of this run iterations at, in a sentence."""
    clips_held = sum(len(one.rows) for one in run.sets.values())
    held = f"{_number(clips_held, 'clip')} of {_number(len(run.sets), 'set')}"
    trained = Counter(kind for kind, _ in learned(run, "generator", "vector"))
    models = [
        _number(len(run.victims), "victim"),
        *(_number(n, kind) for kind, n in trained.items()),
    ]
    corpus = run.corpus.name if run.corpus else f"no corpus ({run.problem})"
    return (
        f"{', '.join(models)}; {held} and {_number(len(run.rows), 'row')} of results, all of them; "
        f"victims tried on up to {_number(clips, 'clip')}; {corpus}"
    )


def _number(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def failed(checks: Sequence[Check]) -> list[Check]:
    """The checks that say no."""
    return [check for check in checks if check.verdict == "fail"]


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as JSON can hold them."""
    told: dict[str, Any] = _finite(
        {"failed": len(failed(checks)), "checks": [asdict(check) for check in checks]}
    )
    return told


def results_hash(run: Path) -> str:
    """Which results a self-check belongs to: the sha256 of the run's summary."""
    return storage.sha256(run / "results" / "summary.json")


def is_current(run: Path, seed: int) -> bool:
    """Whether the run was checked with this seed since its results were written."""
    if not (run / FILE).is_file():
        return False
    told = storage.read_json(run / FILE)
    return bool(told.get("seed") == seed and told.get("results_sha256") == results_hash(run))


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become their names."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
