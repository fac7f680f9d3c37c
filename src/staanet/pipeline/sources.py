"""Finds the victim again that a generator or a vector was trained against."""

from __future__ import annotations

import os.path
from pathlib import Path

from staanet import storage
from staanet.core import Victim
from staanet.errors import InvalidInput, printable
from staanet.victims import SCHEMES, load_victims, victim_folder


def source_of(folder: Path, kind: str = "generator") -> Victim:
    """Loads the victim that a generator or a vector was trained against, found through its card.

    Raises ``InvalidInput`` if the victim is gone, or was trained again since.
    """
    card = storage.read_card(folder, kind)
    names = [str(name) for name in card.get("source_folders") or [card.get("source_folder", "")]]
    origins = [_origin(name, folder) for name in names]
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
    """How a victim is named, with its path seen from ``folder``; a model of the hub by its name."""
    scheme, path = _split(victim.origin)
    if scheme == "hf" and not Path(path).exists():
        return victim.origin
    relative = os.path.relpath(Path(victim_folder(path)).resolve(), folder.resolve())
    return f"{scheme}:{Path(relative).as_posix()}" if scheme else Path(relative).as_posix()


def _origin(name: str, folder: Path) -> Path | str:
    """How the victim is named from here that a card in ``folder`` calls ``name``."""
    scheme, path = _split(name)
    if scheme == "hf" and not (folder / path).exists():
        return name
    if scheme == "python":
        raise InvalidInput(
            f"its source is the Python file {printable(path)}, and no card runs code",
            where=folder,
            remedy="Pass --source python:FILE.py:FACTORY, if you trust that file",
        )
    return f"{scheme}:{folder / path}" if scheme else folder / path


def _split(name: str) -> tuple[str, str]:
    """A name's scheme, empty for a folder, and its path."""
    scheme, colon, path = name.partition(":")
    return (scheme, path) if colon and scheme in SCHEMES else ("", name)
