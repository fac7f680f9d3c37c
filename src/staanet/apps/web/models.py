"""Which models and example clips lie in given folders: runs, or what is shipped with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import Victim
from staanet.defences import Defended
from staanet.errors import InvalidInput, MissingExtra, StaaNetError
from staanet.results import adversarial_set
from staanet.storage.pretrained import ROOT
from staanet.transforms import parse_transform
from staanet.victims import joint_sha256, lacking

_DEPTHS = ("card.json", "*/card.json", "*/*/card.json", "*/*/*/card.json")
_EXAMPLES = 12


@dataclass(frozen=True, slots=True)
class ModelLibrary:
    """Victims by name, the generators trained against them, clean clips to try."""

    victims: Mapping[str, Path]
    generators: Mapping[str, Path] = field(default_factory=dict)
    """By the name of the victim that a generator was trained against."""
    epsilons: Mapping[str, float] = field(default_factory=dict)
    """What each generator was trained for."""
    examples: Mapping[str, Path] = field(default_factory=dict)
    """Clean clips, by what to call them."""
    left_out: Mapping[str, MissingExtra] = field(default_factory=dict)
    """Victims that take a package that is not installed."""


def shipped() -> list[Path]:
    """Folders of models inside the package; empty where none are shipped."""
    return [ROOT] if ROOT.is_dir() else []


def read_shelf(folders: Sequence[Path]) -> ModelLibrary:
    """What lies in ``folders`` up to three levels deep, told by each ``card.json``.

    A generator counts where the victims it was trained against, by the sha256 of their weights, are
    there too; victims that take a package that is not installed are left out. Raises ``InvalidInput``
    for a folder that is not there.
    """
    victims: dict[str, Path] = {}
    weights: dict[str, str] = {}
    learned: list[tuple[Mapping[str, Any], Path]] = []
    examples: dict[str, Path] = {}
    left_out: dict[str, MissingExtra] = {}
    for root in folders:
        if not root.is_dir():
            raise InvalidInput("no such folder", where=root, remedy="Give the folder of a run")
        for place in _cards(root):
            card = storage.read_json(place / storage.CARD)
            kind = card.get("kind") if isinstance(card, dict) else None
            if kind == "victim":
                if (why := lacking(place)) is not None:
                    left_out.setdefault(place.name, why)
                    continue
                name = _free(place.name, root, victims)
                victims[name] = place
                weights.setdefault(str(card.get("sha256")), name)
            elif kind == "generator":
                learned.append((card, place))
            elif kind == "adversarial" and not examples:
                examples = _examples(place)
    known: dict[str, tuple[Mapping[str, Any], Path]] = {}
    for card, place in sorted(learned, key=lambda found: -len(found[0].get("sources") or ())):
        for name in _sources(card, weights):  # one of its own, which comes later, comes first
            known[name] = (card, place)
    return ModelLibrary(
        victims,
        {name: place for name, (_, place) in known.items()},
        {name: float(card["epsilon"]) for name, (card, _) in known.items() if card.get("epsilon")},
        examples,
        left_out,
    )


def _sources(card: Mapping[str, Any], weights: Mapping[str, str]) -> list[str]:
    """Which victims (their names by sha256 in ``weights``) a generator was trained against; all or none."""
    whole = str(card.get("source_sha256"))
    if whole in weights:
        return [weights[whole]]
    named = [str(source) for source in card.get("sources") or ()]
    hashes = {name: sha256 for sha256, name in weights.items()}
    if not named or not all(name in hashes for name in named):
        return []
    return named if joint_sha256([hashes[name] for name in named]) == whole else []


def _cards(root: Path) -> list[Path]:
    return [card.parent for depth in _DEPTHS for card in sorted(root.glob(depth))]


def _free(name: str, root: Path, taken: Mapping[str, Path]) -> str:
    """A name that no other victim has.

    >>> _free("emo18", Path("runs/b"), {"emo18": Path()})
    'emo18 of b'
    """
    if name in taken:
        name = f"{name} of {root.resolve().name}"
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} {number}"
    return free


def _examples(folder: Path) -> dict[str, Path]:
    """One clean clip per class and speaker first, so that few of them show much."""
    try:
        rows = adversarial_set.read_rows(folder)
    except StaaNetError:
        return {}
    chosen: dict[str, Path] = {}
    seen: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: row["id"]):
        label, path = row["label"] or "unlabelled", folder / row["original_file_name"]
        if seen.get(label, 0) < 3 and path.is_file() and len(chosen) < _EXAMPLES:
            seen[label] = seen.get(label, 0) + 1
            chosen[f"{label}, speaker {row['speaker']} ({row['id']})"] = path
    return chosen


def defended(victim: Victim, name: str) -> Victim:
    """``victim`` behind the defence ``name`` with its usual settings."""
    return Defended(victim, (parse_transform(name),)).eval()
