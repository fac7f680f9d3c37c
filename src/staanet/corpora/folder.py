"""Reads a corpus from class folders, a manifest, an audiofolder, or files without labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.core.protocols import PARTS, part_named
from staanet.corpora.files import (
    AUDIO_SUFFIXES,
    UNKNOWN,
    list_folder,
    omission_notes,
    require_folder,
)
from staanet.corpora.ids import safe_ids
from staanet.corpora.manifest import METADATA_FILES, ManifestOptions, read_manifest
from staanet.corpora.row_corpus import build_from_rows
from staanet.corpora.rows import Listing, Row
from staanet.errors import InvalidInput
from staanet.storage.lazy_rows import CategoryColumn


def read_folder(
    path: Path, label_map: Mapping[str, str] | None = None, options: ManifestOptions | None = None
) -> Corpus:
    """Return the corpus of a folder ``ROOT/label/...`` or ``ROOT/label/speaker/...``, or of a manifest.

    A folder with ``metadata.csv``, ``.jsonl`` or ``.parquet``, or with the Parquet files of Hugging
    Face ``datasets``, is read by those. Folders named as the parts of a split (``train``, ``test`` ...)
    may each hold such files or class folders. Links that leave the root, and files under two labels,
    are left out with a note. Raises ``InvalidInput`` for an inconsistent manifest, and where no clip
    remains.
    """
    options = options or ManifestOptions()
    manifest = path if path.is_file() else _metadata_file(path)
    if manifest is not None:
        listing, expected = read_manifest(manifest, options), "audio files in its rows"
        if not any(listing.rows.parts.categories) and _are_parts(listing.rows.files):
            names = (file.partition("/")[0] for file in listing.rows.files)
            listing.rows.parts = CategoryColumn(part_named(name) for name in names)
        return build_from_rows(listing, expected, label_map=label_map)
    require_folder(path, "folder")
    if shards := _shards(path):
        listing, expected = _join_manifests(path, shards, options), "sound in its Parquet files"
    elif manifests := _part_manifests(path):
        listing, expected = _join_manifests(path, manifests, options), "audio files in its rows"
        others = [p.name for p in list_folder(path) if part_named(p.name) not in PARTS]
        listing.notes += omission_notes(others, "not in a part of the split")
    else:
        if options != ManifestOptions():
            raise InvalidInput(
                "holds no manifest, whose columns or root could be named"
                if options.task == "classification"
                else "holds no manifest, whose columns could be numbers",
                where=path,
                remedy="Give the manifest itself, or drop --root, --column and --task",
            )
        listing, expected = _class_folders(path), "audio files in one folder per class"
    return build_from_rows(listing, expected, label_map=label_map)


# ---------------------------------------------------------------- manifests in a folder


def _metadata_file(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA_FILES if (folder / name).is_file()), None)


def _are_parts(names: Iterable[str]) -> bool:
    """Return whether the first folder of every file is a part of a split, as in an audiofolder."""
    tops = {part_named(name.partition("/")[0]) for name in names}
    return "train" in tops and tops <= set(PARTS)


SHARD = re.compile(r"(?P<part>[\w.]+)-[0-9]{5}-of-[0-9]{5}\.parquet")


def _shards(root: Path) -> list[tuple[str, Path]]:
    """Return part and path of the Parquet files that ``datasets`` writes, in ``root`` or ``data``."""
    folders = [folder for folder in (root, root / "data") if folder.is_dir()]
    files = [path for folder in folders for path in list_folder(folder)]
    matches = [(SHARD.fullmatch(path.name), path) for path in files]
    return [(part_named(match["part"]), path) for match, path in matches if match]


def _part_manifests(root: Path) -> list[tuple[str, Path]]:
    """Return part and path of each manifest of an audiofolder whose parts have their own.

    The list is empty where no part has one. Raises ``InvalidInput`` where only some parts have one.
    """
    folders = [p for p in list_folder(root) if part_named(p.name) in PARTS and p.is_dir()]
    manifests = []
    for folder in folders:
        if (manifest := _metadata_file(folder)) is not None:
            manifests.append((part_named(folder.name), manifest))
    if manifests and len(manifests) < len(folders):
        complete = {manifest.parent for _, manifest in manifests}
        raise InvalidInput(
            "has no metadata file, unlike another part of the split",
            where=next(folder for folder in folders if folder not in complete),
            remedy=f"Add {' or '.join(METADATA_FILES)}, or move the folder away",
        )
    return manifests


def _join_manifests(
    root: Path, manifests: Sequence[tuple[str, Path]], options: ManifestOptions
) -> Listing:
    """Read several manifests as one listing, with file names relative to ``root``."""
    joined = Listing(where=root, root=options.root or root)
    for part, manifest in manifests:
        listing = read_manifest(manifest, options)
        joined.dimensions = joined.dimensions or listing.dimensions
        if listing.dimensions != joined.dimensions:
            raise InvalidInput(
                f"has the numbers {', '.join(listing.dimensions)}, other parts have "
                f"{', '.join(joined.dimensions)}",
                where=manifest,
                remedy="Name the columns of numbers that all parts have (columns)",
            )
        name = manifest.parent.relative_to(root).as_posix()
        prefix = "" if options.root or name == "." else f"{name}/"
        for row in listing.rows:
            joined.rows.append(
                replace(row, file=f"{prefix}{row.file}", part=row.part or part or None)
            )
        for source, what in listing.aside:
            joined.put_aside(source, what)
        joined.aside_count += listing.aside_count - len(listing.aside)
        joined.notes += [f"{manifest.parent.name}: {note}" for note in listing.notes]
    return joined


# ---------------------------------------------------------------- class folders


@dataclass
class _Walk:
    """The audio files below ``root`` at any depth, with their names relative to it."""

    root: Path
    leave_out: Path | None = None
    files: dict[Path, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        out = None if self.leave_out is None else os.path.realpath(self.leave_out)
        pending = [self.root]
        while pending:
            folder = pending.pop()
            if os.path.realpath(folder) != out:
                pending += self._sort_entries(folder)

    def _sort_entries(self, folder: Path) -> list[Path]:
        """Note the files of a folder, and return its folders."""
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


def _class_folders(root: Path) -> Listing:
    """List ``LABEL/...`` and ``LABEL/SPEAKER/...``, perhaps below folders of the parts of a split."""
    walk = _Walk(root)
    names = sorted(walk.files.values())
    has_parts = _are_parts(name for name in names if "/" in name)
    listing = Listing(where=root, root=root)
    loose = []
    for name in names:
        folders = name.split("/")[:-1]
        part, folders = (folders[0], folders[1:]) if has_parts and folders else ("", folders)
        if folders:
            label, speaker = (*folders, "")[:2]
            source = str(root / part / label)
            listing.rows.append(Row(source, name, label, speaker, part=part_named(part) or None))
        else:
            loose.append(name)
    listing.notes += [
        *(["the folders of the split are not taken for classes"] * has_parts),
        *omission_notes(sorted(walk.others), "not audio by name"),
        *omission_notes(sorted(walk.links), "links to folders"),
        *omission_notes(loose, "not in the folder of a class"),
    ]
    return listing


# ---------------------------------------------------------------- files without labels


def unlabelled_corpus(paths: Sequence[Path], leave_out: Path | None = None) -> Corpus:
    """Return a corpus without labels: audio files, and all audio files below folders.

    Files below the folder ``leave_out`` are ignored. Raises ``InvalidInput`` where a path does not exist, or no audio file is found.
    """
    files: dict[Path, str] = {}
    others: list[str] = []
    for path in paths:
        if not os.path.lexists(path):
            raise InvalidInput("no such file or folder", where=path)
        if path.is_dir():
            walk = _Walk(path, leave_out)
            files |= walk.files
            others += walk.others
        else:
            files.setdefault(path, path.name)
    if not files:
        raise InvalidInput(
            "no audio file found", where=paths[0], remedy="Give WAV, FLAC, OGG or MP3 files"
        )
    ids = safe_ids({str(path): name for path, name in files.items()})
    utterances = [Utterance(ids[str(path)], path, None, UNKNOWN) for path in files]
    return Corpus(
        name="files",
        utterances=tuple(sorted(utterances, key=lambda u: u.id)),
        labels=(),
        notes=omission_notes(others, "not audio by name"),
    )
