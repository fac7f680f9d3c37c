"""Databases of audb (https://audeering.github.io/audb): versioned tables and audio from a repository.

``audb:NAME[@VERSION][:TABLE[:COLUMN]]``, such as ``audb:emodb@1.4.1:emotion:emotion``. Where labels are
numbers, there may be several columns: ``audb:NAME:TABLE:arousal,valence``. Only labels, speakers and the labelled files are fetched, from the repositories and into the cache that audb is configured for (``~/.config/audb.yaml``, ``AUDB_CACHE_ROOT``). audb keeps pickles of its own in that
cache: use no cache that others can write to.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from staanet.core import Corpus
from staanet.corpora.dimensions import (
    CLASSIFICATION,
    DIMENSION_COLUMNS,
    check_dimension,
    label_of_cells,
)
from staanet.corpora.manifest import COLUMNS, SEXES
from staanet.corpora.records import RowProblem
from staanet.corpora.row_corpus import build_from_rows
from staanet.corpora.rows import Listing, Row
from staanet.errors import InvalidInput, StorageFault, printable, unknown_name

REQUEST = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)(?:@(?P<version>[A-Za-z0-9][\w.+-]*))?"
    r"(?::(?P<table>[^:]+)(?::(?P<column>[^:]+))?)?",
    re.ASCII,
)
FORM = "audb:NAME@VERSION:TABLE:COLUMN"
CONFIGURED = "Check the name, and audb's repositories and cache in ~/.config/audb.yaml"
LABEL_COLUMNS = ("label", "emotion", "class")
NUMERIC = ("float", "int")
"""Types of a scheme whose values are numbers."""
Key = tuple[str, float, float | None]
"""File, start and end (None: the file's) in seconds."""


@dataclass(frozen=True, slots=True)
class AudbRequest:
    """The parts of ``NAME[@VERSION][:TABLE[:COLUMN]]``; None where we choose.

    >>> parse("emodb@1.4.1:emotion")
    AudbRequest(name='emodb', version='1.4.1', table='emotion', column=None)
    """

    name: str
    version: str | None
    table: str | None
    column: str | None

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        parts = [part for part in (self.table, self.column) if part]
        return ":".join([f"audb:{self.name}{version}", *parts])


def parse(text: str) -> AudbRequest:
    """Return the parts of a request; ``InvalidInput`` for another form."""
    match = REQUEST.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"'audb:{printable(text[:200])}' names no database",
            remedy=f"Write {FORM}; only NAME is needed",
        )
    return AudbRequest(**match.groupdict())


def read_audb(
    request_path: Path, label_map: Mapping[str, str] | None = None, task: str = CLASSIFICATION
) -> Corpus:
    """Read the database that the text of ``request_path`` names, its files in audb's cache.

    Without a version the newest is used, without a column ``label``, ``emotion`` or ``class``; a
    note says so. Where the task is ``regression``, labels are the numbers of the columns that are named,
    or of those called as ``DIMENSION_COLUMNS`` has them. Raises ``InvalidInput`` where the package audb, the database, its version, table
    or column is not there.
    """
    audb = import_audb()
    request = parse(str(request_path))
    with _audb_errors(str(request)):
        version, notes = _resolve_version(audb, request)
        header = audb.info.header(request.name, version=version, load_tables=False)
    is_regression = task != CLASSIFICATION
    choose = _number_columns if is_regression else _label_column
    table, columns = choose(header, replace(request, version=version))
    resolved = AudbRequest(request.name, version, table, ",".join(columns.values()))
    speaker_table, speaker_column = _speaker_column(header, table)
    with _audb_errors(str(resolved)):
        database = audb.load(
            request.name,
            version=version,
            tables=sorted({table, speaker_table} - {""}),
            only_metadata=True,
            pickle_tables=False,
            full_path=False,
            verbose=False,
        )
    listing = Listing(where=Path(str(resolved)), root=Path(), notes=notes)
    listing.dimensions = tuple(columns) if is_regression else ()
    cells = {name: _cells(database, table, column) for name, column in columns.items()}
    unlabelled = _add_rows(listing, database, cells, speaker_table, speaker_column)
    files = sorted({row.file for row in listing.rows})
    if not files:
        raise InvalidInput("labels no file", where=resolved, remedy="Name another table or column")
    with _audb_errors(str(resolved)):
        paths = audb.load_media(request.name, files, version=version, num_workers=4, verbose=False)
    listing.root = Path(paths[0]).parents[len(Path(files[0]).parts) - 1]
    if resolved != request:
        listing.notes.append(f"read as {resolved}")
    if unlabelled:
        listing.notes.append(f"rows without a label left out: {unlabelled}")
    return build_from_rows(listing, "labelled audio files", name=str(resolved), label_map=label_map)


def import_audb() -> Any:
    """Return the package audb; ``InvalidInput`` gives the command that installs it."""
    try:
        import audb
    except ImportError as problem:
        raise InvalidInput(
            "databases of audb need the package audb", remedy='pip install "staanet[audb]"'
        ) from problem
    return audb


@contextmanager
def _audb_errors(where: str) -> Iterator[None]:
    """Turn any error of audb, its backends or the network into one line with a remedy."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as problem:
        text = printable(" ".join(str(problem).split()) or type(problem).__name__)[:240]
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFault(
                text, where=where, remedy="Free space in audb's cache, run again"
            ) from problem
        raise InvalidInput(
            f"cannot be loaded ({text})", where=where, remedy=CONFIGURED
        ) from problem


def _resolve_version(audb: Any, request: AudbRequest) -> tuple[str, list[str]]:
    """Return the requested version, or the newest; the cache serves without a repository."""
    import audeer

    roots = [Path(audb.default_cache_root(shared)) / request.name for shared in (False, True)]
    cached = {header.parts[-3] for root in roots for header in root.glob("*/*/db.yaml")}
    if request.version in cached:
        return str(request.version), []
    try:
        published = [str(version) for version in audb.versions(request.name)]
    except Exception:
        if request.version or not cached:
            raise
        published = []
    versions = [*audeer.sort_versions(list(cached - set(published))), *published]
    if not versions:
        raise InvalidInput(
            "no such database in audb's repositories or cache", where=request, remedy=CONFIGURED
        )
    if request.version is None:
        newest = versions[-1]
        return newest, [f"the newest version is used; '@{newest}' after the name pins it"]
    if request.version not in versions:
        raise unknown_name("version", request.version, versions, where=f"audb:{request.name}")
    return request.version, []


# ---------------------------------------------------------------- which columns


def _columns(header: Any) -> list[tuple[str, str]]:
    return [(table, column) for table in header.tables for column in header.tables[table].columns]


def _columns_within(header: Any, request: AudbRequest) -> list[tuple[str, str]]:
    """Return the columns of the table that is named, or of all."""
    if request.table and request.table not in header.tables:
        raise unknown_name("table", request.table, header.tables, where=f"audb:{request.name}")
    return [(t, c) for t, c in _columns(header) if request.table in (None, t)]


def _require_column(within: list[tuple[str, str]], request: AudbRequest, column: str) -> None:
    if (str(request.table), column) not in within:
        raise unknown_name("column", column, [name for _, name in within], where=request)


def _label_column(header: Any, request: AudbRequest) -> tuple[str, dict[str, str]]:
    """Return table and column of the labels; raise ``InvalidInput`` where they are ambiguous."""
    within = _columns_within(header, request)
    if request.column:
        _require_column(within, request, request.column)
        return str(request.table), {"label": request.column}
    usual = [(t, c) for alias in LABEL_COLUMNS for t, c in within if c.casefold() == alias]
    same_name = [(t, c) for t, c in usual if t == c]
    for choice in (usual, same_name, within):
        if len(choice) == 1:
            return choice[0][0], {"label": choice[0][1]}
    shown = ", ".join(f"{t}:{c}" for t, c in (usual or within)[:20])
    raise InvalidInput(
        f"has {len(usual) or 'no'} columns named {' or '.join(LABEL_COLUMNS)}",
        where=request,
        remedy=f"Write {FORM} with one of these: {printable(shown) or 'none'}",
    )


def _number_columns(header: Any, request: AudbRequest) -> tuple[str, dict[str, str]]:
    """Return the table of the numbers, and their columns by name of the number.

    Raises ``InvalidInput`` where a column is not there, or no table or several have usual names.
    """
    within = _columns_within(header, request)
    if request.column:
        columns = [column.strip() for column in request.column.split(",")]
        for column in columns:
            _require_column(within, request, column)
            check_dimension(_dimension(column) or column)
        named = {_dimension(column) or column: column for column in columns}
        if len(named) < len(columns):
            raise InvalidInput(
                f"names the same number twice ({printable(request.column)})",
                where=request,
                remedy="Leave one of the columns out",
            )
        return str(request.table), named
    numeric = [(t, c) for t, c in within if _is_numeric(header, t, c)]
    usual: dict[str, dict[str, str]] = {}
    for table, column in numeric:
        if name := _dimension(column):
            usual.setdefault(table, {}).setdefault(name, column)
    if len(usual) == 1:
        return next(iter(usual.items()))
    shown = ", ".join(f"{t}:{c}" for t, c in numeric[:20])
    raise InvalidInput(
        f"has {len(usual) or 'no'} tables with numbers named {', '.join(DIMENSION_COLUMNS)}",
        where=request,
        remedy=f"Write {FORM}, or several columns with commas between them; columns of numbers: "
        f"{printable(shown) or 'none'}",
    )


def _dimension(column: str) -> str | None:
    """Return the number that a column of this name usually holds.

    >>> _dimension("Act"), _dimension("mos")
    ('arousal', None)
    """
    folded = column.casefold()
    return next((name for name, words in DIMENSION_COLUMNS.items() if folded in words), None)


def _is_numeric(header: Any, table: str, column: str) -> bool:
    """Return whether the scheme of a column holds numbers, and no codes of labels."""
    scheme = header.schemes.get(header.tables[table].columns[column].scheme_id)
    return scheme is not None and scheme.labels is None and scheme.dtype in NUMERIC


def _speaker_column(header: Any, label_table: str) -> tuple[str, str]:
    """Return table and column, the label's table first, then those of whole files; ``""`` for none."""
    candidates = [
        (table != label_table, not header.tables[table].is_filewise, table, column)
        for table, column in _columns(header)
        if column.casefold() in COLUMNS["speaker"]
    ]
    return min(candidates)[2:] if candidates else ("", "")


# ---------------------------------------------------------------- tables to rows


Cells = dict[Key, str | None]


def _add_rows(
    listing: Listing,
    database: Any,
    cells: Mapping[str, Cells],
    speaker_table: str,
    speaker_column: str,
) -> int:
    """Add the labelled rows; returns how many have no label.

    ``cells`` are those of the label, or of each number by its name.
    """
    has_speakers = bool(speaker_table)
    speakers = _cells(database, speaker_table, speaker_column) if has_speakers else {}
    sexes = _sexes(database, speaker_table, speaker_column) if has_speakers else {}
    file_speakers = _file_speakers(speakers)
    unlabelled = 0
    for number, key in enumerate(next(iter(cells.values())), start=1):
        file, start, end = key
        source = f"{listing.where}:{number}"
        values = {name: column[key] for name, column in cells.items()}
        if all(value is None for value in values.values()):
            unlabelled += 1
            continue
        try:
            label = _label_of(values, listing.dimensions)
            if start < 0 or (end is not None and end <= start):
                what = f"the part of {printable(file)} from {start:.9g} s to {end} s has no length"
                raise RowProblem(what, "Name another table, or correct it in a new version")
        except RowProblem as problem:
            listing.put_aside(source, problem.what, problem.remedy)
            continue
        speaker = speakers.get(key) or file_speakers.get(file) or ""
        listing.rows.append(Row(source, file, label, speaker, sexes.get(speaker), start, end))
    listing.require_rows()
    return unlabelled


def _label_of(values: Mapping[str, str | None], dimensions: Sequence[str]) -> str:
    """Return the label of a row, which may be numbers."""
    if dimensions:
        return label_of_cells(values, {name: name for name in dimensions})
    return str(values["label"])


def _cells(database: Any, table: str, column: str) -> Cells:
    """Return the values of a column, as text, by file or part of a file."""
    import pandas as pd

    values: Cells = {}
    for index, value in database[table].df[column].items():
        file, start, end = index if isinstance(index, tuple) else (index, None, None)
        first = 0.0 if start is None or pd.isna(start) else start.total_seconds()
        last = None if end is None or pd.isna(end) else end.total_seconds()
        values[str(file), first, last] = None if pd.isna(value) else str(value)
    return values


def _file_speakers(speakers: Mapping[Key, str | None]) -> dict[str, str]:
    """Return the speaker of each file that has only one."""
    by_file: dict[str, set[str]] = {}
    for (file, _, _), speaker in speakers.items():
        by_file.setdefault(file, set()).update({speaker} if speaker else ())
    return {file: names.pop() for file, names in by_file.items() if len(names) == 1}


def _sexes(database: Any, table: str, column: str) -> dict[str, str]:
    """Return the sex of each speaker, as the scheme of the speaker column has it."""
    scheme = database.schemes.get(database[table].columns[column].scheme_id)
    labels = getattr(scheme, "labels", None)
    if isinstance(labels, str):  # the name of a table without files
        labels = database[labels].df.to_dict("index")
    sexes: dict[str, str] = {}
    for speaker, properties in labels.items() if isinstance(labels, dict) else ():
        for name in COLUMNS["sex"]:
            value = properties.get(name) if isinstance(properties, dict) else None
            if sex := SEXES.get(str(value).strip().casefold()):
                sexes[str(speaker)] = sex
    return sexes
