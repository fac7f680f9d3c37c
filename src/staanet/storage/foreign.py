"""Files in a folder of results that staanet did not write: no command ever replaces one.

A folder is staanet's own where an earlier command left its lock, a card or results. In any other folder
the files that are there before the first command are listed in ``.foreign.json`` and stay protected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from staanet.errors import InvalidInput
from staanet.storage.cards import CARD
from staanet.storage.files import storage_faults
from staanet.storage.strict_json import read_json, write_json

LOCK, FOREIGN = ".lock", ".foreign.json"
UNFINISHED = "unfinished.json"
"""Holds what unfinished work in a folder is made from, so that it never goes on with other inputs."""
MAX_FILES = 100_000
"""So many files of somebody else are kept in a list; a folder with more is refused."""
PAGE_MARK = b'<meta name="results" content="'
"""Holds the hash of the results that a report shows."""
RESULTS = ("summary.json", "results/summary.json")
NAMES = frozenset(
    [
        "audit.html",
        "audit.json",
        "card.json",
        "certificate.json",
        "certificates.csv",
        "curve.csv",
        "detector.json",
        "index.html",
        "journal.jsonl",
        "matrix.md",
        "metadata.csv",
        "model.safetensors",
        "quarantine.jsonl",
        "recipe.toml",
        "results.parquet",
        "seconds.csv",
        "study.db",
        "summary.json",
        "sweep.csv",
        "tables.md",
        "training.csv",
        "trials.csv",
        "unfinished.json",
    ]
)
"""What commands write at the top of their folder: a file of these names is refused before any work."""
_REMEDY = "Choose another --out, or move that file away"


def foreign_files(folder: Path, *, is_new: bool) -> list[Path]:
    """Returns the files in ``folder`` that staanet did not write.

    Args:
        folder: Where a command is about to write.
        is_new: Whether no command has worked there before; then the files are found, and listed on disk.

    Raises:
        InvalidInput: There are too many of them to keep a list.
    """
    listing = folder / FOREIGN
    if is_new and not listing.exists() and not _is_marked(folder):
        with storage_faults(folder):
            names = sorted(_names(folder))
        if names:
            write_json(listing, {"not_by_staanet": names})
    if not listing.is_file():
        return []
    raw = read_json(listing)
    listed = raw.get("not_by_staanet") if isinstance(raw, dict) else None
    return [folder / str(name) for name in listed or []]


def require_free_names(folder: Path, files: list[Path]) -> None:
    """Raises ``InvalidInput`` where one of ``files`` stands where a command writes its results."""
    for path in files:
        if path.parent == folder and path.name in NAMES and path.exists():
            raise InvalidInput("staanet did not write this file", where=path, remedy=_REMEDY)


def refuse_foreign(path: Path | str, signature: bytes) -> None:
    """Raises ``InvalidInput`` where a file is at ``path`` that does not hold ``signature``.

    For a command whose output is a single file, which no card or lock describes.
    """
    if os.path.lexists(path) and (not Path(path).is_file() or signature not in _content(path)):
        raise InvalidInput(
            "exists, and staanet did not write it", where=path, remedy="Choose another --out"
        )


def _content(path: Path | str) -> bytes:
    with storage_faults(Path(path)):
        return Path(path).read_bytes()


def _is_marked(folder: Path) -> bool:
    if (folder / UNFINISHED).is_file():
        return True
    page = folder / "index.html"
    if page.is_file() and PAGE_MARK in _content(page):
        return True
    return any(_has_schema(folder / name) for name in (CARD, *RESULTS))


def _has_schema(path: Path) -> bool:
    try:
        raw = read_json(path) if path.is_file() else None
    except InvalidInput:
        return False
    return isinstance(raw, dict) and "schema" in raw


def _names(folder: Path) -> Iterator[str]:
    count = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path == folder / LOCK:
                continue
            count += 1
            if count > MAX_FILES:
                raise InvalidInput(
                    f"holds more than {MAX_FILES} files that staanet did not write",
                    where=folder,
                    remedy="Choose a folder of its own with --out",
                )
            yield path.relative_to(folder).as_posix()
