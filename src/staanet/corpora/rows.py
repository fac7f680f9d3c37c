"""Rows of labelled audio, a million of them in little memory, and the utterances that they name."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from staanet.core import Utterance
from staanet.corpora.files import UNKNOWN
from staanet.errors import printable
from staanet.storage.lazy_rows import Places, Texts, Words


@dataclass(frozen=True, slots=True)
class Row:
    """One line: ``file`` from the manifest's folder on, below it; an unknown speaker is ``""``.

    ``place`` is where an error says that it stands; ``start_s`` and ``end_s`` (None: the file's end)
    bound the part of the file; ``part`` is the part of the manifest's own split; ``content`` what is
    said there, as a code or as words.
    """

    place: str
    file: str
    label: str
    speaker: str
    sex: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    part: str | None = None
    content: str = ""

    @property
    def key(self) -> str:
        """The same for rows of the same part of a file: its path, if it is all of it."""
        return key_of(self.file, self.start_s, self.end_s)

    @property
    def name(self) -> str:
        """What its id is made of: the path, and the times in ms where it is a part of the file.

        >>> Row("m.csv:2", "a/x.wav", "joy", "s", start_s=1.2, end_s=2.5).name
        'a/x_1200-2500.wav'
        """
        return name_of(self.file, self.start_s, self.end_s)


def key_of(file: str, start_s: float, end_s: float | None) -> str:
    """``Row.key``."""
    whole = start_s == 0 and end_s is None
    return file if whole else f"{file}\0{start_s!r}\0{end_s!r}"


def name_of(file: str, start_s: float, end_s: float | None) -> str:
    """``Row.name``."""
    if start_s == 0 and end_s is None:
        return file
    stem, dot, suffix = file.rpartition(".")
    end = "end" if end_s is None else f"{1000 * end_s:.0f}"
    times = f"_{1000 * start_s:.0f}-{end}"
    return f"{stem}{times}.{suffix}" if dot and "/" not in suffix else f"{file}{times}"


class Rows(Sequence[Row]):
    """Rows as columns, in some 60 bytes and their texts each.

    >>> rows = Rows([Row("list.csv:2", "a.wav", "joy", "s")])
    >>> rows[0], len(rows)
    (Row(place='list.csv:2', file='a.wav', label='joy', speaker='s', sex=None, start_s=0.0, end_s=None, part=None, content=''), 1)
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.files, self.contents = Texts(), Texts()
        self.labels, self.speakers, self.sexes, self.parts = Words(), Words(), Words(), Words()
        self.starts, self.ends = array("d"), array("d")
        self._places, self._numbers = Words(), array("q")
        for row in rows:
            self.append(row)

    def append(self, row: Row) -> None:
        """Add one."""
        before, colon, after = row.place.rpartition(":")
        is_number = (
            bool(colon) and after.isascii() and after.isdigit() and str(int(after[:18])) == after
        )
        self._places.append(before if is_number else row.place)
        self._numbers.append(int(after) if is_number else -1)
        self.files.append(row.file)
        self.contents.append(row.content)
        self.labels.append(row.label)
        self.speakers.append(row.speaker)
        self.sexes.append(row.sex)
        self.parts.append(row.part)
        self.starts.append(row.start_s)
        self.ends.append(math.nan if row.end_s is None else row.end_s)

    def place(self, number: int) -> str:
        """Where an error says that a row stands."""
        line = self._numbers[number]
        return f"{self._places[number]}" if line < 0 else f"{self._places[number]}:{line}"

    def key(self, number: int) -> str:
        """``Row.key`` of a row."""
        return key_of(self.files[number], self.starts[number], self.end_s(number))

    def name(self, number: int) -> str:
        """``Row.name`` of a row."""
        return name_of(self.files[number], self.starts[number], self.end_s(number))

    def end_s(self, number: int) -> float | None:
        """Where a row's part of its file ends; None at the file's end."""
        end = self.ends[number]
        return None if math.isnan(end) else end

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, number: int) -> Row: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Row]: ...
    def __getitem__(self, number: int | slice) -> Row | Sequence[Row]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return Row(
            self.place(number),
            self.files[number],
            self.labels[number] or "",
            self.speakers[number] or "",
            self.sexes[number],
            self.starts[number],
            self.end_s(number),
            self.parts[number],
            self.contents[number],
        )


@dataclass(frozen=True)
class Spoken:
    """Makes the utterances of ``rows`` below ``root``: number n, of the id n, is of the row ``kept[n]``."""

    root: Path
    rows: Rows
    kept: Places
    ids: Texts
    labels: Mapping[str | None, str]
    """Each label as written -> as used."""

    def make(self, number: int) -> Utterance:
        rows, row = self.rows, int(self.kept[number])
        return Utterance(
            self.ids[number],
            self.root / rows.files[row],
            self.labels[rows.labels[row]],
            speaker_of(rows.speakers[row]),
            rows.sexes[row],
            rows.starts[row],
            rows.end_s(row),
            rows.parts[row],
            rows.place(row),
            printable(rows.contents[row]) or None,
        )

    def field(self, name: str) -> Callable[[int], Any] | None:
        if name == "id":
            return self.ids.__getitem__
        rows = self.rows
        columns: dict[str, tuple[Words, Sequence[str | None]]] = {
            "label": (rows.labels, [self.labels[word] for word in rows.labels.known]),
            "speaker": (rows.speakers, [speaker_of(word) for word in rows.speakers.known]),
            "sex": (rows.sexes, rows.sexes.known),
            "part": (rows.parts, rows.parts.known),
        }
        if name not in columns:
            return None
        column, told = columns[name]
        return lambda number: told[column.codes[self.kept[number]]]


def speaker_of(word: str | None) -> str:
    """A speaker as an utterance names it."""
    return printable(word or "") or UNKNOWN
