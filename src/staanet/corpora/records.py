"""Reads the records of a manifest as a stream, from CSV, JSON lines, a JSON list, or Parquet.

Rows are counted as a spreadsheet counts them: the header of a CSV file is row 1, while the first
row of a Parquet file or JSON list is row 1. A record that cannot be read is given as its problem;
the others are read.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO

from staanet.errors import InvalidInput, printable

MAX_BYTES = 512 * 2**20
MAX_DIGITS = 30
BLOCK = 2**20


class RowProblem(Exception):
    """Why a single row cannot be used, and what mends it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


@dataclass(frozen=True, slots=True)
class EmbeddedSound:
    """A cell with embedded audio: the row of its Parquet file, and the name of the audio."""

    row: int
    name: str


Record = Mapping[str, Any] | RowProblem
CheckColumns = Callable[[Sequence[str]], object]
"""Refuses a header without the columns that are needed."""


@dataclass(frozen=True, slots=True)
class ParquetColumns:
    """Columns of a Parquet file that need special treatment."""

    sounds: tuple[str, ...] = ()
    """Columns that hold the sound itself, as Hugging Face ``datasets`` writes it."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of columns of class numbers: the names of the classes, in order."""


def refuse(path: Path, number: int | None, what: str, remedy: str) -> NoReturn:
    """Raise the ``InvalidInput`` of a file, or of one of its rows."""
    where = str(path) if number is None else f"{path}:{number}"
    raise InvalidInput(what, where=where, remedy=remedy)


@contextlib.contextmanager
def _opened(path: Path, max_bytes: float = MAX_BYTES) -> Iterator[BinaryIO]:
    """Open a file that may be read as a manifest."""
    try:
        if path.stat().st_size > max_bytes:
            refuse(path, None, f"is larger than {MAX_BYTES} bytes", "Split the manifest")
        with open(path, "rb") as stream:
            yield stream
    except OSError as problem:
        raise InvalidInput(f"cannot be read ({problem.strerror})", where=path) from problem


@contextlib.contextmanager
def _text(path: Path, newline: str) -> Iterator[TextIO]:
    """Open a file as text, a line at a time; ``InvalidInput`` where any of it is not UTF-8."""
    with _opened(path, MAX_BYTES) as stream:
        if b"\0" in stream.readline(BLOCK):  # UTF-16, with or without a byte order mark
            refuse(path, None, "row 1 not UTF-8", "save as UTF-8")
        stream.seek(0)
        _check_utf8(stream, path)
        with open(path, encoding="utf-8-sig", newline=newline) as text:
            yield text


def _check_utf8(stream: BinaryIO, path: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    row = 1
    try:
        while block := stream.read(BLOCK):
            decoder.decode(block)
            row += block.count(b"\n")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as problem:
        row += problem.object.count(b"\n", 0, problem.start)
        refuse(path, None, f"row {row} not UTF-8", "save as UTF-8")


def csv_records(path: Path, check: CheckColumns) -> Iterator[tuple[int, Record]]:
    """Yield row number and record of each row of a CSV file that is not empty."""
    header: list[str] = []
    number = 0
    with _text(path, newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            for number, cells in enumerate(reader, start=1):
                if not any(cell.strip() for cell in cells):
                    continue
                if not header:
                    header = [cell.strip() for cell in cells]
                    check(header)
                elif len(cells) != len(header):
                    what = f"{len(cells)} cells, the header has {len(header)}"
                    yield number, RowProblem(what, "Quote cells that hold commas")
                else:
                    yield number, dict(zip(header, cells, strict=True))
        except csv.Error as problem:
            refuse(path, number + 1, f"is not CSV ({problem})", "Mend its quotes")


def json_line_records(path: Path, check: CheckColumns) -> Iterator[tuple[int, Record]]:
    """Yield line number and record of each line of JSON; each may have other keys."""
    with _text(path, newline="\n") as text:
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield number, _json_record(line)


def _json_record(text: str) -> Record:
    try:
        return _as_record(_DECODER.decode(text))
    except (ValueError, RecursionError) as problem:
        return RowProblem(f"is not JSON ({problem})", "Write one object per line")


def _as_record(value: object) -> Record:
    if isinstance(value, dict):
        return value
    return RowProblem("is not a JSON object", "Write an object with the columns as keys")


def json_records(path: Path, check: CheckColumns) -> Iterator[tuple[int, Record]]:
    """Yield number and record of each entry of one JSON document.

    The document is a list of objects, or an object whose values are the entries, as SpeechBrain and
    EmoBox write them. Entries are decoded one after another. Raises ``InvalidInput`` where the
    document as a whole is no JSON, or names an entry twice.
    """
    with _text(path, newline="\n") as file:
        text = file.read()
    number = 0
    try:
        start = _skip(text, 0)
        if text[start : start + 1] not in ("[", "{"):
            refuse(path, None, "is no JSON list of entries", "Write a list of objects")
        for number, value in enumerate(_json_entries(text, start), start=1):
            yield number, _as_record(value)
    except (ValueError, RecursionError, IndexError) as problem:
        what = f"is not JSON ({' '.join(str(problem).split())[:100]})"
        refuse(path, number + 1, what, "Write the list again")


_SPACE = re.compile(r"[ \t\r\n]*")


def _skip(text: str, start: int) -> int:
    """Return the position of the next character that is not white space."""
    space = _SPACE.match(text, start)
    assert space is not None  # it matches the empty text too
    return space.end()


def _json_entries(text: str, start: int) -> Iterator[object]:
    """Yield the entries of the list or object that begins at ``start``; ``ValueError`` for no JSON."""
    is_object, keys = text[start] == "{", set[int]()
    end = "}" if is_object else "]"
    position = _skip(text, start + 1)
    has_more = text[position] != end
    while has_more:
        if is_object:
            key, position = _DECODER.raw_decode(text, position)
            if not isinstance(key, str) or text[position := _skip(text, position)] != ":":
                raise ValueError("a key and ':' are due")
            if hash(key) in keys:
                raise ValueError(f"the entry '{printable(key)[:40]}' stands twice")
            keys.add(hash(key))
            position = _skip(text, position + 1)
        value, position = _DECODER.raw_decode(text, position)
        yield value
        position = _skip(text, position)
        has_more = text[position] == ","
        if has_more:
            position = _skip(text, position + 1)
        elif text[position] != end:
            raise ValueError(f"',' or '{end}' is due")
    if _skip(text, position + 1) != len(text):
        raise ValueError("more follows its end")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key stands twice")
    return record


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer)


# ---------------------------------------------------------------- Parquet


def parquet_columns(path: Path) -> tuple[list[str], ParquetColumns]:
    """Return the columns of a Parquet file, and which hold sound or numbered classes."""
    with _parquet(path) as file:
        return list(file.schema_arrow.names), _special_columns(file)


def parquet_records(
    path: Path, columns: Sequence[str], special: ParquetColumns
) -> Iterator[tuple[int, Record]]:
    """Yield number and record of each row, with these columns only, a batch at a time.

    Sound is not read: its cell is an ``EmbeddedSound``. Durations are seconds, class numbers names.
    """
    leaves = [f"{name}.path" if name in special.sounds else name for name in columns]
    number = 0
    with _parquet(path) as file:
        for batch in file.iter_batches(batch_size=10_000, columns=leaves):
            cells = {
                name: _cells(batch.column(name), special.classes.get(name)) for name in columns
            }
            for index in range(batch.num_rows):
                number += 1
                record = {name: values[index] for name, values in cells.items()}
                for name in special.sounds:
                    if name in record:
                        inner = (record[name] or {}).get("path") or ""
                        record[name] = EmbeddedSound(number - 1, str(inner))
                yield number, record


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file; only one that holds sound may be larger than other manifests."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _opened(path, float("inf")) as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            if not _special_columns(file).sounds and path.stat().st_size > MAX_BYTES:
                refuse(path, None, f"is larger than {MAX_BYTES} bytes", "Split the manifest")
            yield file
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as problem:
        what = printable(" ".join(str(problem).split()))[:200]
        refuse(path, None, f"is not a readable Parquet file ({what})", "Write the manifest again")


def _special_columns(file: Any) -> ParquetColumns:
    """Find columns of sound by their fields, and names of classes as ``datasets`` writes them."""
    import pyarrow as pa

    sounds = []
    for column in file.schema_arrow:
        fields = {f.name for f in column.type} if pa.types.is_struct(column.type) else set()
        if {"bytes", "path"} <= fields:
            sounds.append(column.name)
    classes: dict[str, Sequence[str]] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        metadata = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])
        for name, feature in metadata["info"]["features"].items():
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
                classes[name] = [str(word) for word in feature["names"]]
    return ParquetColumns(tuple(sounds), classes)


def _cells(column: Any, names: Sequence[str] | None) -> list[Any]:
    """Return the values of a column; durations as seconds, class numbers as their names."""
    import pyarrow as pa

    if pa.types.is_duration(column.type):
        ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
        counts = column.cast(pa.int64()).to_pylist()
        return [None if count is None else count / ticks for count in counts]
    values: list[Any] = column.to_pylist()
    if names is None:
        return values
    return [
        names[v] if isinstance(v, int) and 0 <= v < len(names) else None if v == -1 else v
        for v in values
    ]
