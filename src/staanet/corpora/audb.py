"""Databases of audb (https://audeering.github.io/audb): versioned tables and audio from a repository.

``audb:NAME[@VERSION][:TABLE[:COLUMN]]``, such as ``audb:emodb@1.4.1:emotion:emotion``. Only labels,
speakers and the labelled files are fetched, from the repositories and into the cache that audb is
configured for (``~/.config/audb.yaml``, ``AUDB_CACHE_ROOT``). audb keeps pickles of its own in that
cache: use no cache that others can write to.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from staanet.core import Corpus
from staanet.corpora.folder import from_rows
from staanet.corpora.manifest import COLUMNS, SEXES
from staanet.corpora.rows import Row, Rows
from staanet.errors import InvalidInput, StorageFault, printable, unknown_name

WISH = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)(?:@(?P<version>[A-Za-z0-9][\w.+-]*))?"
    r"(?::(?P<table>[^:]+)(?::(?P<column>[^:]+))?)?",
    re.ASCII,
)
FORM = "audb:NAME@VERSION:TABLE:COLUMN"
CONFIGURED = "Check the name, and audb's repositories and cache in ~/.config/audb.yaml"
Key = tuple[str, float, float | None]
"""File, start and end (None: the file's) in seconds."""


@dataclass(frozen=True, slots=True)
class AudbRequest:
    """What was asked for; None where it is left to us.

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
    """The parts of ``NAME[@VERSION][:TABLE[:COLUMN]]``; ``InvalidInput`` for another form."""
    found = WISH.fullmatch(text)
    if found is None:
        raise InvalidInput(
            f"'audb:{printable(text[:200])}' names no database",
            remedy=f"Write {FORM}; only NAME is needed",
        )
    return AudbRequest(**found.groupdict())


def read_audb(wanted: Path) -> Corpus:
    """The database that the text of ``wanted`` names, its labelled files in audb's cache.

    Where it is not said, the newest version is used, and the column ``label``, ``emotion`` or
    ``class``, with a note. Raises ``InvalidInput`` where the package audb, the database, its version,
    table or column is not there.
    """
    audb = library()
    wish = parse(str(wanted))
    with _explained(str(wish)):
        version, notes = _version(audb, wish)
        header = audb.info.header(wish.name, version=version, load_tables=False)
    table, column = _label_column(header, replace(wish, version=version))
    settled = AudbRequest(wish.name, version, table, column)
    who, person = _speaker_column(header, table)
    with _explained(str(settled)):
        tables = sorted({table, who} - {""})
        database = audb.load(
            wish.name,
            version=version,
            tables=tables,
            only_metadata=True,
            pickle_tables=False,
            full_path=False,
            verbose=False,
        )
    rows, unlabelled = _rows(database, settled, who, person)
    files = sorted({row.file for row in rows})
    if not files:
        raise InvalidInput("labels no file", where=settled, remedy="Name another table or column")
    with _explained(str(settled)):
        paths = audb.load_media(wish.name, files, version=version, num_workers=4, verbose=False)
    root = Path(paths[0]).parents[len(Path(files[0]).parts) - 1]
    if settled != wish:
        notes = [*notes, f"read as {settled}"]
    if unlabelled:
        notes = [*notes, f"rows without a label left out: {unlabelled}"]
    return from_rows(
        root, Path(str(settled)), rows, notes, "labelled audio files", name=str(settled)
    )


def library() -> Any:
    """The package audb; ``InvalidInput`` says how to install it."""
    try:
        import audb
    except ImportError as problem:
        raise InvalidInput(
            "databases of audb need the package audb", remedy='pip install "staanet[audb]"'
        ) from problem
    return audb


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Whatever audb, its backends and the network raise, as one line that says what to do."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as problem:
        said = printable(" ".join(str(problem).split()) or type(problem).__name__)[:240]
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFault(
                said, where=where, remedy="Free space in audb's cache, run again"
            ) from problem
        raise InvalidInput(
            f"cannot be loaded ({said})", where=where, remedy=CONFIGURED
        ) from problem


def _version(audb: Any, wish: AudbRequest) -> tuple[str, list[str]]:
    """The wanted version, or the newest; what is in the cache needs no repository."""
    import audeer

    roots = [Path(audb.default_cache_root(shared)) / wish.name for shared in (False, True)]
    held = {header.parts[-3] for root in roots for header in root.glob("*/*/db.yaml")}
    if wish.version in held:
        return str(wish.version), []
    try:
        offered = [str(version) for version in audb.versions(wish.name)]
    except Exception:
        if wish.version or not held:
            raise
        offered = []
    known = [*audeer.sort_versions(list(held - set(offered))), *offered]
    if not known:
        raise InvalidInput(
            "no such database in audb's repositories or cache", where=wish, remedy=CONFIGURED
        )
    if wish.version is None:
        return known[-1], [f"the newest version is used; '@{known[-1]}' after the name keeps it"]
    if wish.version not in known:
        raise unknown_name("version", wish.version, known, where=f"audb:{wish.name}")
    return wish.version, []


# ---------------------------------------------------------------- which columns


def _columns(header: Any) -> list[tuple[str, str]]:
    return [(table, column) for table in header.tables for column in header.tables[table].columns]


def _label_column(header: Any, wish: AudbRequest) -> tuple[str, str]:
    columns = _columns(header)
    if wish.table and wish.table not in header.tables:
        raise unknown_name("table", wish.table, header.tables, where=f"audb:{wish.name}")
    within = [(t, c) for t, c in columns if wish.table in (None, t)]
    if wish.column:
        if (str(wish.table), wish.column) not in within:
            raise unknown_name("column", wish.column, [c for _, c in within], where=wish)
        return str(wish.table), wish.column
    usual = [(t, c) for alias in COLUMNS["label"] for t, c in within if c.casefold() == alias]
    same_name = [(t, c) for t, c in usual if t == c]
    for choice in (usual, same_name, within):
        if len(choice) == 1:
            return choice[0]
    shown = ", ".join(f"{t}:{c}" for t, c in (usual or within)[:20])
    raise InvalidInput(
        f"has {len(usual) or 'no'} columns named {' or '.join(COLUMNS['label'])}",
        where=wish,
        remedy=f"Write {FORM} with one of these: {printable(shown) or 'none'}",
    )


def _speaker_column(header: Any, label_table: str) -> tuple[str, str]:
    """Table and column, the label's own table first, then those of whole files; ``""`` for none."""
    found = [
        (table != label_table, not header.tables[table].is_filewise, table, column)
        for table, column in _columns(header)
        if column.casefold() in COLUMNS["speaker"]
    ]
    return min(found)[2:] if found else ("", "")


# ---------------------------------------------------------------- tables to rows


def _rows(database: Any, wish: AudbRequest, who: str, person: str) -> tuple[Rows, int]:
    """The labelled rows, and how many have no label."""
    labels = _cells(database, str(wish.table), str(wish.column))
    speakers = _cells(database, who, person) if who else {}
    by_file = _by_file(speakers)
    sexes = _sexes(database, who, person) if who else {}
    rows = Rows()
    for number, (key, label) in enumerate(labels.items(), start=1):
        file, start, end = key
        if label is None:
            continue
        place = f"{wish}:{number}"
        if start < 0 or (end is not None and end <= start):
            raise InvalidInput(
                f"the part of {printable(file)} from {start:.9g} s to {end} s has no length",
                where=place,
                remedy="Name another table, or correct it and publish a new version",
            )
        speaker = speakers.get(key) or by_file.get(file) or ""
        rows.append(Row(place, file, label, speaker, sexes.get(speaker), start, end))
    return rows, len(labels) - len(rows)


def _cells(database: Any, table: str, column: str) -> dict[Key, str | None]:
    """What a column says of each file or part of one, as text."""
    import pandas as pd

    values: dict[Key, str | None] = {}
    for index, value in database[table].df[column].items():
        file, start, end = index if isinstance(index, tuple) else (index, None, None)
        first = 0.0 if start is None or pd.isna(start) else start.total_seconds()
        last = None if end is None or pd.isna(end) else end.total_seconds()
        values[str(file), first, last] = None if pd.isna(value) else str(value)
    return values


def _by_file(speakers: Mapping[Key, str | None]) -> dict[str, str]:
    """The speaker of each file that has only one."""
    heard: dict[str, set[str]] = {}
    for (file, _, _), speaker in speakers.items():
        heard.setdefault(file, set()).update({speaker} if speaker else ())
    return {file: found.pop() for file, found in heard.items() if len(found) == 1}


def _sexes(database: Any, table: str, column: str) -> dict[str, str]:
    """The sex of each speaker, as the scheme of the speaker column tells it."""
    scheme = database.schemes.get(database[table].columns[column].scheme_id)
    labels = getattr(scheme, "labels", None)
    if isinstance(labels, str):  # the name of a table without files
        labels = database[labels].df.to_dict("index")
    known: dict[str, str] = {}
    for speaker, about in labels.items() if isinstance(labels, dict) else ():
        for name in COLUMNS["sex"]:
            said = about.get(name) if isinstance(about, dict) else None
            if sex := SEXES.get(str(said).strip().casefold()):
                known[str(speaker)] = sex
    return known
