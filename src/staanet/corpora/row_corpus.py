"""Builds a corpus from the rows of a manifest or of class folders.

Labels are resolved. Files that are repeated, in conflict or outside the root are left out, with a note.
"""

from __future__ import annotations

import contextlib
import math
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from staanet.core import Corpus
from staanet.core.protocols import Fold, folds
from staanet.corpora.dimensions import with_dimensions
from staanet.corpora.files import UNKNOWN, omission_notes
from staanet.corpora.ids import distinct_ids
from staanet.corpora.labels import appearance, resolve_labels
from staanet.corpora.manifest import is_possible
from staanet.corpora.rows import Listing, Rows, RowUtterances, speaker_name
from staanet.errors import InvalidInput, first_names, printable
from staanet.storage.lazy_rows import (
    CategoryColumn,
    Indices,
    LazyRows,
    digests_of,
    duplicate_groups,
    iterate_ints,
)

SPEAKERS_REMEDY = (
    "a split by speaker needs them: put the files into LABEL/SPEAKER/ folders, or give a manifest"
    " with a speaker column (the file's name there, if every file is another speaker)"
)


def build_from_rows(
    listing: Listing,
    expected: str,
    *,
    name: str = "folder",
    label_map: Mapping[str, str] | None = None,
) -> Corpus:
    """Returns the corpus that the rows of ``listing`` describe.

    Rows without a label are put aside. Links that leave the root, and files with two labels, speakers or
    parts of the split, are left out with a note.

    Args:
        listing: The rows, and what was noted while they were read.
        expected: What clips should be there, for the error if there is none.
        name: The name of the corpus.
        label_map: From labels of the rows to classes.

    Raises:
        InvalidInput: ``resolve_labels`` refuses the labels, or no clip is left.
    """
    rows = listing.rows
    total = len(rows) + listing.aside_count
    labels = _resolve(listing, label_map)
    indices, omitted = _usable_rows(listing, labels)
    listing.require_rows(len(indices) + len(omitted))
    notes, warnings = listing.aside_messages(total)
    notes = [
        *listing.notes,
        *notes,
        *_trimmed_labels_note(labels),
        *omission_notes(omitted.outside_root, "links that leave the folder"),
        *omission_notes(omitted.conflicts, "listed under two labels or speakers"),
        *omission_notes(omitted.in_two_parts, "listed in two parts of the split"),
        *_repeated_note(omitted.repeated),
        *_similar_speakers_note(rows, indices),
        *_two_sexes_note(rows, indices),
        *_overlap_note(rows, indices),
    ]
    twins = twin_names(len(indices), lambda n: rows.files[int(indices[n])])
    if not len(indices):
        raise InvalidInput(
            f"no clip found: looked for {expected}", where=listing.where, remedy="; ".join(notes)
        )
    ids = distinct_ids(
        len(indices), lambda n: rows.key(int(indices[n])), lambda n: rows.name(int(indices[n]))
    )
    used_labels = {labels.get(word) for word in _words(rows.labels, indices)}
    maker = RowUtterances(listing.root, rows, indices, ids, labels)
    corpus = Corpus(
        name=name,
        utterances=LazyRows(maker, ids.sorted_indices()),
        labels=tuple(sorted(label for label in used_labels if label)),
        notes=tuple(notes),
        warnings=(*listing.warnings, *warnings, *twins, *_unknown_speakers_warning(rows, indices)),
        put_aside=tuple(listing.aside),
        fixed=_numbered_folds(rows, indices),
    )
    return with_dimensions(corpus, listing.dimensions) if listing.dimensions else corpus


# ---------------------------------------------------------------- labels


def _resolve(
    listing: Listing, label_map: Mapping[str, str] | None
) -> Mapping[str | None, str | None]:
    """Returns a map from each label in the rows to its class; puts rows without a label aside."""
    rows = listing.rows
    codes = np.frombuffer(rows.labels.codes, np.uint32)
    words = [word or "" for word in rows.labels.categories]
    firsts = np.unique(codes, return_index=True)[1].tolist()
    sources = {word: rows.source(row) for word, row in zip(words, firsts, strict=True)}
    labels = resolve_labels(sources, label_map, listing.where)
    missing = np.array([labels[word] is None for word in words], bool)
    for index in np.flatnonzero(missing[codes]).tolist() if len(codes) else []:
        word = rows.labels[index] or ""
        what = (
            f"the label is missing ('{printable(word[:40])}')"
            if word.strip()
            else "the label is empty"
        )
        listing.put_aside(rows.source(index), what, "Name the class, or give a label map")
    return {word: labels[word or ""] for word in rows.labels.categories}


def _trimmed_labels_note(labels: Mapping[str | None, str | None]) -> list[str]:
    changed = sorted(
        {label for word, label in labels.items() if word and label and word != word.strip()}
    )
    return [f"spaces around the label trimmed: {', '.join(changed)}"] if changed else []


# ---------------------------------------------------------------- which rows are used


@dataclass
class _Omitted:
    """Names of files that are left out, by reason, and of those that are used once (``repeated``)."""

    outside_root: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    in_two_parts: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.outside_root) + len(self.conflicts) + len(self.in_two_parts)


def _usable_rows(
    listing: Listing, labels: Mapping[str | None, str | None]
) -> tuple[Indices, _Omitted]:
    """Returns the indices of the rows that are used, one for each part of a file, and what is omitted."""
    rows, omitted = listing.rows, _Omitted()
    has_label = np.array([labels[word] is not None for word in rows.labels.categories], bool)
    codes = np.frombuffer(rows.labels.codes, np.uint32)
    is_used = has_label[codes] if len(codes) else np.zeros(0, bool)
    labelled = np.flatnonzero(is_used)
    keys = _real_keys(listing, labelled, is_used, omitted)
    for group in duplicate_groups(digests_of(keys)):
        first, *others = (int(labelled[number]) for number in group)
        if not is_used[first]:  # it leaves the root, and so do the others
            continue
        is_used[others] = False
        members = [first, *others]
        if len({(labels[rows.labels[n]], rows.speakers[n]) for n in members}) > 1:
            is_used[first] = False
            omitted.conflicts.append(rows.name(first))
        elif len({rows.parts[n] for n in members}) > 1:
            is_used[first] = False
            omitted.in_two_parts.append(rows.name(first))
        else:
            omitted.repeated.append(rows.name(first))
    return np.flatnonzero(is_used), omitted


def _real_keys(
    listing: Listing, indices: Indices, is_used: NDArray[np.bool_], omitted: _Omitted
) -> Iterator[str]:
    """Yield the keys that distinguish parts of files, with all links resolved.

    Rows whose file lies outside the root are marked as not used.
    """
    rows, top = listing.rows, os.path.realpath(listing.root)
    folders: dict[str, str] = {}
    for index in iterate_ints(indices):
        file, key = rows.files[index], rows.key(index)
        if not is_possible(file):
            yield key
            continue
        folder, _, name = file.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(listing.root / folder)
        real = f"{folders[folder]}/{name}"
        with contextlib.suppress(OSError):  # too long a name: put aside when it is read
            real = os.path.realpath(real) if os.path.islink(real) else real  # noqa: PTH114
        if not real.startswith(f"{top.rstrip('/')}/"):
            is_used[index] = False
            omitted.outside_root.append(file)
        yield real + key[len(file) :]


# ---------------------------------------------------------------- notes on the rows that are used


def _words(column: CategoryColumn, indices: Indices) -> list[str | None]:
    """Returns the distinct values of a column in these rows."""
    codes = np.frombuffer(column.codes, np.uint32)[indices]
    return [column.categories[code] for code in np.unique(codes).tolist()]


def _repeated_note(names: Sequence[str]) -> list[str]:
    shown = first_names(sorted(names))
    return [f"listed more than once, used once: {shown}"] if names else []


def _overlap_note(rows: Rows, indices: Indices) -> list[str]:
    """Notes files in which speakers overlap: a split may put their common sound into two parts."""
    starts = np.frombuffer(rows.starts)[indices]
    if not (starts.any() or np.isfinite(np.frombuffer(rows.ends)[indices]).any()):
        return []  # each row is all of a file
    overlapping = []
    files = digests_of(rows.files[index] for index in iterate_ints(indices))
    for group in duplicate_groups(files, starts):
        ends: dict[str, float] = {}
        for index in (int(indices[number]) for number in group):
            speaker, start = speaker_name(rows.speakers[index]), rows.starts[index]
            if any(end > start for other, end in ends.items() if other != speaker):
                overlapping.append(rows.files[index].rpartition("/")[2])
                break
            end_s = rows.end_s(index)
            ends[speaker] = max(ends.get(speaker, 0.0), math.inf if end_s is None else end_s)
    count = f"{len(overlapping)} file{'s' * (len(overlapping) != 1)}"
    shown = first_names(sorted(overlapping))
    return [f"parts of different speakers overlap in {count}: {shown}"] if overlapping else []


def _similar_speakers_note(rows: Rows, indices: Indices) -> list[str]:
    """Notes speakers whose names look alike: if they are one person, two parts of a split share it."""
    by_appearance: dict[str, set[str]] = {}
    for word in _words(rows.speakers, indices):
        by_appearance.setdefault(appearance(word or ""), set()).add(speaker_name(word))
    groups = [
        ", ".join(map(ascii, sorted(names))) for names in by_appearance.values() if len(names) > 1
    ]
    shown = "; ".join(sorted(groups)[:5])
    return [f"speakers that look alike are taken for different ones: {shown}"] if groups else []


def _two_sexes_note(rows: Rows, indices: Indices) -> list[str]:
    """Notes speakers whose rows do not agree on their sex."""
    columns = (rows.speakers, rows.sexes)
    codes = np.stack([np.frombuffer(column.codes, np.uint32)[indices] for column in columns])
    sexes: dict[str, set[str]] = {}
    for speaker, code in np.unique(codes, axis=1).T.tolist():
        if sex := rows.sexes.categories[code]:
            sexes.setdefault(speaker_name(rows.speakers.categories[speaker]), set()).add(sex)
    names = sorted(name for name, both in sexes.items() if len(both) > 1 and name != UNKNOWN)
    return [f"speakers of two sexes, by their rows: {first_names(names)}"] if names else []


def _unknown_speakers_warning(rows: Rows, indices: Indices) -> list[str]:
    is_unknown = [speaker_name(word) == UNKNOWN for word in rows.speakers.categories]
    codes = np.frombuffer(rows.speakers.codes, np.uint32)[indices]
    count = int(np.array(is_unknown, bool)[codes].sum()) if len(codes) else 0
    clips = "1 clip" if count == 1 else f"{count} clips"
    text = f"the speaker of {clips} is unknown; they are taken as one speaker, but "
    return [text + SPEAKERS_REMEDY] if count else []


def twin_names(count: int, file: Callable[[int], str]) -> list[str]:
    """Returns a warning on names that differ only in case or in the encoding of accents.

    >>> twin_names(3, ["a/X.wav", "a/x.wav", "b.wav"].__getitem__)
    ["file names that are one name on some other systems (case, accents): 'a/X.wav' and 'a/x.wav'"]
    """
    groups = []
    for group in duplicate_groups(digests_of(_folded(file(index)) for index in range(count))):
        names = sorted({file(index) for index in group})
        if len(names) > 1:
            groups.append(" and ".join(map(ascii, names)))
    shown = "; ".join(groups[:5])
    text = "file names that are one name on some other systems (case, accents)"
    return [f"{text}: {shown}"] if groups else []


def _folded(name: str) -> str:
    is_ascii = name.isascii()
    return name.lower() if is_ascii else unicodedata.normalize("NFC", name).casefold()


def _numbered_folds(rows: Rows, indices: Indices) -> Mapping[str, Sequence[Fold]]:
    """Return protocols for a split column of numbers: ``fold:N`` tests fold N.

    There are none where the folds share speakers, or where the column holds words.
    """
    columns = (rows.parts, rows.speakers)
    codes = np.stack([np.frombuffer(column.codes, np.uint32)[indices] for column in columns])
    groups: dict[str, list[str]] = {}
    for part, speaker in np.unique(codes, axis=1).T.tolist():
        number = rows.parts.categories[part] or ""
        groups.setdefault(number, []).append(speaker_name(rows.speakers.categories[speaker]))
    speakers = [speaker for members in groups.values() for speaker in members]
    if len(groups) < 3 or not all(map(str.isdecimal, groups)) or len(set(speakers)) < len(speakers):
        return {}
    by_number = folds(dict(sorted(groups.items(), key=lambda item: int(item[0]))))
    return {
        "folds": tuple(by_number.values()),
        **{f"fold:{number}": (fold,) for number, fold in by_number.items()},
    }
