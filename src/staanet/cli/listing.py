"""The command ``list``: prints the names of attacks, victims, corpora, transforms, recipes or models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from textwrap import shorten
from typing import Annotated

import typer

from staanet.cli import names
from staanet.cli.app import command
from staanet.cli.options import Output
from staanet.cli.printing import finish
from staanet.config import shipped_recipes
from staanet.errors import unknown_name
from staanet.storage import pretrained

LINE_WIDTH, MIN_TEXT_WIDTH = 140, 30
"""Characters of a line where output is no terminal, and the fewest for a description."""


def recipes() -> dict[str, str]:
    """Returns the shipped recipes by name, each with the comment in its first line."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in shipped_recipes().items()}
    return {name: text.partition("\n")[0].lstrip("# ") for name, text in texts.items()}


def models() -> dict[str, str]:
    """Returns the models in the package by name, each with the first sentence of its model card."""
    return {
        f"{pretrained.SCHEME}:{name}": _card_sentence(kind, name)
        for kind in ("victims", "generators")
        for name in pretrained.names(kind)
    }


def _card_sentence(kind: str, name: str) -> str:
    card = (pretrained.folder(kind, name) / "MODEL_CARD.md").read_text(encoding="utf-8")
    return names.first_sentence(card.partition("\n\n")[2])


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "attacks": lambda: names.descriptions("attacks/__init__.py", "ATTACKS"),
    "victims": lambda: names.descriptions("victims/__init__.py", "VICTIMS"),
    "corpora": lambda: names.descriptions("corpora/__init__.py", "CORPORA"),
    "transforms": lambda: names.descriptions("transforms/__init__.py", "TRANSFORMS"),
    "recipes": recipes,
    "models": models,
}


@command("list", "staanet list attacks")
def list_names(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="|".join(KINDS),
            help="Kind of names to list.",
            autocompletion=names.among(KINDS),
        ),
    ],
    output: Output,
) -> None:
    """List attacks, victims, corpora, transforms, recipes or models."""
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    entries = KINDS[kind]()
    width = max(map(len, entries), default=0)
    columns = shutil.get_terminal_size((LINE_WIDTH, 24)).columns
    text_width = max(MIN_TEXT_WIDTH, columns - width - 3)
    lines = [
        f"{name:<{width}}  {shorten(text, text_width, placeholder=' ...')}".rstrip()
        for name, text in entries.items()
    ]
    finish(output, {kind: entries}, lines)
