"""A manifest: one row per audio file with its label and speaker, as CSV or JSON lines.

Rows are counted as a spreadsheet counts them: the header of a CSV file is row 1.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from staanet.errors import InvalidInput, printable

MANIFESTS = ("metadata.csv", "metadata.jsonl")
COLUMNS: dict[str, tuple[str, ...]] = {
    "file": ("file", "path", "file_name"),
    "label": ("label", "emotion", "class"),
    "speaker": ("speaker", "speaker_id", "actor"),
    "sex": ("sex", "gender"),
}
NEEDED = ("file", "label")
SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}
MAX_ROWS = 1_000_000
MAX_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One line: ``file`` from the manifest's folder on, below it; an unknown speaker is ``""``."""

    number: int
    file: str
    label: str
    speaker: str
    sex: str | None


def read_manifest(path: Path) -> tuple[list[Row], list[str]]:
    """All rows, and what was unusual about the file.

    Raises ``InvalidInput`` with the row for text that is not UTF-8, missing columns, uneven rows,
    files outside the manifest's folder, empty cells where a word is due.
    """
    readers = {".csv": _csv_records, ".jsonl": _json_records}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(
            "is no folder and no manifest", where=path, remedy="Give a folder, a .csv or a .jsonl"
        )
    records = reader(_text(path), path)
    rows: list[Row] = []
    used: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for number, record in records:
        if not rows:
            used, others = _columns(list(record), path)
        if len(rows) == MAX_ROWS:
            _refuse(path, number, f"more than {MAX_ROWS} rows", "Split the manifest")
        rows.append(_row(number, record, used, path))
    if not rows:
        _refuse(path, None, "holds no rows", f"Columns wanted: {_wanted()}")
    return rows, [f"column '{name}' not used, '{used[kind]}' is" for kind, name in others]


# ---------------------------------------------------------------- text to records


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            _refuse(path, None, f"is larger than {MAX_BYTES} bytes", "Split the manifest")
        data = path.read_bytes()
    except OSError as problem:
        raise InvalidInput(f"cannot be read ({problem.strerror})", where=path) from problem
    if b"\0" in data.partition(b"\n")[0]:  # UTF-16, with or without a byte order mark
        _refuse(path, None, "row 1 not UTF-8", "save as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        row = data.count(b"\n", 0, problem.start) + 1
        _refuse(path, None, f"row {row} not UTF-8", "save as UTF-8")


def _csv_records(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                _columns(header, path)
            elif len(cells) != len(header):
                _refuse(
                    path,
                    number,
                    f"{len(cells)} cells, the header has {len(header)}",
                    "Quote cells that hold commas",
                )
            else:
                yield number, dict(zip(header, cells, strict=True))
    except csv.Error as problem:
        _refuse(path, number + 1, f"is not CSV ({problem})", "Mend its quotes")


def _json_records(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_unique)
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


# ---------------------------------------------------------------- records to rows


def _columns(names: Sequence[str], path: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The column that is used for each kind, and further ones that could have been."""
    used: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for kind, aliases in COLUMNS.items():
        found = [name for alias in aliases for name in names if name.casefold() == alias]
        if len(set(map(str.casefold, found))) < len(found):
            _refuse(path, None, f"has the column '{found[0]}' twice", "Leave one of them")
        if found:
            used[kind] = found[0]
            others += [(kind, name) for name in found[1:]]
    missing = [kind for kind in NEEDED if kind not in used]
    if missing:
        shown = ", ".join(printable(name) for name in names[:20])
        separator = next((s for s in (";", "\t", "|") if len(names) == 1 and s in names[0]), None)
        hint = (
            f"; it seems to be separated by {separator!r}: save it with commas" if separator else ""
        )
        _refuse(
            path,
            None,
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
        if kind == "speaker" and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            _refuse(path, number, f"the {kind} is {json.dumps(value)[:40]}", "A word is due there")
        return value

    _refuse_segment(number, record, path)
    label = cell("label")
    if not label.strip():
        _refuse(path, number, "the label is empty", "Name the class")
    sex = SEXES.get(cell("sex").strip().casefold())
    return Row(number, _inside(cell("file"), number, path), label, cell("speaker").strip(), sex)


def _refuse_segment(number: int, record: Mapping[str, Any], path: Path) -> None:
    """audformat's tables may cut files into segments by the columns start and end."""
    start, end = (str(record.get(name) or "").strip() for name in ("start", "end"))
    if re.search(r"[1-9]", start) or re.search(r"[1-9]", end):
        _refuse(path, number, "is a part of a file", "Save each part as a file of its own")


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
