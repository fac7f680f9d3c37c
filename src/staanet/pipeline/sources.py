"""Finds the victim again that a generator or a vector was trained against."""

from __future__ import annotations

import os.path
from pathlib import Path

from staanet import storage
from staanet.core import Victim
from staanet.errors import InvalidInput
from staanet.victims import load_victims, victim_folder


def source_of(folder: Path, kind: str = "generator") -> Victim:
    """Loads the victim that a generator or a vector was trained against, found through its card.

    Raises ``InvalidInput`` if the victim is gone, or was trained again since.
    """
    card = storage.read_card(folder, kind)
    names = [str(name) for name in card.get("source_folders") or [card.get("source_folder", "")]]
    origins = [name if name.startswith("hf:") else folder / name for name in names]
    for origin in origins:
        if isinstance(origin, Path) and not (origin / storage.CARD).exists():
            raise InvalidInput(
                f"its source '{card.get('source')}' is not at {origin}",
                where=folder,
                remedy="Pass --source VICTIM",
            )
    victim = load_victims(origins)
    if victim.sha256 != card.get("source_sha256"):
        raise InvalidInput(
            f"its source at {', '.join(names)} was trained again since",
            where=folder,
            remedy=f"Train the {kind} again, or pass --source VICTIM",
        )
    return victim


def relative_origin(victim: Victim, folder: Path) -> str:
    """Where a victim lies, seen from ``folder``; a model of the hub by its name."""
    if victim.origin.startswith("hf:"):
        return victim.origin
    origin = Path(victim_folder(victim.origin)).resolve()
    return Path(os.path.relpath(origin, folder.resolve())).as_posix()
