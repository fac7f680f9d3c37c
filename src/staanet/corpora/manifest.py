"""A manifest: one row per audio file, or part of one, as CSV, JSON lines or Parquet.

Columns as people name them, as in the ``metadata`` file of an audiofolder (``file_name``), or as in a
table of audformat (``file,start,end``). Rows are counted as a spreadsheet counts them: the header of
a CSV file is row 1; the first row of a Parquet file is row 1.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO

from staanet.core.protocols import part_named
from staanet.corpora.rows import Row, Rows
from staanet.errors import InvalidInput, printable

MANIFESTS = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
COLUMNS: dict[str, tuple[str, ...]] = {
    "file": ("file", "path", "file_name"),
    "label": ("label", "emotion", "class"),
    "speaker": ("speaker", "speaker_id", "actor"),
    "sex": ("sex", "gender"),
    "start": ("start", "start_s"),
    "end": ("end", "end_s"),
    "split": ("split", "part"),
    "content": ("content", "sentence", "transcription", "text"),
}
NEEDED = ("file", "label")
SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}
MAX_ROWS = 1_000_000
MAX_BYTES = 512 * 2**20
MAX_WORD = 200  # characters of a label or a speaker
MAX_DIGITS = 30
_BLOCK = 2**20


def read_manifest(path: Path) -> tuple[Rows, list[str]]:
    """All rows, and what was unusual about the file.

    Raises ``InvalidInput`` with the row for text that is not UTF-8, missing columns, uneven rows,
    files outside the manifest's folder, empty cells where a word is due, times that are none.
    """
    readers = {".csv": _csv_records, ".jsonl": _json_records, ".parquet": _parquet_records}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(
            "is no folder and no manifest",
            where=path,
            remedy="Give a folder, or a .csv, .jsonl or .parquet",
        )
    rows = Rows()
    names: list[str] | None = None
    used: dict[str, str] = {}
    notes: dict[str, None] = {}
    for number, record in reader(path):
        if list(record) != names:  # only the objects of JSON lines may differ
            names = list(record)
            used, others = _columns(names, path, number)
            notes |= {f"column '{n}' not used, '{used[kind]}' is": None for kind, n in others}
        if len(rows) == MAX_ROWS:
            _refuse(path, number, f"more than {MAX_ROWS} rows", "Split the manifest")
        rows.append(_row(number, record, used, path))
    if not rows:
        _refuse(path, None, "holds no rows", f"Columns wanted: {_wanted()}")
    return rows, list(notes)


# ---------------------------------------------------------------- bytes to records


def _checked(path: Path) -> Path:
    """A file that may be read as a manifest."""
    try:
        if path.stat().st_size > MAX_BYTES:
            _refuse(path, None, f"is larger than {MAX_BYTES} bytes", "Split the manifest")
    except OSError as problem:
        raise InvalidInput(f"cannot be read ({problem.strerror})", where=path) from problem
    return path


@contextlib.contextmanager
def _text(path: Path, newline: str) -> Iterator[TextIO]:
    """The file as text, a line at a time; ``InvalidInput`` where any of it is not UTF-8."""
    try:
        with open(_checked(path), "rb") as stream:
            if b"\0" in stream.readline(_BLOCK):  # UTF-16, with or without a byte order mark
                _refuse(path, None, "row 1 not UTF-8", "save as UTF-8")
            stream.seek(0)
            _check_utf8(stream, path)
        with open(path, encoding="utf-8-sig", newline=newline) as text:
            yield text
    except OSError as problem:
        raise InvalidInput(f"cannot be read ({problem.strerror})", where=path) from problem


def _check_utf8(stream: BinaryIO, path: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    row = 1
    try:
        while block := stream.read(_BLOCK):
            decoder.decode(block)
            row += block.count(b"\n")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as problem:
        row += problem.object.count(b"\n", 0, problem.start)
        _refuse(path, None, f"row {row} not UTF-8", "save as UTF-8")


def _csv_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
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
                    _columns(header, path)
                elif len(cells) != len(header):
                    said = f"{len(cells)} cells, the header has {len(header)}"
                    _refuse(path, number, said, "Quote cells that hold commas")
                else:
                    yield number, dict(zip(header, cells, strict=True))
        except csv.Error as problem:
            _refuse(path, number + 1, f"is not CSV ({problem})", "Mend its quotes")


def _json_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with _text(path, newline="\n") as text:
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, object_pairs_hook=_unique, parse_int=_integer)
            except (ValueError, RecursionError) as problem:
                _refuse(path, number, f"is not JSON ({problem})", "Write one object per line")
            if not isinstance(record, dict):
                _refuse(path, number, "is not a JSON object", "Write one object per line")
            yield number, record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _parquet_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Only the columns that are used, a batch at a time; durations as seconds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = _checked(path).read_bytes()
    except OSError as problem:
        raise InvalidInput(f"cannot be read ({problem.strerror})", where=path) from problem
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        used, others = _columns(file.schema_arrow.names, path)
        wanted = [*used.values(), *(name for _, name in others)]
        number = 0
        for batch in file.iter_batches(batch_size=10_000, columns=wanted):
            columns = {name: _cells(batch.column(name)) for name in wanted}
            for place in range(batch.num_rows):
                number += 1
                yield number, {name: cells[place] for name, cells in columns.items()}
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as problem:
        said = printable(" ".join(str(problem).split()))[:200]
        _refuse(path, None, f"is not a readable Parquet file ({said})", "Write the manifest again")


def _cells(column: Any) -> list[Any]:
    import pyarrow as pa

    if not pa.types.is_duration(column.type):
        values: list[Any] = column.to_pylist()
        return values
    ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    counts = column.cast(pa.int64()).to_pylist()
    return [None if count is None else count / ticks for count in counts]


# ---------------------------------------------------------------- records to rows


def _columns(
    names: Sequence[str], path: Path, number: int | None = None
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The column that is used for each kind, and further ones that could have been."""
    used: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for kind, aliases in COLUMNS.items():
        found = [name for alias in aliases for name in names if name.casefold() == alias]
        if len(set(map(str.casefold, found))) < len(found):
            twice = next(n for n in found if [*map(str.casefold, found)].count(n.casefold()) > 1)
            _refuse(path, number, f"has the column '{twice}' twice", "Leave one of them")
        if found:
            used[kind] = found[0]
            others += [(kind, name) for name in found[1:]]
    missing = [kind for kind in NEEDED if kind not in used]
    if missing:
        shown = ", ".join(printable(name[:40]) for name in names[:20])
        separator = next((s for s in (";", "\t", "|") if len(names) == 1 and s in names[0]), None)
        hint = (
            f"; it seems to be separated by {separator!r}: save it with commas" if separator else ""
        )
        _refuse(
            path,
            number,
            f"has no column '{missing[0]}'",
            f"Columns found: {shown}; wanted: {_wanted()}{hint}",
        )
    return used, others


def _wanted() -> str:
    return ", ".join(
        f"{names[0]} (or {', '.join(names[1:])}{'' if kind in NEEDED else '; optional'})"
        for kind, names in COLUMNS.items()
    )


def _row(number: int, record: Mapping[str, Any], used: Mapping[str, str], path: Path) -> Row:
    def cell(kind: str) -> str:
        value = record.get(used.get(kind, ""))
        if value is None:
            return ""
        if kind in ("speaker", "split") and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            _refuse(path, number, f"the {kind} is {_shown(value)}", "A word is due there")
        return value

    def time(kind: str) -> float | None:
        value = record.get(used.get(kind, ""))
        try:
            return seconds(value)
        except ValueError:
            said = f"the {kind} is {_shown(value)}, no time"
            _refuse(path, number, said, "Write seconds, such as 1.2 or 0 days 00:00:01.2")

    label = cell("label")
    if not label.strip():
        _refuse(path, number, "the label is empty", "Name the class")
    for kind in ("label", "speaker"):
        if len(cell(kind)) > MAX_WORD:
            said = f"the {kind} has {len(cell(kind))} characters; at most {MAX_WORD} are taken"
            _refuse(path, number, said, "Shorten it")
    start, end = time("start") or 0.0, time("end")
    if end is not None and end <= start:
        said = f"its part ends at {end:.9g} s but starts at {start:.9g} s"
        _refuse(path, number, said, "Write an end after the start, or none for the end of the file")
    return Row(
        place=f"{path}:{number}",
        file=_inside(cell("file"), number, path),
        label=label,
        speaker=cell("speaker").strip(),
        sex=SEXES.get(cell("sex").strip().casefold()),
        start_s=start,
        end_s=end,
        part=part_named(cell("split")) or None,
        content=_content(record.get(used.get("content", ""))),
    )


def _content(value: object) -> str:
    """A code or a text; a column of that name which holds anything else tells no content.

    >>> _content(" a01 "), _content(7), _content(["a01"]), _content(None)
    ('a01', '7', '', '')
    """
    plain = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip() if plain else ""


NUMBER = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
CLOCK = re.compile(r"(?:([0-9]+) days?)? *(?:\+?([0-9]+):([0-5][0-9]):([0-5][0-9](?:\.[0-9]+)?))?")


def seconds(value: object) -> float | None:
    """A time as a number of seconds, as text, or as pandas writes it; None where there is none.

    Raises ``ValueError`` for what is no time, negative or not finite.

    >>> seconds("0 days 00:01:01.2"), seconds("1.25"), seconds(3), seconds("NaT")
    (61.2, 1.25, 3.0, None)
    """
    if value is None or (isinstance(value, str) and value.strip() in ("", "NaT")):
        return None
    if isinstance(value, str):
        text = value.strip()
        if NUMBER.fullmatch(text):
            found = float(text)
        elif clock := CLOCK.fullmatch(text):
            days, hours, minutes, rest = (float(part or 0) for part in clock.groups())
            found = 86_400 * days + 3_600 * hours + 60 * minutes + rest
        else:
            raise ValueError(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value) if abs(value) < 1e12 else math.inf
    else:
        raise ValueError(repr(value)[:40])
    if not 0 <= found < 1e9:  # also false for NaN
        raise ValueError(str(found))
    return found


def _shown(value: object) -> str:
    """A cell as an error shows it.

    >>> _shown("x" * 99), _shown([1.5]), _shown(float("nan"))
    ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'", '[1.5]', 'NaN')
    """
    if isinstance(value, str):
        return f"'{printable(value[:40])}'"
    return json.dumps(value, default=str)[:40]


def _inside(file: str, number: int, path: Path) -> str:
    """The path from the manifest's folder on; ``InvalidInput`` where it leads out of there."""
    if not file.strip():
        _refuse(path, number, "the file is empty", "Name the audio file")
    if impossible(file):
        return file
    root = path.parent
    slashed = file.replace("\\", "/") if "\\" in file and not os.path.lexists(root / file) else file
    if slashed.startswith("/"):
        slashed = os.path.relpath(slashed, root.absolute())
    plain = os.path.normpath(slashed)
    home = slashed.startswith("~") and "/" in slashed
    if home or plain in (".", "..") or plain.startswith("../") or re.match("[A-Za-z]:/", slashed):
        _refuse(
            path,
            number,
            f"'{printable(file)}' is outside the corpus root",
            "Put the manifest into the folder that holds the files",
        )
    return plain


def impossible(file: str) -> bool:
    """No file can have this name (NUL, half a surrogate pair): it is put aside when it is read."""
    try:
        return b"\0" in os.fsencode(file)
    except UnicodeEncodeError:
        return True


def _refuse(path: Path, number: int | None, what: str, remedy: str) -> NoReturn:
    where = str(path) if number is None else f"{path}:{number}"
    raise InvalidInput(what, where=where, remedy=remedy)
