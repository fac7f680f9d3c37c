"""Success against budget: attacks over a range of epsilons and densities, clip by clip.

A point is an attack within one budget. A clip's row is measured on the 16-bit audio that ``craft``
proved; the audio itself is dropped unless it is wanted. Each row goes to a journal at once, so that a
killed sweep goes on with the next clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from staanet import storage
from staanet.attacks import collate, craft_batch
from staanet.core import Attack, Clip, Progress, Victim, metrics, silent
from staanet.results import adversarial_set, row_files
from staanet.results.adversarial_set import AdversarialClip

MINIMISING = ("sigma_zero", "sparsefool", "vfga")
"""They look for the fewest samples: one run each, at free density, tells the whole curve."""
MEASURED = ("l0", "density", "linf", "snr_db", "seconds", "queries")
BY = ("attack", "title", "control", "minimising", "source", "target", "epsilon", "max_density")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An attack within one budget; ``max_density`` None is as many samples as it takes."""

    attack: str
    epsilon: float
    max_density: float | None

    @property
    def name(self) -> str:
        """Unique in a sweep, and fit for a folder.

        >>> Point(attack="pgd", epsilon=0.03, max_density=0.05).name
        'pgd__eps-0.03__density-0.05'
        """
        density = "free" if self.max_density is None else repr(self.max_density)
        return f"{self.attack}__eps-{self.epsilon!r}__density-{density}"


def points(
    attacks: Mapping[str, str],
    epsilons: Iterable[float],
    densities: Iterable[float],
    *,
    grid: bool = False,
) -> list[Point]:
    """What to run for ``attacks`` (name -> registry name): every epsilon at the largest density and
    every density at the largest epsilon, or with ``grid`` each with each.

    >>> [(p.epsilon, p.max_density) for p in points({"pgd": "pgd"}, [0.1, 0.2], [0.5, 1])]
    [(0.1, 1), (0.2, 0.5), (0.2, 1)]
    >>> [(p.epsilon, p.max_density) for p in points({"a": "vfga"}, [0.1, 0.2], [0.5, 1])]
    [(0.2, None)]
    """
    eps, shares = sorted(set(epsilons)), sorted(set(densities))
    found = []
    for name, algorithm in attacks.items():
        if algorithm in MINIMISING:
            found.append(Point(attack=name, epsilon=eps[-1], max_density=None))
            continue
        found += [
            Point(attack=name, epsilon=e, max_density=d)
            for e in eps
            for d in shares
            if grid or e == eps[-1] or d == shares[-1]
        ]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a figure has to know of an attack beyond its name."""

    title: str
    control: bool
    minimising: bool


def sweep(
    wanted: Sequence[Point],
    make: Callable[[Point], Attack],
    about: Mapping[str, About],
    source: Victim,
    targets: Sequence[Victim],
    clips: Sequence[Clip],
    *,
    journal: storage.Journal,
    keep: Path | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """A row per point, clip and target; those in ``journal`` are not made again.

    With ``keep`` the audio of each point is written below that folder, and what was written is
    what is measured.
    """
    known = {(r["point"], r["id"]): r for r in journal.records() if "point" in r}
    clean: dict[tuple[str, str], str] = {}
    rows = []
    for number, point in enumerate(wanted):
        attack = make(point)
        for done, clip in enumerate(clips, start=1):
            record = known.get((point.name, clip.id))
            if record is None:
                record = _measured(attack, point, source, targets, clip, clean, keep)
                journal.append(record)
            rows += _per_target(record, point, about[point.attack], source, targets, clip)
            progress(
                f"sweep from {source.name}",
                number * len(clips) + done,
                len(wanted) * len(clips),
                f"{point.attack} epsilon {point.epsilon:g}",
            )
        if keep is not None:
            _close(keep / point.name, point, attack, source, rows)
    return rows


def _measured(
    attack: Attack,
    point: Point,
    source: Victim,
    targets: Sequence[Victim],
    clip: Clip,
    clean: dict[tuple[str, str], str],
    keep: Path | None,
) -> dict[str, Any]:
    crafted = craft_batch(attack, source, [clip])[0]
    file = None if keep is None else adversarial_set.write_clip(keep / point.name, crafted)
    made = (
        crafted
        if keep is None or file is None
        else adversarial_set.read_clip(keep / point.name, file)
    )
    answers = {}
    for target in targets:
        if (target.name, clip.id) not in clean:
            clean[target.name, clip.id] = _answer(target, clip)
        after = _answer(target, replace(clip, pcm16=made.adversarial))
        answers[target.name] = [clean[target.name, clip.id], after]
    return {
        "point": point.name,
        "id": clip.id,
        "answers": answers,
        "file": file,
        **_distances(made),
    }


def _distances(made: AdversarialClip) -> dict[str, float | int | None]:
    """The measurements of the 16-bit pair; a ratio to no change at all is None."""
    found = made.measurements()
    return {name: found[name] if math.isfinite(found[name]) else None for name in MEASURED}


def _answer(target: Victim, clip: Clip) -> str:
    x, lengths = collate([clip], target)
    with torch.inference_mode():
        return target.labels[int(target(x, lengths).argmax())]


def _per_target(
    record: Mapping[str, Any],
    point: Point,
    about: About,
    source: Victim,
    targets: Sequence[Victim],
    clip: Clip,
) -> list[dict[str, Any]]:
    return [
        {
            "attack": point.attack,
            "title": about.title,
            "control": about.control,
            "minimising": about.minimising,
            "source": source.name,
            "target": target.name,
            "epsilon": point.epsilon,
            "max_density": point.max_density,
            "id": clip.id,
            "label": clip.label,
            "speaker": clip.speaker,
            "clean_prediction": record["answers"][target.name][0],
            "adversarial_prediction": record["answers"][target.name][1],
            **{name: record[name] for name in MEASURED},
            "file": record["file"],
        }
        for target in targets
    ]


def _close(
    folder: Path, point: Point, attack: Attack, source: Victim, rows: Sequence[Mapping[str, Any]]
) -> None:
    own = {
        row["id"]: row["file"]
        for row in rows
        if (row["attack"], row["epsilon"], row["max_density"])
        == (point.attack, point.epsilon, point.max_density)
    }
    card = {
        "attack": point.attack,
        "source": source.name,
        "algorithm": type(attack).__name__.lower(),
        "budget": {"epsilon": point.epsilon, "max_density": point.max_density},
    }
    adversarial_set.write_set(folder, own.values(), card)


# ---------------------------------------------------------------- figures of each point


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One tidy row per point and target: fooling rate with its 95 % interval clustered by speaker, N,
    means of density, l0 and SNR (over the clips that were touched), median time, mean queries.

    >>> summarise([])
    []
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in BY), []).append(row)
    return [dict(zip(BY, key, strict=True)) | _figures(own) for key, own in groups.items()]


def _figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    before = [row["clean_prediction"] for row in rows]
    after = [row["adversarial_prediction"] for row in rows]
    rate = metrics.rate(metrics.changed(before, after), [row["speaker"] for row in rows])
    return {
        "fooling_rate": rate.value,
        "fooling_rate_low": rate.low,
        "fooling_rate_high": rate.high,
        "count": rate.count,
        "speakers": rate.clusters,
        **{f"{name}_mean": _mean(rows, name) for name in ("density", "l0", "snr_db", "queries")},
        "seconds_median": float(np.median([row["seconds"] for row in rows])),
    }


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(values)) if values else None


def save(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Write ``sweep.parquet`` and ``sweep.csv`` (a row per point and target) and ``clips.parquet``;
    returns the points."""
    found = summarise(rows)
    row_files.write_parquet(
        folder / "clips.parquet", [{k: v for k, v in r.items() if k != "file"} for r in rows]
    )
    row_files.write_parquet(folder / "sweep.parquet", found)
    columns = list(found[0]) if found else list(BY)
    storage.write_text(folder / "sweep.csv", row_files.csv_text(columns, found))
    return found


def load(folder: Path) -> list[dict[str, Any]]:
    """The points of a finished sweep, as ``save`` returned them."""
    import pandas

    frame = pandas.read_parquet(folder / "sweep.parquet")
    clean = frame.astype(object).where(frame.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in clean.to_dict("records")]
