"""Reads the folder of a finished run; the one reader that reports, checks and benches share.

``results/`` is needed. ``adversarial/``, ``victims/``, ``generators/``, ``card.json`` and
``recipe.toml`` are read where they are there, so that the folder of a single evaluation is a run too.
No model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import NO_CHANNEL
from staanet.errors import InvalidInput
from staanet.results.cells import DISTANCES, Cell, ClipResult, Distances, Key, finite_number
from staanet.results.checks import Check
from staanet.results.stored import (
    REMEDY,
    StoredModel,
    StoredSet,
    expect_format,
    read_models,
    read_sets,
    read_text,
)

SUMMARY, ROWS, SELFCHECK = "summary.json", "results.parquet", "selfcheck.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PerceptualScore:
    """The mean of one perceptual metric over the ``count`` of ``of`` clips that have it."""

    value: float | None
    count: int
    of: int
    missing: Mapping[str, int]
    """How many clips have no score, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSelfCheck:
    """The content of ``selfcheck.json``; ``stale`` where the results have changed since."""

    checks: Sequence[Check]
    clips: int
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DefendedTarget:
    """A target with a defence: the victim inside it, and the chain in front of that."""

    inner: str
    chain: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """All that a finished run left behind."""

    folder: Path
    summary: Mapping[str, Any]
    cells: Sequence[Cell]
    """Those of the files as they are; cells after a channel stand apart."""
    rows: Sequence[ClipResult]
    labels: Mapping[str, Sequence[str]]
    """The classes of each target, in the order of its probabilities."""
    sets: Mapping[Key, StoredSet]
    victims: Sequence[StoredModel]
    generators: Sequence[StoredModel]
    card: Mapping[str, Any]
    recipe: str
    machine: str
    quarantined: Sequence[tuple[str, str]]
    """Id and reason of each quarantined clip."""
    flags: Sequence[str]
    channel_cells: Sequence[Cell] = ()
    channel_rows: Sequence[ClipResult] = ()
    perceptual: Mapping[Key, Mapping[str, PerceptualScore]] = field(default_factory=dict)
    selfcheck: StoredSelfCheck | None = None
    defended: Mapping[str, DefendedTarget] = field(default_factory=dict)
    """Targets with a defence, by name."""

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def targets(self) -> list[str]:
        """The targets, in the order of the summary."""
        return list(dict.fromkeys(cell.target for cell in self.cells))

    @property
    def keys(self) -> list[Key]:
        """The (attack, source) pairs, in the order of the summary."""
        return list(dict.fromkeys(cell.key for cell in self.cells))

    @property
    def speakers_by_part(self) -> dict[str, list[str]]:
        """The speakers of each part of the corpus, as the card of the run names them."""
        corpus = self.card.get("corpus")
        parts = corpus.get("split") if isinstance(corpus, dict) else None
        if not isinstance(parts, dict):
            return {}
        return {
            str(name): [str(s) for s in part.get("speakers", ())] for name, part in parts.items()
        }

    def cell(self, attack: str, source: str, target: str) -> Cell | None:
        """Returns one cell of the files as they are; None where it was not evaluated."""
        key = (attack, source, target)
        return next((cell for cell in self.cells if (*cell.key, cell.target) == key), None)

    def rows_of(self, key: Key, target: str | None = None) -> list[ClipResult]:
        """Returns the clips of one set, against one target or against all."""
        return [row for row in self.rows if row.key == key and target in (None, row.target)]

    def probabilities(
        self, key: Key, ids: Iterable[str]
    ) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
        """Returns each target's answers before and after, by ``(id, target)``, for some clips."""
        import pandas

        path = self.folder / "results" / ROWS
        names = ["id", "target", "clean_probabilities", "adversarial_probabilities"]
        filters = [("attack", "==", key[0]), ("source", "==", key[1]), ("id", "in", list(ids))]
        if not set(names) <= set(_columns(path)):
            return {}  # its targets answer with numbers
        if "channel" in _columns(path):
            filters.append(("channel", "==", NO_CHANNEL))
        frame = pandas.read_parquet(path, columns=names, filters=filters)
        return {
            (str(name), str(target)): ([float(p) for p in before], [float(p) for p in after])
            for name, target, before, after in zip(*(frame[name] for name in names), strict=True)
            if before is not None
        }

    @classmethod
    def read(cls, folder: Path, kind: str = "run") -> RunFolder:
        """Reads a run, or the folder of another command whose card is of this ``kind``.

        Raises ``InvalidInput`` where the folder holds no results, or where a file is not what
        staanet writes.
        """
        path = folder / "results" / SUMMARY
        if not path.is_file():
            raise InvalidInput(
                f"no results in it (results/{SUMMARY} is missing)",
                where=folder,
                remedy="Run staanet evaluate --out with this folder first",
            )
        summary = storage.read_json(path)
        with expect_format(path):
            parts = _read_summary(summary)
        scores = dict.fromkeys(name for scores in parts["perceptual"].values() for name in scores)
        rows = _read_rows(folder / "results" / ROWS, list(scores))
        return cls(
            folder=folder,
            summary=summary,
            rows=[row for row in rows if row.channel == NO_CHANNEL],
            channel_rows=[row for row in rows if row.channel != NO_CHANNEL],
            sets={stored.key: stored for stored in read_sets(folder)},
            victims=read_models(folder, "victim"),
            generators=read_models(folder, "generator"),
            card=storage.read_card(folder, kind) if (folder / storage.CARD).exists() else {},
            recipe=read_text(folder / "recipe.toml") if (folder / "recipe.toml").exists() else "",
            selfcheck=_selfcheck(folder),
            **parts,
        )


def _read_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a run that ``summary.json`` holds."""
    if summary["schema"] != 1:
        raise ValueError(f"schema {summary['schema']}, this staanet knows 1")
    cells = [Cell.from_dict(raw) for raw in summary["cells"]]
    labels = {name: [str(x) for x in raw["labels"]] for name, raw in summary["targets"].items()}
    if not any(cell.channel == NO_CHANNEL for cell in cells):
        raise ValueError("it has no cells")
    for cell in cells:
        _ = labels[cell.target]  # every target is listed with its classes
    return {
        "cells": [cell for cell in cells if cell.channel == NO_CHANNEL],
        "channel_cells": [cell for cell in cells if cell.channel != NO_CHANNEL],
        "labels": labels,
        "perceptual": {
            (str(raw["attack"]), str(raw["source"])): {
                str(name): _perceptual_score(score) for name, score in raw["perceptual"].items()
            }
            for raw in summary.get("sets", ())
        },
        "defended": {
            str(name): DefendedTarget(
                inner=str(raw["defended"]["inner"]), chain=list(map(str, raw["defended"]["chain"]))
            )
            for name, raw in summary["targets"].items()
            if "defended" in raw
        },
        "machine": str(summary.get("machine") or ""),
        "quarantined": sorted(
            {(str(q["id"]), str(q["reason"])) for q in summary.get("quarantined", [])}
        ),
        "flags": tuple(dict.fromkeys(str(flag) for flag in summary.get("flags", []))),
    }


def _perceptual_score(raw: Mapping[str, Any]) -> PerceptualScore:
    return PerceptualScore(
        value=finite_number(raw["value"]),
        count=int(raw["count"]),
        of=int(raw["of"]),
        missing={str(reason): int(count) for reason, count in raw["missing"].items()},
    )


def _columns(path: Path) -> list[str]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_schema(path).names)


def _read_rows(path: Path, scores: Sequence[str]) -> list[ClipResult]:
    """The table of results, with the perceptual ``scores``."""
    import pandas

    others = ("distances", "channel", "scores")
    names = [item.name for item in fields(ClipResult) if item.name not in others]
    if not path.is_file():
        raise InvalidInput("no such file", where=path, remedy=REMEDY)
    try:
        if "channel" in _columns(path):  # results of early versions have none
            names.append("channel")
        frame = pandas.read_parquet(path, columns=[*names, *DISTANCES, *scores])
    except (OSError, ValueError, KeyError) as problem:  # pyarrow's errors derive from these
        raise InvalidInput(
            f"not a table of results ({problem})", where=path, remedy=REMEDY
        ) from None
    texts = zip(
        *(frame[name].astype(object).where(frame[name].notna(), "") for name in names), strict=True
    )
    measures = (*DISTANCES, *scores)
    numbers = zip(*(frame[name].astype(float) for name in measures), strict=True)
    return [
        ClipResult(
            **dict(zip(names, map(str, text), strict=True)),
            distances=Distances.from_row(dict(zip(measures, number, strict=True))),
            scores=dict(zip(scores, map(finite_number, number[len(DISTANCES) :]), strict=True)),
        )
        for text, number in zip(texts, numbers, strict=True)
    ]


def _selfcheck(folder: Path) -> StoredSelfCheck | None:
    path = folder / SELFCHECK
    if not path.is_file():
        return None
    raw = storage.read_json(path)
    with expect_format(path):
        return StoredSelfCheck(
            checks=[Check.from_dict(check) for check in raw["checks"]],
            clips=int(raw["clips"]),
            stale=raw["results_sha256"] != storage.sha256(folder / "results" / SUMMARY),
        )
