"""Labels that are numbers: which columns hold them, and the corpus that has them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from staanet.config import SplitRecipe, default_of
from staanet.core import Corpus, Utterance
from staanet.core.dimensions import DIMENSIONS, dimension_label
from staanet.corpora.files import omission_notes
from staanet.corpora.records import RowProblem
from staanet.errors import InvalidInput, printable, unknown_name

CLASSIFICATION = str(default_of(SplitRecipe, "task"))
TASKS = (CLASSIFICATION, "regression")
DIMENSION_COLUMNS: dict[str, tuple[str, ...]] = {
    "arousal": ("arousal", "activation", "aro", "act", "emoact"),
    "dominance": ("dominance", "dom", "emodom"),
    "valence": ("valence", "val", "emoval"),
}
"""Columns of these names hold the numbers where the caller names none."""
_WORD = re.compile(r"[^\s=+-][^\s=]{0,39}")


def check_task(task: str) -> None:
    """Raise ``InvalidInput`` for a word that is none of ``TASKS``."""
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)


def check_dimension(name: str) -> None:
    """Raise ``InvalidInput`` where a number cannot be called so.

    >>> check_dimension("mos")
    """
    if _WORD.fullmatch(name) is None:
        raise InvalidInput(
            f"'{printable(name[:50])}' cannot be the name of a number",
            remedy="Write a word without spaces and signs, such as --column mos=COLUMN",
        )


def dimension_kinds(
    columns: Mapping[str, str], others: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return the columns of numbers by name: those that ``columns`` names beside ``others``, or the usual.

    >>> dimension_kinds({"file": "wav", "mos": "score"}, {"file": ("file",)})
    {'mos': ('score',)}
    >>> dimension_kinds({"arousal": "Act"}, {})
    {'arousal': ('Act',)}
    """
    named: dict[str, tuple[str, ...]] = {
        kind: (column,) for kind, column in columns.items() if kind not in others
    }
    return named or DIMENSION_COLUMNS


def label_of_cells(record: Mapping[str, object], columns: Mapping[str, str]) -> str:
    """Return the label of a row whose numbers stand in these columns, by name of the number.

    Raises ``RowProblem`` where a cell holds none.

    >>> label_of_cells({"act": "3.50", "file": "a.wav"}, {"arousal": "act"})
    'arousal=3.5'
    """
    values = {}
    for name, column in columns.items():
        cell = record.get(column)
        number = math.nan
        if isinstance(cell, str | int | float) and not isinstance(cell, bool):
            try:
                number = float(cell)
            except ValueError:
                number = math.nan
        if not math.isfinite(number):
            what = f"the {name} is {printable(str(cell))[:40]!r}, no number"
            raise RowProblem(what, "Write a number there")
        values[name] = number
    return dimension_label(values)


def with_dimensions(
    corpus: Corpus,
    dimensions: Sequence[str],
    values: Callable[[Utterance], Mapping[str, float] | None] | None = None,
) -> Corpus:
    """Return the corpus whose labels are numbers, with another name, so that no card is taken for that of classes.

    Args:
        corpus: The clips.
        dimensions: The numbers by name.
        values: Gives the numbers of a clip, or None where it has none; such clips are left out with a
            note. None: the labels are numbers already.

    >>> clip = Utterance("a", None, "joy", "s")
    >>> with_dimensions(Corpus("two", (clip,), ("joy",)), ["rate"], lambda u: {"rate": 2.0}).utterances[0].label
    'rate=2'
    """
    utterances: Sequence[Utterance] = corpus.utterances
    notes = corpus.notes
    if values is not None:
        numbers = [(u, values(u)) for u in corpus.utterances]
        utterances = tuple(replace(u, label=dimension_label(v)) for u, v in numbers if v)
        notes += omission_notes([u.id for u, v in numbers if not v], "without a number")
    return replace(
        corpus,
        name=f"{corpus.name} by numbers",
        utterances=utterances,
        labels=tuple(sorted(dimensions)),
        notes=notes,
        classes=DIMENSIONS,
    )


def refuse_dimensions(kind: str, kinds: Sequence[str]) -> None:
    """Raise the ``InvalidInput`` of a corpus that has no numbers."""
    raise InvalidInput(
        f"the corpus '{kind}' has classes and no numbers",
        remedy=f"Give a manifest with columns of numbers, as folder:FILE, or one of {', '.join(kinds)}",
    )
