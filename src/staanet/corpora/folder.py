"""Any labelled audio: folders of classes, a manifest, an audiofolder, or files without labels."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import AUDIO_SUFFIXES, UNKNOWN, folder_of, left_out, listed, safe_ids
from staanet.corpora.manifest import MANIFESTS, Row, impossible, read_manifest
from staanet.errors import InvalidInput, printable
from staanet.splits import PARTS, part_named

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
        if not any(row.part for row in rows) and _in_parts(row.file for row in rows):
            rows = [replace(row, part=part_named(row.file.partition("/")[0])) for row in rows]
        return from_rows(manifest.parent, manifest, rows, notes, "audio files in its rows")
    root = folder_of(path, "folder")
    rows, notes = _split_rows(root) or _class_rows(root)
    return from_rows(root, root, rows, notes, "audio files in one folder per class")


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in MANIFESTS if (folder / name).is_file()), None)


def _in_parts(names: Iterable[str]) -> bool:
    """Whether the first folder of every file is a part of a split, as in an audiofolder."""
    tops = {part_named(name.partition("/")[0]) for name in names}
    return "train" in tops and tops <= set(PARTS)


def _split_rows(root: Path) -> tuple[list[Row], list[str]] | None:
    """The rows of an audiofolder whose parts have a metadata file each; None where none has."""
    folders = [p for p in listed(root) if part_named(p.name) in PARTS and p.is_dir()]
    manifests = {folder: _metadata(folder) for folder in folders}
    if not any(manifests.values()):
        return None
    rows, notes = [], []
    for folder, manifest in manifests.items():
        if manifest is None:
            raise InvalidInput(
                "has no metadata file, unlike another part of the split",
                where=folder,
                remedy=f"Add {' or '.join(MANIFESTS)}, or move the folder away",
            )
        part_rows, part_notes = read_manifest(manifest)
        rows += [
            replace(r, file=f"{folder.name}/{r.file}", part=r.part or part_named(folder.name))
            for r in part_rows
        ]
        notes += [f"{folder.name}: {note}" for note in part_notes]
    others = [p.name for p in listed(root) if p not in manifests]
    return rows, [*notes, *left_out(others, "not in a part of the split")]


def unlabelled(paths: Sequence[Path], leave_out: Path | None = None) -> Corpus:
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
        notes=left_out(others, "not audio by name"),
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
        for path in listed(folder):
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


def _class_rows(root: Path) -> tuple[list[Row], list[str]]:
    walk = _Walk(root)
    names = sorted(walk.files.values())
    split = _in_parts(name for name in names if "/" in name)
    rows, loose = [], []
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
        *left_out(sorted(walk.others), "not audio by name"),
        *left_out(sorted(walk.links), "links to folders"),
        *left_out(loose, "not in the folder of a class"),
    ]


# ---------------------------------------------------------------- rows to corpus


def from_rows(
    root: Path, where: Path, rows: Sequence[Row], notes: Sequence[str], sought: str
) -> Corpus:
    """The corpus that rows describe, their files below ``root``.

    Raises ``InvalidInput`` for labels that are empty, numbers or differ by case alone, and where no
    clip is left, with what was ``sought`` at ``where``.
    """
    labels, trimmed = _labels(rows)
    groups, leaving = _by_file(root, rows)
    kept, repeated, conflicts, torn = [], [], [], []
    for group in groups:
        if len({(labels[row.label], row.speaker) for row in group}) > 1:
            conflicts.append(group[0].name)
        elif len({row.part for row in group}) > 1:
            torn.append(group[0].name)
        else:
            kept.append(group[0])
            repeated += [group[0].name] if len(group) > 1 else []
    ids = safe_ids({row.key: row.name for row in kept})
    utterances = [
        Utterance(
            ids[row.key],
            root / row.file,
            labels[row.label],
            printable(row.speaker) or UNKNOWN,
            row.sex,
            row.start_s,
            row.end_s,
            row.part,
            row.place,
            printable(row.content) or None,
        )
        for row in kept
    ]
    all_notes = [
        *notes,
        *trimmed,
        *left_out(leaving, "links that leave the folder"),
        *left_out(conflicts, "listed under two labels or speakers"),
        *left_out(torn, "listed in two parts of the split"),
        *_listed_twice(repeated),
        *_unknown_speakers(utterances),
        *_overlapping(utterances),
    ]
    if not utterances:
        raise InvalidInput(
            f"no clip found: looked for {sought}", where=where, remedy="; ".join(all_notes)
        )
    return Corpus(
        name="folder",
        utterances=tuple(sorted(utterances, key=lambda u: u.id)),
        labels=tuple(sorted({u.label for u in utterances if u.label is not None})),
        notes=tuple(all_notes),
    )


def _labels(rows: Sequence[Row]) -> tuple[dict[str, str], list[str]]:
    """Each label as written -> as used, and what was trimmed; no two may differ by case alone."""
    used: dict[str, str] = {}
    folded: dict[str, str] = {}
    for row in rows:
        if row.label in used:
            continue
        place = row.place
        label = printable(row.label.strip())
        if not label:
            raise InvalidInput("the label is empty", where=place, remedy="Name the class")
        if re.fullmatch(r"[-+]?[\d.,]+", label):
            raise InvalidInput(
                f"the label '{label}' is a number",
                where=place,
                remedy="Name each class by a word, such as 'anger'",
            )
        other = folded.setdefault(label.casefold(), label)
        if other != label:
            raise InvalidInput(
                f"the label '{label}' differs from '{other}' by upper and lower case alone",
                where=place,
                remedy=f"Write '{other}' everywhere",
            )
        used[row.label] = label
    changed = sorted({label for written, label in used.items() if written != written.strip()})
    return used, [f"spaces around the label trimmed: {', '.join(changed)}"] if changed else []


def _by_file(root: Path, rows: Sequence[Row]) -> tuple[list[list[Row]], list[str]]:
    """The rows of each file below ``root``, all links followed, and the files that lie elsewhere."""
    top = os.path.realpath(root)
    folders: dict[str, str] = {}
    groups: dict[str, list[Row]] = {}
    leaving = []
    for row in rows:
        folder, _, name = row.file.rpartition("/")
        if impossible(row.file):
            groups[row.key] = [row]
            continue
        if folder not in folders:
            folders[folder] = os.path.realpath(root / folder)
        real = f"{folders[folder]}/{name}"
        with contextlib.suppress(OSError):  # too long a name: put aside when it is read
            real = os.path.realpath(real) if Path(real).is_symlink() else real
        if real.startswith(f"{top.rstrip('/')}/"):
            groups.setdefault(real + row.key[len(row.file) :], []).append(row)
        else:
            leaving.append(row.file)
    return list(groups.values()), leaving


def _listed_twice(files: Sequence[str]) -> list[str]:
    names = sorted(printable(file) for file in files)
    return [f"listed more than once, used once: {', '.join(names[:5])}"] if names else []


def _overlapping(utterances: Sequence[Utterance]) -> list[str]:
    """The files in which speakers overlap: a split by speaker may put their common sound into two
    parts."""
    parts: dict[Path, list[Utterance]] = {}
    for utterance in utterances:
        parts.setdefault(utterance.path, []).append(utterance)
    found = []
    for path, spoken in parts.items():
        ends: dict[str, float] = {}
        for u in sorted(spoken, key=lambda u: u.start_s) if len(spoken) > 1 else ():
            if any(end > u.start_s for speaker, end in ends.items() if speaker != u.speaker):
                found.append(printable(path.name))
                break
            ends[u.speaker] = max(
                ends.get(u.speaker, 0.0), math.inf if u.end_s is None else u.end_s
            )
    shown = ", ".join(sorted(found)[:5])
    return [f"parts of different speakers overlap in {len(found)} files: {shown}"] if found else []


def _unknown_speakers(utterances: Sequence[Utterance]) -> list[str]:
    unknown = sum(u.speaker == UNKNOWN for u in utterances)
    return [f"the speaker of {unknown} clips is unknown; {SPEAKERS_REMEDY}"] if unknown else []
