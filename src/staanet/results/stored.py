"""Adversarial sets, victims and generators of a run on disk, also of all folds of a cross-validation.

No model is loaded. A set of all folds has the rows of each; its files stay where the fold wrote them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from staanet import storage
from staanet.core import Budget
from staanet.errors import InvalidInput
from staanet.results.adversarial_set import AdversarialClip, read_clip, read_rows
from staanet.results.cells import Distances, Key, read_budget

FOLDS = "folds"
"""The folder of a cross-validation that holds a run for each fold, by its number."""
FILES = ("file_name", "original_file_name")
REMEDY = "Run staanet evaluate again"


@dataclass(frozen=True, kw_only=True)
class StoredSet:
    """An adversarial set on disk: its card, and the row of each clip by its id."""

    folder: Path
    card: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(cls, folder: Path) -> StoredSet:
        """Reads the tables of a set, not its audio.

        Raises ``InvalidInput`` where card or table are not what staanet writes.
        """
        card = storage.read_card(folder, "adversarial")
        with expect_format(folder / storage.CARD):
            _ = str(card["attack"]), str(card["source"])
        return cls(folder=folder, card=card, rows={row["id"]: row for row in read_rows(folder)})

    @property
    def name(self) -> str:
        """Attack and source as in the name of the folder."""
        return f"{self.card['attack']}__{self.card['source']}"

    @property
    def key(self) -> Key:
        """Attack and source."""
        return str(self.card["attack"]), str(self.card["source"])

    @property
    def algorithm(self) -> str:
        """The registry name of the attack, whatever the recipe calls it."""
        return str(self.card.get("algorithm") or self.card["attack"])

    @property
    def matched(self) -> str | None:
        """The set whose number of samples this attack changed, clip by clip."""
        matched = self.card.get("matched")
        return None if matched is None else str(matched)

    @cached_property
    def budget(self) -> Budget | None:
        """What the attack was allowed to change."""
        with expect_format(self.folder / storage.CARD):
            return read_budget(self.card.get("budget"))

    def distances(self, clip_id: str) -> Distances:
        """Returns the distances of a clip by the table of the set."""
        with expect_format(self.folder / "metadata.csv"):
            return Distances.from_row(self.rows[clip_id])

    def path(self, clip_id: str) -> Path:
        """Returns the file of the adversarial clip."""
        return self.folder / self.rows[clip_id]["file_name"]

    def has_audio(self, clip_id: str) -> bool:
        """Tells whether both files of a clip are there."""
        original = self.folder / self.rows[clip_id]["original_file_name"]
        return self.path(clip_id).exists() and original.exists()

    def pair(self, clip_id: str) -> AdversarialClip:
        """Reads both files of a clip.

        Raises ``InvalidInput`` where a file is damaged or its length differs from the original's.
        """
        return read_clip(self.folder, self.rows[clip_id])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A victim's or generator's card and its training curve, one list per column."""

    name: str
    card: Mapping[str, Any]
    curve: Mapping[str, Sequence[float]]


def read_sets(run: Path) -> list[StoredSet]:
    """Reads the sets of a run; of a cross-validation, those of all folds as one each."""
    folds = fold_folders(run)
    if not folds:
        return [StoredSet.read(p) for p in finished_folders(run / "adversarial", "metadata.csv")]
    by_key: dict[Key, list[StoredSet]] = {}
    for fold in folds:
        for stored in read_sets(fold):
            by_key.setdefault(stored.key, []).append(stored)
    return [_pooled_set(run, sets) for sets in by_key.values()]


def _pooled_set(run: Path, sets: Sequence[StoredSet]) -> StoredSet:
    rows = {
        clip_id: {
            **row,
            **{name: str((stored.folder / row[name]).relative_to(run)) for name in FILES},
        }
        for stored in sets
        for clip_id, row in stored.rows.items()
    }
    return StoredSet(folder=run, card=sets[0].card, rows=rows)


def read_models(run: Path, kind: str) -> list[StoredModel]:
    """Reads the victims or generators of a run.

    A victim of a cross-validation has the mean scores of its folds. Generators of folds stand one by
    one, each with the number of its fold. Neither has a curve.
    """
    folds = fold_folders(run)
    if not folds:
        return [_read_model(path, kind) for path in finished_folders(run / f"{kind}s")]
    named = [(fold.name, model) for fold in folds for model in read_models(fold, kind)]
    if kind != "victim":
        return [
            StoredModel(name=f"{model.name} (fold {number})", card=model.card, curve={})
            for number, model in named
        ]
    by_name: dict[str, list[StoredModel]] = {}
    for _, model in named:
        by_name.setdefault(model.name, []).append(model)
    return [
        StoredModel(name=name, card={**models[0].card, **_mean_scores(models)}, curve={})
        for name, models in by_name.items()
    ]


def _mean_scores(models: Sequence[StoredModel]) -> dict[str, float]:
    scores = [k for k, v in models[0].card.items() if isinstance(v, float) and k.startswith("test")]
    scores += [k for k in ("dev_uar", "dev_accuracy") if k in models[0].card]
    return {key: fmean(float(model.card[key]) for model in models) for key in scores}


def fold_folders(run: Path) -> list[Path]:
    """The finished folds of a run in their order; none if it is no cross-validation."""
    numbered = [p for p in finished_folders(run / FOLDS, "recipe.toml") if p.name.isdigit()]
    return sorted(numbered, key=lambda path: int(path.name))


def _read_model(folder: Path, kind: str) -> StoredModel:
    card, path = storage.read_card(folder, kind), folder / "training.csv"
    curve: dict[str, list[float]] = {}
    if path.is_file():
        with expect_format(path):
            for row in csv.DictReader(io.StringIO(read_text(path), newline="")):
                for key, value in row.items():
                    curve.setdefault(key, []).append(float(value) if value else math.nan)
    return StoredModel(name=str(card.get("name") or folder.name), card=card, curve=curve)


def finished_folders(parent: Path, also: str = storage.CARD) -> list[Path]:
    """Returns the folders below ``parent`` that have a card, which is written last, and ``also``."""
    if not parent.is_dir():
        return []
    return sorted(
        path
        for path in parent.iterdir()
        if (path / storage.CARD).is_file() and (path / also).is_file()
    )


@contextmanager
def expect_format(path: Path) -> Iterator[None]:
    """Turns a missing key or a wrong type in a file into the error that names the file."""
    try:
        yield
    except KeyError as problem:
        raise InvalidInput(f"lacks {problem}", where=path, remedy=REMEDY) from problem
    except (TypeError, ValueError, AttributeError) as problem:
        what = f"not as staanet writes it ({problem})"
        raise InvalidInput(what, where=path, remedy=REMEDY) from problem


def read_text(path: Path) -> str:
    """Reads a file of text; raises ``InvalidInput`` where it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise InvalidInput(f"cannot be read ({problem})", where=path, remedy=REMEDY) from problem
