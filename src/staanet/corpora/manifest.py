"""A manifest: one row per audio file, or part of one, as CSV, JSON lines, a JSON list or Parquet.

Columns are found by the names that people use, as in the ``metadata`` file of an audiofolder
(``file_name``), in a table of audformat (``file,start,end``) or in lists of EmoBox and SpeechBrain
(``wav``, ``emo``); others are named by the caller. A row that cannot be used is put aside with its
reason. Only a file outside the root refuses the whole manifest.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from staanet.core.protocols import part_named
from staanet.corpora.dimensions import (
    CLASSIFICATION,
    check_dimension,
    check_task,
    dimension_kinds,
    label_of_cells,
)
from staanet.corpora.records import (
    EmbeddedSound,
    Record,
    RowProblem,
    csv_records,
    json_line_records,
    json_records,
    parquet_columns,
    parquet_records,
    refuse,
)
from staanet.corpora.rows import Listing, Row
from staanet.errors import InvalidInput, printable, unknown_name

MANIFEST_SUFFIXES = (".csv", ".jsonl", ".json", ".parquet")
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
COLUMNS: dict[str, tuple[str, ...]] = {
    "file": ("file", "path", "file_name", "filename", "audio", "wav"),
    "label": ("label", "emotion", "class", "emo"),
    "speaker": ("speaker", "speaker_id", "actor", "spk"),
    "sex": ("sex", "gender"),
    "start": ("start", "start_s"),
    "end": ("end", "end_s"),
    "split": ("split", "part"),
    "content": ("content", "sentence", "transcription", "text"),
}
NEEDED = ("file", "label")
SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}
MAX_ROWS = 1_000_000
MAX_WORD = 200  # characters of a label or a speaker
MISSING_TIMES = frozenset({"", "nat", "nan", "none", "null", "na", "n/a", "<na>"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOptions:
    """How a manifest is read: where its audio lies, and which columns hold what."""

    root: Path | None = None
    """The folder that file names start from; None: the manifest's."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """A key of ``COLUMNS`` -> the name of the column; others are found by their names. Where labels are
    numbers, any further key names one."""
    task: str = CLASSIFICATION
    """Whether labels are classes, or ``regression``: numbers, each in a column of its own."""

    @property
    def kinds(self) -> dict[str, tuple[str, ...]]:
        """The names that the column of each kind may have."""
        if self.task == "classification":
            return COLUMNS
        others = {kind: names for kind, names in COLUMNS.items() if kind != "label"}
        return {**others, **dimension_kinds(self.columns, others)}

    @property
    def dimensions(self) -> list[str]:
        """The kinds that are numbers; none where labels are classes."""
        return [kind for kind in self.kinds if kind not in COLUMNS]

    def check(self) -> None:
        """Raise ``InvalidInput`` for a key that is none of ``COLUMNS``, and cannot name a number."""
        check_task(self.task)
        for kind in self.columns:
            if kind not in self.kinds:
                raise unknown_name("column", kind, COLUMNS)
        for name in self.dimensions:
            check_dimension(name)


def read_manifest(path: Path, options: ManifestOptions | None = None) -> Listing:
    """Read all rows of a manifest, with warnings.

    Raises ``InvalidInput`` for text that is not UTF-8, columns that are missing, a file outside the
    root, and where no row can be used.
    """
    options = options or ManifestOptions()
    options.check()
    root = (options.root or path.parent).expanduser()
    if not root.is_dir():
        raise InvalidInput("is no folder", where=root, remedy="Give the folder of the audio")
    listing = Listing(where=path, root=root)
    names: list[str] | None = None
    columns: dict[str, str] = {}
    notes: dict[str, None] = {}
    for number, record in _records(path, options):
        try:
            if isinstance(record, RowProblem):
                raise record
            if list(record) != names:  # only the objects of JSON may differ
                columns, unused = choose_columns(list(record), options.columns, options.kinds)
                names = list(record)
                numbers = tuple(kind for kind in options.dimensions if kind in columns)
                listing.dimensions = listing.dimensions or numbers
                notes |= {f"column '{n}' not used, '{columns[k]}' is": None for k, n in unused}
            row = _row(record, columns, path, number, listing)
        except RowProblem as problem:
            listing.put_aside(f"{path}:{number}", problem.what, problem.remedy)
            continue
        if len(listing.rows) == MAX_ROWS:
            refuse(path, number, f"more than {MAX_ROWS} rows", "Split the manifest")
        listing.rows.append(row)
    if not listing.rows and not listing.aside_count:
        refuse(path, None, "holds no rows", f"Columns wanted: {_column_help()}")
    listing.require_rows()
    listing.notes += notes
    return listing


def _records(path: Path, options: ManifestOptions) -> Iterator[tuple[int, Record]]:
    """Yield the records of a manifest by its suffix."""

    def check(names: Sequence[str]) -> None:
        _header_columns(path, names, options.columns, options.kinds)

    suffix = path.suffix.lower()
    if suffix == ".parquet":
        names, special = parquet_columns(path)
        columns = dict(options.columns)
        if len(special.sounds) == 1 and "file" not in columns:
            columns["file"] = special.sounds[0]
        used, unused = _header_columns(path, names, columns, options.kinds)
        return parquet_records(path, [*used.values(), *(name for _, name in unused)], special)
    readers = {".csv": csv_records, ".jsonl": json_line_records, ".json": json_records}
    if suffix not in readers:
        raise InvalidInput(
            "is no folder and no manifest",
            where=path,
            remedy=f"Give a folder, or a file of {', '.join(MANIFEST_SUFFIXES)}",
        )
    return readers[suffix](path, check)


# ---------------------------------------------------------------- columns

Columns = tuple[dict[str, str], list[tuple[str, str]]]
"""The column that is used for each kind, and pairs (kind, column) of further ones that could be."""


def choose_columns(
    names: Sequence[str], explicit: Mapping[str, str], kinds: Mapping[str, Sequence[str]] = COLUMNS
) -> Columns:
    """Return which column holds what; ``explicit`` names come first.

    Without ``label`` among the ``kinds``, those that are none of ``COLUMNS`` are numbers, one of which is needed.
    Raises ``RowProblem`` where a column is missing or stands twice.

    >>> choose_columns(["wav", "emotion", "label"], {})
    ({'file': 'wav', 'label': 'label'}, [('label', 'emotion')])
    >>> choose_columns(["wav", "emotion", "label"], {"label": "emotion"})
    ({'file': 'wav', 'label': 'emotion'}, [])
    """
    used: dict[str, str] = {}
    unused: list[tuple[str, str]] = []
    for kind, aliases in kinds.items():
        if kind in explicit:
            aliases = (explicit[kind].casefold(),)
        matches = [name for alias in aliases for name in names if name.casefold() == alias]
        folded = [name.casefold() for name in matches]
        repeated = [name for name in matches if folded.count(name.casefold()) > 1]
        if repeated:
            raise RowProblem(f"has the column '{repeated[0]}' twice", "Leave one of them")
        if matches:
            used[kind] = matches[0]
            unused += [(kind, name) for name in matches[1:]]
        elif kind in explicit:
            problem = unknown_name("column", explicit[kind], names)
            raise RowProblem(problem.what, problem.remedy)
    missing = [kind for kind in NEEDED if kind in kinds and kind not in used]
    numbers = [kind for kind in kinds if kind not in COLUMNS]
    if numbers and not any(kind in used for kind in numbers):
        missing.append(numbers[0])
    if missing:
        shown = ", ".join(printable(name[:40]) for name in names[:20])
        separator = next((s for s in (";", "\t", "|") if len(names) == 1 and s in names[0]), None)
        hint = f"; it seems to be separated by {separator!r}: save it with commas" * bool(separator)
        remedy = f"Columns found: {shown}; wanted: {_column_help(kinds)}{hint}"
        raise RowProblem(f"has no column '{missing[0]}'", remedy)
    return used, unused


def _header_columns(
    path: Path,
    names: Sequence[str],
    explicit: Mapping[str, str],
    kinds: Mapping[str, Sequence[str]],
) -> Columns:
    """Choose the columns of a header, where a problem refuses the whole file."""
    try:
        return choose_columns(names, explicit, kinds)
    except RowProblem as problem:
        refuse(path, None, problem.what, problem.remedy)


def _column_help(kinds: Mapping[str, Sequence[str]] = COLUMNS) -> str:
    """Return the names of all columns, for an error."""
    listing = ", ".join(
        f"{names[0]} (or {', '.join(names[1:])}{'' if kind in NEEDED else '; optional'})"
        for kind, names in kinds.items()
    )
    return f"{listing}; name others by hand (columns)"


# ---------------------------------------------------------------- records to rows


def _row(
    record: Mapping[str, Any], columns: Mapping[str, str], path: Path, number: int, listing: Listing
) -> Row:
    """Return the row of a record; ``RowProblem`` where it cannot be used."""
    cell, root = partial(_word, record, columns), listing.root
    numbers = {name: columns.get(name, name) for name in listing.dimensions}
    start, end = (_time(record, columns, kind) for kind in ("start", "end"))
    start = start or 0.0
    if end is not None and end <= start:
        what = f"its part ends at {end:.9g} s but starts at {start:.9g} s"
        remedy = "Write an end after the start, or none for the end of the file"
        raise RowProblem(what, remedy)
    sound, name = record.get(columns["file"]), ""
    if isinstance(sound, EmbeddedSound):
        file, name = f"{os.path.relpath(path, root)}#{sound.row}", sound.name
    else:
        file = cell("file")
    return Row(
        source=f"{path}:{number}",
        file=_file_below(root, file, f"{path}:{number}"),
        label=label_of_cells(record, numbers) if numbers else cell("label"),
        speaker=cell("speaker").strip(),
        sex=SEXES.get(cell("sex").strip().casefold()),
        start_s=start,
        end_s=end,
        part=part_named(cell("split")) or None,
        content=_content(record.get(columns.get("content", ""))),
        inner_name=name,
    )


def _word(record: Mapping[str, Any], columns: Mapping[str, str], kind: str) -> str:
    """Return a cell as text; a number is text too, except as a file or a sex."""
    value = record.get(columns.get(kind, ""))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | int | float) and kind in ("label", "speaker", "split"):
        value = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    if not isinstance(value, str):
        raise RowProblem(f"the {kind} is {_shown(value)}", "Write a word there")
    if kind in ("label", "speaker") and len(value) > MAX_WORD:
        what = f"the {kind} has {len(value)} characters; at most {MAX_WORD} are taken"
        raise RowProblem(what, "Shorten it")
    return value


def _time(record: Mapping[str, Any], columns: Mapping[str, str], kind: str) -> float | None:
    value = record.get(columns.get(kind, ""))
    try:
        return seconds(value)
    except ValueError:
        remedy = "Write seconds, such as 1.2 or 0 days 00:00:01.2"
        raise RowProblem(f"the {kind} is {_shown(value)}, no time", remedy) from None


def _content(value: object) -> str:
    """Return a content code or text; empty for any other value.

    >>> _content(" a01 "), _content(7), _content(["a01"]), _content(None)
    ('a01', '7', '', '')
    """
    is_plain = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip() if is_plain else ""


NUMBER = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
CLOCK = re.compile(r"(?:([0-9]+) days?)? *(?:\+?([0-9]+):([0-5][0-9]):([0-5][0-9](?:\.[0-9]+)?))?")


def seconds(value: object) -> float | None:
    """Return a time in seconds, written as a number, as text, or as pandas writes it.

    A missing time (None, NaN, NaT, empty) is None. Raises ``ValueError`` for what is no time,
    negative or infinite.

    >>> seconds("0 days 00:01:01.2"), seconds("1.25"), seconds(3), seconds("NaT")
    (61.2, 1.25, 3.0, None)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        text = value.strip()
        if text.casefold() in MISSING_TIMES:
            return None
        if NUMBER.fullmatch(text):
            time = float(text)
        elif clock := CLOCK.fullmatch(text):
            days, hours, minutes, rest = (float(part or 0) for part in clock.groups())
            time = 86_400 * days + 3_600 * hours + 60 * minutes + rest
        else:
            raise ValueError(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        time = float(value) if abs(value) < 1e12 else math.inf
    else:
        raise ValueError(repr(value)[:40])
    if not 0 <= time < 1e9:
        raise ValueError(str(time))
    return time


def _shown(value: object) -> str:
    """Return a cell as an error shows it.

    >>> _shown("x" * 99), _shown([1.5]), _shown(float("nan"))
    ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'", '[1.5]', 'NaN')
    """
    if isinstance(value, str):
        return f"'{printable(value[:40])}'"
    return json.dumps(value, default=str)[:40]


PLACEHOLDER = re.compile(r"(?:\{\w+\}|\$\w+)/")
"""Stands for the root in lists of SpeechBrain, such as ``{data_root}/a.wav``."""


def _file_below(root: Path, file: str, where: str) -> str:
    """Return the path of a file from ``root`` on; ``InvalidInput`` where it leads out of there."""
    if not file.strip():
        raise RowProblem("the file is empty", "Name the audio file")
    if not is_possible(file):
        return file
    file = PLACEHOLDER.sub("", file, count=1) if PLACEHOLDER.match(file) else file
    slashed = file.replace("\\", "/") if "\\" in file and not os.path.lexists(root / file) else file
    if slashed.startswith("/"):
        slashed = os.path.relpath(slashed, root.absolute())
    plain = os.path.normpath(slashed)
    home = slashed.startswith("~") and "/" in slashed
    if home or plain in (".", "..") or plain.startswith("../") or re.match("[A-Za-z]:/", slashed):
        raise InvalidInput(
            f"'{printable(file)}' is outside the corpus root {printable(str(root))}",
            where=where,
            remedy="Put the manifest into the folder that holds the files, or name that folder (root)",
        )
    return plain


def is_possible(file: str) -> bool:
    """Return whether a file can have this name: no NUL, no half of a surrogate pair."""
    try:
        return b"\0" not in os.fsencode(file)
    except UnicodeEncodeError:
        return False
