"""What every corpus on disk shares: looking into folders, leaving files out aloud, checking ids."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from staanet.core import Corpus, Utterance
from staanet.errors import InvalidInput, printable
from staanet.storage.lazy_rows import Texts, digests_of, repeated

UNKNOWN = "unknown"
"""The speaker of a clip where nothing tells who speaks."""
MAX_TABLE_BYTES = 16 * 2**20
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})


def folder_of(path: Path, kind: str) -> Path:
    """``path`` if it is a folder; raises ``InvalidInput`` that says what is there instead."""
    if not path.exists():
        raise InvalidInput(
            "no such folder", where=path, remedy=f"Write {kind}:PATH with the folder of the corpus"
        )
    if not path.is_dir():
        raise InvalidInput("is not a folder", where=path, remedy="Give the folder that holds it")
    return path


def listed(folder: Path) -> list[Path]:
    """What ``folder`` holds, sorted by name, without hidden entries.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for file in ("b.wav", "a.wav", "._a.wav"):
    ...         (Path(name) / file).touch()
    ...     [path.name for path in listed(Path(name))]
    ['a.wav', 'b.wav']
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as problem:
        raise InvalidInput(
            f"cannot be listed ({problem.strerror})", where=folder, remedy="Check its permissions"
        ) from problem
    return [path for path in entries if not path.name.startswith(".")]


def wav_files(folder: Path) -> Iterator[Path]:
    """The ``.wav`` entries of one folder, upper case or lower."""
    return (path for path in listed(folder) if path.suffix.lower() == ".wav")


def read_table(path: Path) -> str:
    """A corpus's own small text file; what is not UTF-8 in it is replaced, as only names matter.

    Raises ``InvalidInput`` where it cannot be read, or is larger than any such file.
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


def left_out(names: Iterable[str], reason: str) -> tuple[str, ...]:
    """One note for all files left out for the same reason, or none.

    >>> left_out(["a.wav"], "no EMO-DB name")
    ('1 file left out, no EMO-DB name: a.wav',)
    >>> left_out([], "no EMO-DB name")
    ()
    """
    found = [printable(name) for name in names]
    if not found:
        return ()
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    count = "1 file" if len(found) == 1 else f"{len(found)} files"
    return (f"{count} left out, {reason}: {', '.join(found[:5])}{more}",)


def safe_ids(names: Mapping[str, str]) -> dict[str, str]:
    """An id for each key, made of its file's name: ASCII, safe as a file name, never used twice.

    Where two names would give one id (upper and lower case count as equal), or a name is not safe
    as it is, some digits of its hash follow; the order of the names never matters.

    >>> safe_ids({"x": "fear/a.wav", "y": "joy/a.wav", "z": "joy/\u00fc.wav"})
    {'x': 'fear__a', 'y': 'joy__a', 'z': 'joy__u-594e519a'}
    """
    keys, files = list(names), list(names.values())
    ids = distinct_ids(len(keys), keys.__getitem__, files.__getitem__)
    return dict(zip(keys, ids, strict=True))


def distinct_ids(count: int, key: Callable[[int], str], name: Callable[[int], str]) -> Texts:
    """``safe_ids`` of so many keys, all different, and the names of their files."""
    ids, settled = Texts(), np.zeros(count, bool)
    for digits in (0, 8, 64):
        ids = Texts(
            ids[place] if is_settled else _safe_id(key(place), name(place), digits)
            for place, is_settled in enumerate(settled.tolist())
        )
        settled = np.fromiter((one != "" for one in ids), bool, count)
        for group in repeated(digests_of(one.casefold() for one in ids)):
            settled[group] = False
        if settled.all():
            break
    return ids


_SAFE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")


def _safe_id(key: str, name: str, digits: int) -> str:
    """The id with that many digits of the hash; none (and so not yet usable) may give ``""``."""
    base = name.rpartition("/")[2]
    dot = base.rfind(".")
    stem = name[: dot - len(base)] if 0 < dot < len(base) - 1 else name
    joined = stem.replace("/", "__")
    if digits == 0 and len(joined) <= 80 and _SAFE.fullmatch(joined):
        return joined
    plain = unicodedata.normalize("NFKD", joined).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip(".-")[:80]
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{safe or 'clip'}-{digest[: digits or 8]}"


def assemble(
    name: str, root: Path, utterances: Sequence[Utterance], notes: Sequence[str], sought: str
) -> Corpus:
    """The corpus of ``utterances``, sorted by id; of two with one id the first path stays.

    Raises ``InvalidInput`` that tells what was ``sought`` under ``root`` where there is none.
    """
    if not utterances:
        raise InvalidInput(
            f"holds no clip of '{name}': looked for {sought}",
            where=root,
            remedy="; ".join((*notes, "give the folder that holds the clips"))[:400],
        )
    unique: dict[str, Utterance] = {}
    twice = []
    for utterance in sorted(utterances, key=lambda u: (u.id, str(u.path))):
        if utterance.id in unique:
            twice.append(str(utterance.path.relative_to(root)))
        else:
            unique[utterance.id] = utterance
    return Corpus(
        name=name,
        utterances=tuple(unique.values()),
        labels=tuple(sorted({u.label for u in unique.values() if u.label is not None})),
        notes=(*notes, *left_out(twice, "a file of the same name was read before")),
    )
