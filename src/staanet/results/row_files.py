"""Reads and writes the rows of a table, a dict per row, as CSV and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.errors import InvalidInput, printable
from staanet.storage.lazy_rows import TextTable

_ROWS_AT_ONCE = 1000


def read_csv(path: Path, columns: Sequence[str]) -> Sequence[dict[str, str]]:
    """Reads the rows of a CSV file, which has at least these columns.

    A row becomes a dict only when it is used. Raises ``InvalidInput`` where the file cannot be read or
    lacks a column.
    """
    try:
        text = storage.read_bytes(path).decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        names = reader.fieldnames or ()
        missing = [column for column in columns if column not in names]
        if missing:
            raise InvalidInput(
                f"lacks the columns {', '.join(missing)}", where=path, remedy="Make the set again"
            )
        rows = TextTable(names)
        for row in reader:
            rows.append({key: value or "" for key, value in row.items() if key is not None})
    except (UnicodeDecodeError, csv.Error) as problem:
        raise InvalidInput(
            f"cannot be read ({problem})", where=path, remedy="Make the set again"
        ) from problem
    return rows.rows()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes rows as a CSV file, atomically and some rows at a time; see ``csv_text``."""
    remaining = iter(rows)
    with storage.FileWriter(path) as file:
        text = csv_text(columns, islice(remaining, _ROWS_AT_ONCE))
        while text:
            file.write(text.encode("utf-8", "backslashreplace"))
            text = _cells(columns, islice(remaining, _ROWS_AT_ONCE))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Returns rows as CSV text; text that a spreadsheet would run as a formula is escaped.

    >>> csv_text(["a", "b"], [{"a": "=cmd", "b": "-1.5"}])
    "a,b\\n'=cmd,-1.5\\n"
    """
    return _lines([columns]) + _cells(columns, rows)


def _cells(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    return _lines([_escape_formula(row.get(column, "")) for column in columns] for row in rows)


def _lines(cells: Iterable[Sequence[object]]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(cells)
    return out.getvalue()


def _escape_formula(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as a Parquet file, atomically.

    A column of Parquet has one type. So a column with text and numbers is written as text, such as the
    epsilons ``"-20 dB"`` and 2.0.
    """
    import pandas

    frame = pandas.DataFrame([dict(row) for row in rows])
    for name in frame.columns:
        if any(isinstance(value, str) for value in frame[name]):
            frame[name] = frame[name].where(frame[name].isna(), frame[name].map(str))
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    storage.write_bytes(path, buffer.getvalue())


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a Parquet file; raises ``InvalidInput`` for any other file."""
    import pyarrow
    from pyarrow import parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as problem:
        raise InvalidInput(
            f"cannot be read ({printable(str(problem))[:200]})", where=path, remedy="Evaluate again"
        ) from problem
    return rows
