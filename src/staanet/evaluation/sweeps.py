"""Success rates over a range of epsilons and densities, clip by clip.

A point is an attack within one budget. Each clip is measured on the 16-bit audio that ``craft``
proved; the audio itself is dropped unless a folder for it is given. Each record goes to a journal at
once, so that a killed sweep goes on with the next clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from staanet import storage
from staanet.attacks import collate, craft_batch
from staanet.config import epsilon_order, epsilon_text
from staanet.config.epsilon import Epsilon, read_epsilon
from staanet.core import Attack, Clip, Progress, Victim, answers_to, metrics, silent
from staanet.results import adversarial_set, row_files

MINIMISING = ("sigma_zero", "sparsefool", "vfga")
"""Attacks that search for the fewest samples: one run each, at free density, gives the whole curve."""
MEASUREMENTS = ("l0", "density", "linf", "snr_db", "seconds", "queries")
POINT_KEY = (
    "attack",
    "title",
    "control",
    "minimising",
    "source",
    "target",
    "epsilon",
    "max_density",
)
"""Columns that identify the rows of one point and target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An attack within one budget; ``max_density`` None is as many samples as it takes."""

    attack: str
    epsilon: Epsilon
    max_density: float | None

    @property
    def name(self) -> str:
        """Unique in a sweep, and fit for a folder.

        >>> Point(attack="pgd", epsilon=0.03, max_density=0.05).name
        'pgd__eps-0.03__density-0.05'
        """
        density = "free" if self.max_density is None else repr(self.max_density)
        epsilon = str(self.epsilon).replace(" ", "")
        return f"{self.attack}__eps-{epsilon}__density-{density}"


def sweep_points(
    attacks: Mapping[str, str],
    epsilons: Iterable[Epsilon],
    densities: Iterable[float],
    *,
    grid: bool = False,
) -> list[Point]:
    """Returns the points to run: every epsilon at the largest density, and the reverse.

    Args:
        attacks: Name of each attack -> its registry name.
        epsilons: Limits of a sample's change, in (0, 1].
        densities: Limits of the share of samples that change, in (0, 1].
        grid: Combine each epsilon with each density.

    Returns:
        The points, by attack, epsilon and density. An attack of ``MINIMISING`` has one.

    >>> [(p.epsilon, p.max_density) for p in sweep_points({"pgd": "pgd"}, [0.1, 0.2], [0.5, 1])]
    [(0.1, 1), (0.2, 0.5), (0.2, 1)]
    >>> [(p.epsilon, p.max_density) for p in sweep_points({"a": "vfga"}, [0.1, 0.2], [0.5, 1])]
    [(0.2, None)]
    """
    eps, shares = sorted(set(epsilons), key=epsilon_order), sorted(set(densities))
    points = []
    for name, algorithm in attacks.items():
        if algorithm in MINIMISING:
            points.append(Point(attack=name, epsilon=eps[-1], max_density=None))
            continue
        points += [
            Point(attack=name, epsilon=e, max_density=d)
            for e in eps
            for d in shares
            if grid or e == eps[-1] or d == shares[-1]
        ]
    return points


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackDescription:
    """The description of an attack beside its name in a figure."""

    title: str
    control: bool
    minimising: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Attacks made on ``source`` at several points, and measured on each of ``targets``."""

    source: Victim
    targets: Sequence[Victim]
    make_attack: Callable[[Point], Attack]
    descriptions: Mapping[str, AttackDescription]
    """By the name of the attack."""
    _clean_outputs: dict[tuple[str, str], Tensor] = field(default_factory=dict, repr=False)

    def run(
        self,
        points: Sequence[Point],
        clips: Sequence[Clip],
        *,
        journal: storage.Journal,
        audio_folder: Path | None = None,
        progress: Progress = silent,
    ) -> list[dict[str, Any]]:
        """Returns a row per point, clip and target.

        Args:
            points: What to run.
            clips: Clean clips, at the rate of all victims.
            journal: Records of earlier calls are not made again; new ones are added.
            audio_folder: Where the audio of each point is written. Then the files are what is
                measured. None: no audio is kept.
            progress: Receives a call per clip.
        """
        records = {(r["point"], r["id"]): r for r in journal.records() if "point" in r}
        rows = []
        for index, point in enumerate(points):
            attack = self.make_attack(point)
            folder = None if audio_folder is None else audio_folder / point.name
            for number, clip in enumerate(clips, start=1):
                record = records.get((point.name, clip.id))
                if record is None:
                    record = self._measure(attack, point, clip, folder)
                    journal.append(record)
                rows += self._rows(record, point, clip)
                progress(
                    f"sweep from {self.source.name}",
                    index * len(clips) + number,
                    len(points) * len(clips),
                    f"{point.attack} epsilon {epsilon_text(point.epsilon)}",
                )
            if folder is not None:
                self._write_card(folder, point, attack, rows)
        return rows

    def _measure(
        self, attack: Attack, point: Point, clip: Clip, folder: Path | None
    ) -> dict[str, Any]:
        crafted, file = craft_batch(attack, self.source, [clip])[0], None
        if folder is not None:
            file = adversarial_set.write_clip(folder, crafted)
            crafted = adversarial_set.read_clip(folder, file)
        answers = {}
        for target in self.targets:
            key = target.name, clip.id
            if key not in self._clean_outputs:
                self._clean_outputs[key] = _outputs(target, clip)
            clean = self._clean_outputs[key]
            after = _outputs(target, replace(clip, pcm16=crafted.adversarial))
            answers[target.name] = answers_to(target, clean, torch.cat([clean, after]))
        values = crafted.measurements()
        finite = {
            name: values[name] if math.isfinite(values[name]) else None for name in MEASUREMENTS
        }
        return {"point": point.name, "id": clip.id, "answers": answers, "file": file, **finite}

    def _rows(self, record: Mapping[str, Any], point: Point, clip: Clip) -> list[dict[str, Any]]:
        return [
            {
                "attack": point.attack,
                **asdict(self.descriptions[point.attack]),
                "source": self.source.name,
                "target": target.name,
                "epsilon": point.epsilon,
                "max_density": point.max_density,
                "id": clip.id,
                "label": clip.label,
                "speaker": clip.speaker,
                "clean_prediction": record["answers"][target.name][0],
                "adversarial_prediction": record["answers"][target.name][1],
                **{name: record[name] for name in MEASUREMENTS},
                "file": record["file"],
            }
            for target in self.targets
        ]

    def _write_card(
        self, folder: Path, point: Point, attack: Attack, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        key = (point.attack, point.epsilon, point.max_density)
        files = {
            row["id"]: row["file"]
            for row in rows
            if (row["attack"], row["epsilon"], row["max_density"]) == key
        }
        card = {
            "attack": point.attack,
            "source": self.source.name,
            "algorithm": type(attack).__name__.lower(),
            "budget": {"epsilon": point.epsilon, "max_density": point.max_density},
        }
        adversarial_set.write_set(folder, files.values(), card)


def _outputs(target: Victim, clip: Clip) -> Tensor:
    x, lengths = collate([clip], target)
    with torch.inference_mode():
        outputs: Tensor = target(x, lengths)
    return outputs


# ---------------------------------------------------------------- figures of each point


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row per point and target: fooling rate with 95 % interval, N, means, median time.

    The interval is clustered by speaker. Means are of density, l0, queries, and of the SNR over the
    clips that were touched.

    >>> summarise([])
    []
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in POINT_KEY), []).append(row)
    return [
        dict(zip(POINT_KEY, key, strict=True)) | _figures(group) for key, group in groups.items()
    ]


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
    """Writes the rows of a sweep and its points; returns the points.

    ``clips.parquet`` holds a row per clip; ``sweep.parquet`` and ``sweep.csv`` one per point and target.
    """
    points = summarise(rows)
    row_files.write_parquet(
        folder / "clips.parquet", [{k: v for k, v in r.items() if k != "file"} for r in rows]
    )
    row_files.write_parquet(folder / "sweep.parquet", points)
    columns = list(points[0]) if points else list(POINT_KEY)
    storage.write_text(folder / "sweep.csv", row_files.csv_text(columns, points))
    return points


def load(folder: Path) -> list[dict[str, Any]]:
    """Returns the points of a finished sweep, as ``save`` did."""
    points = row_files.read_parquet(folder / "sweep.parquet")
    return [{**point, "epsilon": _epsilon(point["epsilon"])} for point in points]


def _epsilon(value: object) -> object:
    return read_epsilon(value) if isinstance(value, str) else value
