"""What corpus readers share: folders, label tables, and notes about omitted files."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from staanet.audio.containers import SUFFIXES
from staanet.core import Corpus, Utterance
from staanet.errors import InvalidInput, first_names

UNKNOWN = "unknown"
"""The speaker of a clip whose speaker is unknown."""
MAX_TABLE_BYTES = 64 * 2**20
_PYAV = ("m4a", "mp4", "aac", "webm", "weba", "amr", "3gp", "3gpp", "wma")
AUDIO_SUFFIXES = frozenset(SUFFIXES) | {f".{suffix}" for suffix in _PYAV}
"""Names of recordings in class folders; what is in a file, its content says."""


def require_folder(path: Path, kind: str) -> Path:
    """Return ``path`` if it is a folder; raise ``InvalidInput`` with what is there instead."""
    if not path.exists():
        raise InvalidInput(
            "no such folder", where=path, remedy=f"Write {kind}:PATH with the folder of the corpus"
        )
    if not path.is_dir():
        raise InvalidInput("is not a folder", where=path, remedy="Give the folder that holds it")
    return path


def subfolder(root: Path, kind: str, *names: str) -> Path:
    """Return the first of ``names`` that is a folder in ``root``, else ``root`` itself."""
    require_folder(root, kind)
    return next((root / name for name in names if (root / name).is_dir()), root)


def list_folder(folder: Path) -> list[Path]:
    """Return what ``folder`` holds, sorted by name, without hidden entries.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for file in ("b.wav", "a.wav", "._a.wav"):
    ...         (Path(name) / file).touch()
    ...     [path.name for path in list_folder(Path(name))]
    ['a.wav', 'b.wav']
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as problem:
        raise InvalidInput(
            f"cannot be listed ({problem.strerror})", where=folder, remedy="Check its permissions"
        ) from problem
    return [path for path in entries if not path.name.startswith(".")]


def wav_files(*folders: Path) -> Iterator[Path]:
    """Yield the ``.wav`` entries of folders, whatever the case of their suffix."""
    for folder in folders:
        yield from (path for path in list_folder(folder) if path.suffix.lower() == ".wav")


def read_text_table(path: Path) -> str:
    """Return the text of a corpus's own label file.

    Bytes that are not UTF-8 are replaced, because only names and labels matter. Raises
    ``InvalidInput`` where the file cannot be read, or is larger than any such file.
    """
    try:
        if (size := path.stat().st_size) > MAX_TABLE_BYTES:
            raise InvalidInput(
                f"is {size} bytes; a label file has at most {MAX_TABLE_BYTES}",
                where=path,
                remedy="Copy it from the corpus again",
            )
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as problem:
        raise InvalidInput(
            f"cannot be read ({problem.strerror})", where=path, remedy="Check its permissions"
        ) from problem


def read_csv_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return the rows of a corpus's own CSV file, with a text for each cell.

    Raises ``InvalidInput`` where it is no CSV, or lacks one of ``columns``.
    """
    reader = csv.DictReader(io.StringIO(read_text_table(path), newline=""), restval="")
    try:
        rows = list(reader)
    except csv.Error as problem:
        raise InvalidInput(
            f"is not CSV ({problem})", where=path, remedy="Copy it from the corpus again"
        ) from problem
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise InvalidInput(
            f"has no column '{missing[0]}'", where=path, remedy="Copy it from the corpus again"
        )
    return rows


def omission_notes(names: Iterable[str], reason: str) -> tuple[str, ...]:
    """Return one note for all files that are left out for the same reason, or none.

    >>> omission_notes(["a.wav"], "no EMO-DB name")
    ('1 file left out, no EMO-DB name: a.wav',)
    >>> omission_notes([], "no EMO-DB name")
    ()
    """
    files = list(names)
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    return (f"{count} left out, {reason}: {first_names(files)}",) if files else ()


def read_by_names(
    kind: str,
    root: Path,
    paths: Iterable[Path],
    parse: Callable[[Path], Utterance | str],
    example: str,
) -> Corpus:
    """Read a corpus whose file names say everything.

    ``parse`` gives the utterance of a file, or the reason why the file is left out, which becomes
    a note. Raises ``InvalidInput`` where no file below ``root`` is named like ``example``.
    """
    utterances: list[Utterance] = []
    omitted: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        parsed = parse(path)
        if isinstance(parsed, Utterance):
            utterances.append(parsed)
        else:
            omitted[parsed].append(path.name)
    notes = [note for reason, names in omitted.items() for note in omission_notes(names, reason)]
    return build_corpus(kind, root, utterances, notes, f"files such as {example}")


def build_corpus(
    kind: str, root: Path, utterances: Iterable[Utterance], notes: Sequence[str], expected: str
) -> Corpus:
    """Return the corpus of ``utterances``, sorted by id; the first path of an id is used.

    Raises ``InvalidInput`` without any utterance; it says what was ``expected`` under ``root``.
    """
    unique: dict[str, Utterance] = {}
    repeated = []
    for utterance in sorted(utterances, key=lambda u: (u.id, str(u.path))):
        if utterance.id in unique:
            repeated.append(str(utterance.path.relative_to(root)))
        else:
            unique[utterance.id] = utterance
    if not unique:
        raise InvalidInput(
            f"holds no clip of '{kind}': looked for {expected}",
            where=root,
            remedy="; ".join((*notes, "give the folder that holds the clips"))[:400],
        )
    return Corpus(
        name=kind,
        utterances=tuple(unique.values()),
        labels=tuple(sorted({u.label for u in unique.values() if u.label is not None})),
        notes=(*notes, *omission_notes(repeated, "a file of the same name was read before")),
    )
