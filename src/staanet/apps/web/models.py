"""Finds the models and example clips that the page offers, in runs and inside the package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import Victim, require_classes
from staanet.defences import Defended
from staanet.errors import InvalidInput, MissingExtra, StaaNetError
from staanet.results import adversarial_set
from staanet.storage.pretrained import ROOT
from staanet.transforms import parse_transform
from staanet.victims import joint_sha256, load_victim, missing_extra

_DEPTHS = ("card.json", "*/card.json", "*/*/card.json", "*/*/*/card.json")
_EXAMPLES = 12


@dataclass(frozen=True, slots=True)
class ModelLibrary:
    """The models and clips that the page offers."""

    victims: Mapping[str, Path | str]
    generators: Mapping[str, Path] = field(default_factory=dict)
    """By the name of the victim that a generator was trained against."""
    examples: Mapping[str, Path] = field(default_factory=dict)
    """Clean clips by their titles."""
    left_out: Mapping[str, MissingExtra] = field(default_factory=dict)
    """Victims that need a package that is not installed."""
    named: Sequence[str] = ()
    """Victims that the visitor gave by name; the page begins with the first."""


def shipped_folders() -> list[Path]:
    """Returns the folders of models inside the package; empty where none are shipped."""
    return [ROOT] if ROOT.is_dir() else []


def read_library(folders: Sequence[Path], specs: Sequence[str] = ()) -> ModelLibrary:
    """Reads the models in ``folders``, up to three levels deep, by their ``card.json``.

    ``specs`` name further victims as ``load_victim`` takes them; they are loaded at once and come first.

    A generator counts where the victims of its training, by the sha256 of their weights, are there
    too. Victims that need a missing package are left out. Raises ``InvalidInput`` for a folder that
    does not exist, and for a spec that is no classifier.
    """
    victims: dict[str, Path | str] = {}
    for spec in specs:
        victim = load_victim(spec)
        require_classes([victim], "the page")
        victims[_unique_name(victim.name, Path(spec), victims)] = spec
    named = tuple(victims)
    weights: dict[str, str] = {}
    generators: list[tuple[Mapping[str, Any], Path]] = []
    examples: dict[str, Path] = {}
    left_out: dict[str, MissingExtra] = {}
    for root in folders:
        if not root.is_dir():
            raise InvalidInput("no such folder", where=root, remedy="Give the folder of a run")
        for folder in _model_folders(root):
            card = storage.read_json(folder / storage.CARD)
            kind = card.get("kind") if isinstance(card, dict) else None
            if kind == "victim":
                if (missing := missing_extra(folder)) is not None:
                    left_out.setdefault(folder.name, missing)
                    continue
                name = _unique_name(folder.name, root, victims)
                victims[name] = folder
                weights.setdefault(str(card.get("sha256")), name)
            elif kind == "generator":
                generators.append((card, folder))
            elif kind == "adversarial" and not examples:
                examples = _examples(folder)
    by_victim: dict[str, Path] = {}
    for card, folder in sorted(generators, key=lambda item: -len(item[0].get("sources") or ())):
        for name in _sources(card, weights):  # a generator of this victim alone comes last and wins
            by_victim[name] = folder
    return ModelLibrary(victims, by_victim, examples, left_out, named)


def _sources(card: Mapping[str, Any], weights: Mapping[str, str]) -> list[str]:
    """The victims of a generator's training (names by sha256 in ``weights``); all of them or none."""
    joint = str(card.get("source_sha256"))
    if joint in weights:
        return [weights[joint]]
    sources = [str(source) for source in card.get("sources") or ()]
    hashes = {name: sha256 for sha256, name in weights.items()}
    if not sources or not all(name in hashes for name in sources):
        return []
    return sources if joint_sha256([hashes[name] for name in sources]) == joint else []


def _model_folders(root: Path) -> list[Path]:
    return [card.parent for depth in _DEPTHS for card in sorted(root.glob(depth))]


def _unique_name(name: str, root: Path, taken: Mapping[str, object]) -> str:
    """A name that no other victim has.

    >>> _unique_name("emo18", Path("runs/b"), {"emo18": Path()})
    'emo18 of b'
    """
    if name in taken:
        name = f"{name} of {root.resolve().name}"
    number, unique = 2, name
    while unique in taken:
        number, unique = number + 1, f"{name} {number}"
    return unique


def _examples(folder: Path) -> dict[str, Path]:
    """Up to three clean clips of each class."""
    try:
        rows = adversarial_set.read_rows(folder)
    except StaaNetError:
        return {}
    examples: dict[str, Path] = {}
    counts: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: row["id"]):
        label, path = row["label"] or "unlabelled", folder / row["original_file_name"]
        if counts[label] < 3 and path.is_file() and len(examples) < _EXAMPLES:
            counts[label] += 1
            examples[f"{label}, speaker {row['speaker']} ({row['id']})"] = path
    return examples


def with_defence(victim: Victim, name: str) -> Victim:
    """Returns ``victim`` behind the defence ``name`` with its default settings."""
    return Defended(victim, (parse_transform(name),)).eval()
