"""Rows of labelled audio in compact memory, and the utterances made from them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from staanet.core import Utterance
from staanet.corpora.files import UNKNOWN
from staanet.errors import InvalidInput, first_names, printable
from staanet.storage.lazy_rows import CategoryColumn, Indices, TextColumn

MAX_REASONS = 1000
"""The largest number of omitted rows whose reasons are kept; further ones are only counted."""
LOUD_SHARE = 0.01
"""The share of omitted rows above which a warning is shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a manifest, or one file of a class folder.

    ``source`` is where an error says that the row stands. ``file`` is below the root. An unknown
    speaker is ``""``. ``start_s`` and ``end_s`` (None: the file's end) bound the part of the file.
    ``part`` is the part of the manifest's own split, ``content`` what is said, as a code or as
    words. ``inner_name`` is what the sound is called where the file holds many.
    """

    source: str
    file: str
    label: str
    speaker: str
    sex: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    part: str | None = None
    content: str = ""
    inner_name: str = ""

    @property
    def key(self) -> str:
        """The same for rows of the same part of a file: its path, if it is all of the file."""
        return part_key(self.file, self.start_s, self.end_s)

    @property
    def name(self) -> str:
        """The source of the id: the path, and the times in ms for a part of a file.

        >>> Row("m.csv:2", "a/x.wav", "joy", "s", start_s=1.2, end_s=2.5).name
        'a/x_1200-2500.wav'
        """
        return part_name(self.inner_name or self.file, self.start_s, self.end_s)


def part_key(file: str, start_s: float, end_s: float | None) -> str:
    """Return ``Row.key``."""
    is_whole = start_s == 0 and end_s is None
    return file if is_whole else f"{file}\0{start_s!r}\0{end_s!r}"


def part_name(file: str, start_s: float, end_s: float | None) -> str:
    """Return ``Row.name``."""
    if start_s == 0 and end_s is None:
        return file
    stem, dot, suffix = file.rpartition(".")
    end = "end" if end_s is None else f"{1000 * end_s:.0f}"
    times = f"_{1000 * start_s:.0f}-{end}"
    return f"{stem}{times}.{suffix}" if dot and "/" not in suffix else f"{file}{times}"


class Rows(Sequence[Row]):
    """Rows as columns: each takes some 70 bytes and its texts.

    >>> rows = Rows([Row("list.csv:2", "a.wav", "joy", "s")])
    >>> rows[0].label, rows.source(0), len(rows)
    ('joy', 'list.csv:2', 1)
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.files, self.contents, self.inner_names = TextColumn(), TextColumn(), TextColumn()
        self.labels, self.speakers, self.sexes, self.parts = (
            CategoryColumn(),
            CategoryColumn(),
            CategoryColumn(),
            CategoryColumn(),
        )
        self.starts, self.ends = array("d"), array("d")
        self._sources, self._lines = CategoryColumn(), array("q")
        for row in rows:
            self.append(row)

    def append(self, row: Row) -> None:
        """Add a row."""
        file, colon, line = row.source.rpartition(":")
        has_line = bool(colon) and line.isascii() and line.isdigit() and str(int(line[:18])) == line
        self._sources.append(file if has_line else row.source)
        self._lines.append(int(line) if has_line else -1)
        self.files.append(row.file)
        self.inner_names.append(row.inner_name)
        self.contents.append(row.content)
        self.labels.append(row.label)
        self.speakers.append(row.speaker)
        self.sexes.append(row.sex)
        self.parts.append(row.part)
        self.starts.append(row.start_s)
        self.ends.append(math.nan if row.end_s is None else row.end_s)

    def source(self, index: int) -> str:
        """Return the position of a row, for errors."""
        line = self._lines[index]
        return f"{self._sources[index]}" if line < 0 else f"{self._sources[index]}:{line}"

    def key(self, index: int) -> str:
        """Return ``Row.key`` of a row."""
        return part_key(self.files[index], self.starts[index], self.end_s(index))

    def name(self, index: int) -> str:
        """Return ``Row.name`` of a row."""
        file = self.inner_names[index] or self.files[index]
        return part_name(file, self.starts[index], self.end_s(index))

    def end_s(self, index: int) -> float | None:
        """Return where a row's part of its file ends; None at the file's end."""
        end = self.ends[index]
        return None if math.isnan(end) else end

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Row(
            self.source(index),
            self.files[index],
            self.labels[index] or "",
            self.speakers[index] or "",
            self.sexes[index],
            self.starts[index],
            self.end_s(index),
            self.parts[index],
            self.contents[index],
            self.inner_names[index],
        )


@dataclass
class Listing:
    """The rows of a manifest or of class folders, with warnings."""

    where: Path
    """The name of the listing in errors."""
    root: Path
    """The folder from which the rows name their files."""
    rows: Rows = field(default_factory=Rows)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    aside: list[tuple[str, str]] = field(default_factory=list)
    """Where rows stand that cannot be used, and why: the first ``MAX_REASONS``."""
    aside_count: int = 0
    first_remedy: str = ""
    dimensions: tuple[str, ...] = ()
    """The numbers that labels hold, by name; empty where they are classes."""

    def put_aside(self, source: str, what: str, remedy: str = "") -> None:
        """Count a row that cannot be used."""
        if not self.aside_count:
            self.first_remedy = remedy
        self.aside_count += 1
        if len(self.aside) < MAX_REASONS:
            self.aside.append((source, what))

    def require_rows(self, usable: int | None = None) -> None:
        """Raise ``InvalidInput`` with the first reason where all rows were omitted."""
        count = len(self.rows) if usable is None else usable
        if self.aside_count and not count:
            source, what = self.aside[0]
            others = f", and none of the {self.aside_count} rows can be used"
            raise InvalidInput(
                what + others * (self.aside_count > 1), where=source, remedy=self.first_remedy
            )

    def aside_messages(self, total: int) -> tuple[list[str], list[str]]:
        """Return the note on omitted rows or, for more than 1 % of ``total`` rows, the warning."""
        if not self.aside_count:
            return [], []
        reasons = [f"{Path(source).name} ({what})" for source, what in self.aside]
        more = self.aside_count - len(reasons)
        shown = first_names(reasons) + (f" and {more} others" if more else "")
        text = f"{self.aside_count} of {total} rows put aside: {shown}"
        is_loud = self.aside_count > LOUD_SHARE * total
        share = f"{100 * self.aside_count / total:.1f} % of the rows cannot be used. "
        return ([], [share + text]) if is_loud else ([text], [])


@dataclass(frozen=True)
class RowUtterances:
    """Makes the utterances of rows: number n has the id n and is of the row ``indices[n]``."""

    root: Path
    rows: Rows
    indices: Indices
    ids: TextColumn
    labels: Mapping[str | None, str | None]
    """Each label as written -> its class."""

    def build(self, number: int) -> Utterance:
        rows, index = self.rows, int(self.indices[number])
        return Utterance(
            self.ids[number],
            self.root / rows.files[index],
            self.labels[rows.labels[index]],
            speaker_name(rows.speakers[index]),
            rows.sexes[index],
            rows.starts[index],
            rows.end_s(index),
            rows.parts[index],
            rows.source(index),
            printable(rows.contents[index]) or None,
        )

    def getter(self, name: str) -> Callable[[int], Any] | None:
        if name == "id":
            return self.ids.__getitem__
        rows = self.rows
        columns: dict[str, tuple[CategoryColumn, Sequence[str | None]]] = {
            "label": (rows.labels, [self.labels.get(word) for word in rows.labels.categories]),
            "speaker": (rows.speakers, [speaker_name(word) for word in rows.speakers.categories]),
            "sex": (rows.sexes, rows.sexes.categories),
            "part": (rows.parts, rows.parts.categories),
        }
        if name not in columns:
            return None
        column, values = columns[name]
        return lambda number: values[column.codes[self.indices[number]]]


def speaker_name(word: str | None) -> str:
    """Return a speaker as an utterance names it."""
    return printable(word or "") or UNKNOWN
