"""Finds the models and example clips that the web page offers, in folders of runs and in the package."""

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
    """The models and clips that the page offers; see ``read_library``."""

    victims: Mapping[str, Path | str]
    generators: Mapping[str, Path] = field(default_factory=dict)
    """The generator for each victim that one was trained against, by the victim's name."""
    examples: Mapping[str, Path] = field(default_factory=dict)
    """Clean clips by their titles."""
    left_out: Mapping[str, MissingExtra] = field(default_factory=dict)
    """Victims that need a package that is not installed."""
    requested: Sequence[str] = ()
    """Names of the victims of ``specs``; the page begins with the first."""


def shipped_folders() -> list[Path]:
    """Returns the folder of the models inside the package; empty where none are shipped."""
    return [ROOT] if ROOT.is_dir() else []


def read_library(folders: Sequence[Path], specs: Sequence[str] = ()) -> ModelLibrary:
    """Finds the models in ``folders``, up to three levels deep, by their ``card.json``.

    A generator is offered where all victims of its training are found, by the sha256 of their weights.
    Victims that need a missing package go to ``left_out``.

    Args:
        folders: Folders of runs or of models.
        specs: Further victims as ``load_victim`` takes them; they are loaded now and come first.

    Raises:
        InvalidInput: A folder does not exist, or a spec is no classifier.
    """
    victims: dict[str, Path | str] = {}
    for spec in specs:
        victim = load_victim(spec)
        require_classes([victim], "the page")
        victims[_unique_name(victim.name, Path(spec), victims)] = spec
    requested = tuple(victims)
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
    # generators of fewer victims come later and replace those of more
    for card, folder in sorted(generators, key=lambda item: -len(item[0].get("sources") or ())):
        by_victim |= dict.fromkeys(_training_victims(card, weights), folder)
    return ModelLibrary(victims, by_victim, examples, left_out, requested)


def _training_victims(card: Mapping[str, Any], weights: Mapping[str, str]) -> list[str]:
    """Returns the names of the victims that a generator was trained against, or none if one is missing.

    ``weights`` holds the names of victims by the sha256 of their weights.
    """
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
    """Returns a name that no other victim has.

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
    """Returns up to three clean clips of each class of an adversarial set, by their titles."""
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
