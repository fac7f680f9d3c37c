"""Any labelled audio: folders of classes, a manifest, an audiofolder, or files without labels."""

from __future__ import annotations

import contextlib
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from staanet.core import Corpus, Utterance
from staanet.core.protocols import PARTS, part_named
from staanet.corpora.files import (
    AUDIO_SUFFIXES,
    UNKNOWN,
    list_folder,
    omission_notes,
    require_folder,
)
from staanet.corpora.ids import distinct_ids, safe_ids
from staanet.corpora.manifest import MANIFESTS, impossible, read_manifest
from staanet.corpora.rows import Row, Rows, Spoken, speaker_of
from staanet.errors import InvalidInput, printable
from staanet.storage.lazy_rows import (
    Made,
    Places,
    Words,
    digests_of,
    integers,
    repeated,
    sorted_places,
)

SPEAKERS_REMEDY = (
    "a split by speaker needs them: put the files into LABEL/SPEAKER/ folders, or give a manifest"
    " with a speaker column (the file's own name there, if every file is another speaker)"
)


def read_folder(path: Path) -> Corpus:
    """``ROOT/label/...`` or ``ROOT/label/speaker/...``, or a manifest with file, label, speaker.

    A folder that holds ``metadata.csv``, ``.jsonl`` or ``.parquet`` is read by it. Folders named as
    the parts of a split (``train``, ``test`` ...) may each hold their own, or their own class
    folders. Links that leave the root, and files under two labels, are left out with a note. Raises
    ``InvalidInput`` for a manifest that cannot be trusted, and where no clip is left.
    """
    manifest = path if path.is_file() else _metadata(path)
    if manifest is not None:
        rows, notes = read_manifest(manifest)
        if not any(rows.parts.known) and _in_parts(rows.files):
            rows.parts = Words(part_named(file.partition("/")[0]) for file in rows.files)
        return from_rows(manifest.parent, manifest, rows, notes, "audio files in its rows")
    root = require_folder(path, "folder")
    rows, notes = _split_rows(root) or _class_rows(root)
    return from_rows(root, root, rows, notes, "audio files in one folder per class")


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in MANIFESTS if (folder / name).is_file()), None)


def _in_parts(names: Iterable[str]) -> bool:
    """Whether the first folder of every file is a part of a split, as in an audiofolder."""
    tops = {part_named(name.partition("/")[0]) for name in names}
    return "train" in tops and tops <= set(PARTS)


def _split_rows(root: Path) -> tuple[Rows, list[str]] | None:
    """The rows of an audiofolder whose parts have a metadata file each; None where none has."""
    folders = [p for p in list_folder(root) if part_named(p.name) in PARTS and p.is_dir()]
    manifests = {folder: _metadata(folder) for folder in folders}
    if not any(manifests.values()):
        return None
    rows = Rows()
    notes: list[str] = []
    for folder, manifest in manifests.items():
        if manifest is None:
            raise InvalidInput(
                "has no metadata file, unlike another part of the split",
                where=folder,
                remedy=f"Add {' or '.join(MANIFESTS)}, or move the folder away",
            )
        part_rows, part_notes = read_manifest(manifest)
        for r in part_rows:
            part = r.part or part_named(folder.name)
            rows.append(replace(r, file=f"{folder.name}/{r.file}", part=part))
        notes += [f"{folder.name}: {note}" for note in part_notes]
    others = [p.name for p in list_folder(root) if p not in manifests]
    return rows, [*notes, *omission_notes(others, "not in a part of the split")]


def unlabelled_corpus(paths: Sequence[Path], leave_out: Path | None = None) -> Corpus:
    """Audio files, and all audio files below folders, without labels; none below ``leave_out``.

    Raises ``InvalidInput`` where a path does not exist, or no audio file is found.
    """
    found: dict[Path, str] = {}
    others: list[str] = []
    for path in paths:
        if not os.path.lexists(path):
            raise InvalidInput("no such file or folder", where=path)
        if path.is_dir():
            walk = _Walk(path, leave_out)
            found |= walk.files
            others += walk.others
        else:
            found.setdefault(path, path.name)
    if not found:
        raise InvalidInput(
            "no audio file found", where=paths[0], remedy="Give WAV, FLAC, OGG or MP3 files"
        )
    ids = safe_ids({str(path): name for path, name in found.items()})
    utterances = [Utterance(ids[str(path)], path, None, UNKNOWN) for path in found]
    return Corpus(
        name="files",
        utterances=tuple(sorted(utterances, key=lambda u: u.id)),
        labels=(),
        notes=omission_notes(others, "not audio by name"),
    )


# ---------------------------------------------------------------- class folders


@dataclass
class _Walk:
    """The audio files below ``root`` with their names from there, in any depth."""

    root: Path
    leave_out: Path | None = None
    files: dict[Path, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        out = None if self.leave_out is None else os.path.realpath(self.leave_out)
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            if os.path.realpath(folder) != out:
                waiting += self._look_into(folder)

    def _look_into(self, folder: Path) -> list[Path]:
        folders = []
        for path in list_folder(folder):
            name = path.relative_to(self.root).as_posix()
            if path.is_dir() and path.is_symlink():
                self.links.append(name)  # may be a loop, or hold files a second time
            elif path.is_dir():
                folders.append(path)
            elif path.suffix.lower() in AUDIO_SUFFIXES:
                self.files[path] = name
            else:
                self.others.append(name)
        return folders


def _class_rows(root: Path) -> tuple[Rows, list[str]]:
    walk = _Walk(root)
    names = sorted(walk.files.values())
    split = _in_parts(name for name in names if "/" in name)
    rows = Rows()
    loose = []
    for name in names:
        above, *folders = [*name.split("/")[:-1], ""] if split else ["", *name.split("/")[:-1], ""]
        if any(folders):
            label, speaker = folders[:2]
            place = str(root / above / label)
            rows.append(Row(place, name, label, speaker, part=part_named(above) or None))
        else:
            loose.append(name)
    return rows, [
        *(["the folders of the split are not taken for classes"] if split else []),
        *omission_notes(sorted(walk.others), "not audio by name"),
        *omission_notes(sorted(walk.links), "links to folders"),
        *omission_notes(loose, "not in the folder of a class"),
    ]


# ---------------------------------------------------------------- rows to corpus


def from_rows(
    root: Path,
    where: Path,
    rows: Sequence[Row],
    notes: Sequence[str],
    sought: str,
    name: str = "folder",
) -> Corpus:
    """The corpus that rows describe, their files below ``root``.

    Raises ``InvalidInput`` for labels that are empty, numbers or look alike, and where no
    clip is left, with what was ``sought`` at ``where``.
    """
    table = rows if isinstance(rows, Rows) else Rows(rows)
    labels, trimmed = _labels(table)
    kept, out = _usable(root, table, labels)
    all_notes = [
        *notes,
        *trimmed,
        *omission_notes(out.leaving, "links that leave the folder"),
        *omission_notes(out.conflicts, "listed under two labels or speakers"),
        *omission_notes(out.torn, "listed in two parts of the split"),
        *_listed_twice(out.repeated),
        *_unknown_speakers(table, kept),
        *_like_speakers(table, kept),
        *_of_two_sexes(table, kept),
        *_overlapping(table, kept),
    ]
    if not len(kept):
        raise InvalidInput(
            f"no clip found: looked for {sought}", where=where, remedy="; ".join(all_notes)
        )
    ids = distinct_ids(
        len(kept), lambda n: table.key(int(kept[n])), lambda n: table.name(int(kept[n]))
    )
    utterances = Made(Spoken(root, table, kept, ids, labels), sorted_places(ids))
    return Corpus(
        name=name,
        utterances=utterances,
        labels=tuple(sorted({labels[word] for word in _words(table.labels, kept)})),
        notes=tuple(all_notes),
    )


def _labels(rows: Rows) -> tuple[dict[str | None, str], list[str]]:
    """Each label as written -> as used, and what was trimmed; no two may look alike."""
    used: dict[str | None, str] = {}
    folded: dict[str, str] = {}
    codes = np.frombuffer(rows.labels.codes, np.uint32)
    for written, first in zip(
        rows.labels.known, np.unique(codes, return_index=True)[1].tolist(), strict=True
    ):
        place = rows.place(first)
        label = printable((written or "").strip())
        if not label:
            raise InvalidInput("the label is empty", where=place, remedy="Name the class")
        if re.fullmatch(r"[-+]?[\d.,]+", label):
            raise InvalidInput(
                f"the label '{label}' is a number",
                where=place,
                remedy="Name each class by a word, such as 'anger'",
            )
        other = folded.setdefault(_looks(written or ""), label)
        if other != label:
            how = "upper and lower case"
            if other.casefold() != label.casefold():
                how = f"signs that are not seen ({label!a})"
            raise InvalidInput(
                f"the label '{label}' differs from '{other}' by {how} alone",
                where=place,
                remedy=f"Write '{other}' everywhere",
            )
        used[written] = label
    changed = sorted({label for word, label in used.items() if word and word != word.strip()})
    return used, [f"spaces around the label trimmed: {', '.join(changed)}"] if changed else []


def _looks(word: str) -> str:
    """What words share that a reader takes for one: but for case, accents that are put together
    otherwise, and signs without width.

    >>> _looks("J\u00f6y") == _looks("jo\u0308y\u200b ")
    True
    """
    plain = unicodedata.normalize("NFKC", word)
    seen = "".join(sign for sign in plain if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFKC", seen.casefold()).strip()


@dataclass
class _Out:
    """Names of rows that are not used as they stand."""

    leaving: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def _usable(root: Path, rows: Rows, labels: Mapping[str | None, str]) -> tuple[Places, _Out]:
    """The rows that are used, one for each part of a file, and the others."""
    out = _Out()
    is_kept = np.ones(len(rows), bool)
    for group in repeated(digests_of(_real_keys(root, rows, is_kept, out))):
        first, *others = group
        if not is_kept[first]:  # the same file, elsewhere: told for each row
            continue
        is_kept[others] = False
        if len({(labels[rows.labels[n]], rows.speakers[n]) for n in group}) > 1:
            is_kept[first] = False
            out.conflicts.append(rows.name(first))
        elif len({rows.parts[n] for n in group}) > 1:
            is_kept[first] = False
            out.torn.append(rows.name(first))
        else:
            out.repeated.append(rows.name(first))
    return np.flatnonzero(is_kept), out


def _real_keys(root: Path, rows: Rows, is_kept: NDArray[np.bool_], out: _Out) -> Iterator[str]:
    """What tells the parts of files of the rows apart, all links followed; rows of files that lie
    elsewhere are not kept."""
    top = os.path.realpath(root)
    folders: dict[str, str] = {}
    for number, file in enumerate(rows.files):
        key = rows.key(number)
        if impossible(file):
            yield key
            continue
        folder, _, name = file.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(root / folder)
        real = f"{folders[folder]}/{name}"
        with contextlib.suppress(OSError):  # too long a name: put aside when it is read
            real = os.path.realpath(real) if os.path.islink(real) else real  # noqa: PTH114
        if not real.startswith(f"{top.rstrip('/')}/"):
            is_kept[number] = False
            out.leaving.append(file)
        yield real + key[len(file) :]


def _words(column: Words, kept: Places) -> list[str | None]:
    """The words that rows hold, each once."""
    codes = np.frombuffer(column.codes, np.uint32)[kept]
    return [column.known[code] for code in np.unique(codes).tolist()]


def _listed_twice(files: Sequence[str]) -> list[str]:
    names = sorted(printable(file) for file in files)
    return [f"listed more than once, used once: {', '.join(names[:5])}"] if names else []


def _overlapping(rows: Rows, kept: Places) -> list[str]:
    """The files in which speakers overlap: a split by speaker may put their common sound into two
    parts."""
    starts = np.frombuffer(rows.starts)[kept]
    if not (starts.any() or np.isfinite(np.frombuffer(rows.ends)[kept]).any()):
        return []  # each row is all of a file
    found = []
    files = digests_of(rows.files[number] for number in integers(kept))
    for group in repeated(files, starts):
        ends: dict[str, float] = {}
        for number in (int(kept[place]) for place in group):
            speaker, start = speaker_of(rows.speakers[number]), rows.starts[number]
            if any(end > start for other, end in ends.items() if other != speaker):
                found.append(printable(rows.files[number].rpartition("/")[2]))
                break
            end_s = rows.end_s(number)
            ends[speaker] = max(ends.get(speaker, 0.0), math.inf if end_s is None else end_s)
    shown = ", ".join(sorted(found)[:5])
    files_of = f"{len(found)} file{'s' * (len(found) != 1)}"
    return [f"parts of different speakers overlap in {files_of}: {shown}"] if found else []


def _like_speakers(rows: Rows, kept: Places) -> list[str]:
    """Speakers that a reader takes for one: they may stand in two parts of a split."""
    alike: dict[str, set[str]] = {}
    for word in _words(rows.speakers, kept):
        alike.setdefault(_looks(word or ""), set()).add(speaker_of(word))
    found = [", ".join(map(ascii, sorted(names))) for names in alike.values() if len(names) > 1]
    return (
        [f"speakers that look alike are taken for different ones: {'; '.join(sorted(found)[:5])}"]
        if found
        else []
    )


def _of_two_sexes(rows: Rows, kept: Places) -> list[str]:
    """Speakers whose rows do not agree."""
    codes = np.stack(
        [np.frombuffer(one.codes, np.uint32)[kept] for one in (rows.speakers, rows.sexes)]
    )
    sexes: dict[str, set[str]] = {}
    for speaker, sex in np.unique(codes, axis=1).T.tolist():
        if told := rows.sexes.known[sex]:
            sexes.setdefault(speaker_of(rows.speakers.known[speaker]), set()).add(told)
    found = sorted(name for name, told in sexes.items() if len(told) > 1 and name != UNKNOWN)
    return [f"speakers of two sexes, by their rows: {', '.join(found[:5])}"] if found else []


def _unknown_speakers(rows: Rows, kept: Places) -> list[str]:
    of_code = [speaker_of(word) == UNKNOWN for word in rows.speakers.known]
    codes = np.frombuffer(rows.speakers.codes, np.uint32)[kept]
    unknown = int(np.array(of_code, bool)[codes].sum()) if len(codes) else 0
    return [f"the speaker of {unknown} clips is unknown; {SPEAKERS_REMEDY}"] if unknown else []
