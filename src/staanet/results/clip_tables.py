"""Tables of the clips that a folder is made from, with the hash of each file, and what differs between two."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from staanet import audio, storage
from staanet.core import Corpus
from staanet.errors import StaaNetError, first_names
from staanet.results import row_files

COLUMNS = ("id", "part", "label", "speaker", "start_s", "end_s", "sha256")
IDENTIFYING = ("id", "label", "speaker", "start_s", "end_s", "sha256")
"""The part is left out: it has a hash of its own, that of the split."""
SHOWN_IDS = 3
"""So many clips of each difference are named."""
Row = Mapping[str, str]
_file_hashes: dict[tuple[str, int, int], str] = {}
"""Hashes of the files that this process has read, by path, size and time of change."""


def corpus_rows(parts: Sequence[Corpus]) -> Iterator[Row]:
    """A row for each clip of the parts: what it is called, what it is labelled, and its file's hash."""
    for part in parts:
        for utterance in part.utterances:
            yield {
                "id": utterance.id,
                "part": part.part,
                "label": utterance.label or "",
                "speaker": utterance.speaker,
                "start_s": repr(utterance.start_s),
                "end_s": repr(utterance.end_s),
                "sha256": source_sha256(utterance.path, part.limits.max_bytes),
            }


def read_listing(folder: Path) -> dict[str, Row]:
    """The clips that a folder was made from, by id, from its table or that of its run."""
    for parent in folders_with_table(folder):
        for path in sorted(parent.glob(storage.CLIP_TABLES)):
            return {row["id"]: row for row in row_files.read_csv(path, COLUMNS)}
    return {}


def source_sha256(path: Path, max_bytes: int) -> str:
    """The hash of the file that holds a clip; empty if it cannot be read, or is too large.

    A clip that is embedded in a table of sounds also counts by its row.
    """
    file = audio.source_file(path)
    try:
        stat = file.stat()
        key = (str(file), stat.st_size, stat.st_mtime_ns)
        if key not in _file_hashes and stat.st_size <= max_bytes:
            _file_hashes[key] = storage.sha256(file)
    except (OSError, ValueError, StaaNetError):
        return ""  # it is put aside when it is read
    return _file_hashes.get(key, "") + path.name.removeprefix(file.name)


def describe_row_changes(before: Mapping[str, Row], now: Mapping[str, Row]) -> str:
    """What differs between two tables of clips, in words.

    >>> row = {"label": "joy", "speaker": "s", "sha256": "1"}
    >>> describe_row_changes({"a": row}, {"a": {**row, "label": "fear"}})
    'from other data: another label now (a: joy, now fear)'
    """
    both = [name for name in before if name in now]
    changes = []
    for key in ("label", "speaker"):
        words = [
            f"{name}: {before[name][key]}, now {now[name][key]}"
            for name in both
            if before[name][key] != now[name][key]
        ]
        changes.append((f"another {key} now", words))
    changes += [
        ("other audio now", [n for n in both if before[n]["sha256"] != now[n]["sha256"]]),
        ("new since", [name for name in now if name not in before]),
        ("gone since", [name for name in before if name not in now]),
    ]
    sentences = [f"{what} ({first_names(words, SHOWN_IDS)})" for what, words in changes if words]
    return f"from other data: {'; '.join(sentences) or 'other cuts of the same files'}"


def _row_sha256(row: Row) -> str:
    return hashlib.sha256("\0".join(row[key] for key in IDENTIFYING).encode()).hexdigest()


def folders_with_table(folder: Path) -> Iterable[Path]:
    """Where the table of a folder may be: in it, or in one of the two above."""
    return (folder, *folder.absolute().parents[:2])


def sum_of(digests: Iterable[str]) -> str:
    """The sum of hashes: the same in any order, and the sum of the sums of its parts.

    >>> sum_of(["01", "ff"])[-4:] == sum_of(["ff", "01"])[-4:] == "0100"
    True
    """
    return f"sum:{sum(int(digest, 16) for digest in digests) % 2**256:064x}"


def content_of(rows: Iterable[Row]) -> str:
    """The hash of the audio, labels and speakers of clips, the same in any order."""
    return sum_of(map(_row_sha256, rows))
