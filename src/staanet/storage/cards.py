"""``card.json``: the kind of a folder, the versions that wrote it, and its inputs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from staanet.errors import InvalidInput, printable
from staanet.storage.strict_json import read_json, write_json

T = TypeVar("T")

SCHEMA = 1

CARD = "card.json"


def write_card(folder: Path | str, card: Mapping[str, Any]) -> None:
    """Write ``card.json``: ``card`` (with its ``kind``) and the versions that made it."""
    assert isinstance(card.get("kind"), str), "a card says what it describes"
    write_json(Path(folder) / CARD, {**card, "schema": SCHEMA, **_versions()})


def read_card(folder: Path | str, kind: str) -> dict[str, Any]:
    """The card of a folder that holds a ``kind`` (``victim``, ``generator``, ``run`` ...).

    Raises ``InvalidInput`` where there is none, it is damaged, of another kind, or newer.
    """
    path = Path(folder)
    remedy = (
        f"Give the folder of {_a(kind)} that staanet wrote; pickles (.pt, .bin) are never loaded"
    )
    if not os.path.lexists(path):
        raise InvalidInput("no such folder", where=folder, remedy=remedy)
    if not path.is_dir():
        raise InvalidInput(f"a file, not a staanet {kind} folder", where=folder, remedy=remedy)
    if not os.path.lexists(path / CARD):
        raise InvalidInput(
            f"not a staanet {kind} folder; no {CARD} in it", where=folder, remedy=remedy
        )
    card = read_json(path / CARD)
    if not isinstance(card, dict):
        raise InvalidInput("not a card: not a JSON object", where=path / CARD, remedy=remedy)
    schema = card.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise InvalidInput("not a card: it names no schema", where=path / CARD, remedy=remedy)
    kind_in_card = printable(str(card.get("kind")))[:40]
    if schema > SCHEMA:
        raise InvalidInput(
            f"{_a(kind_in_card)} of schema {schema}; this staanet knows schema {SCHEMA}",
            where=path / CARD,
            remedy="Install a newer staanet",
        )
    if card.get("kind") != kind:
        raise InvalidInput(f"holds {_a(kind_in_card)}, not {_a(kind)}", where=folder, remedy=remedy)
    return card


def _a(kind: str) -> str:
    thing = "adversarial set" if kind == "adversarial" else kind
    return f"an {thing}" if thing[:1] in "aeiou" else f"a {thing}"


def holds(folder: Path | str, kind: str) -> bool:
    """Whether a folder's card has the kind ``kind``; False where there is no readable card."""
    try:
        return bool(read_card(folder, kind))
    except InvalidInput:
        return False


def _versions() -> dict[str, str]:
    try:
        version = metadata.version("staanet")
    except metadata.PackageNotFoundError:
        version = "0+unknown"
    kind_in_card = {"staanet": version, "python": platform.python_version()}
    for name in ("numpy", "torch"):
        if name in sys.modules:
            kind_in_card[name] = str(sys.modules[name].__version__)
    return kind_in_card


def build_from_card(build: Callable[[], T], folder: Path | str) -> T:
    """Returns ``build()``, whose arguments come from a card; an error of it is reported as a wrong card.

    >>> build_from_card(lambda: 3, "victims/emo18")
    3
    """
    try:
        return build()
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        raise InvalidInput(
            f"describes nothing that can be built ({type(error).__name__}: "
            f"{printable(str(error))[:200]})",
            where=Path(folder) / CARD,
            remedy="Copy the folder again, or train again",
        ) from error
