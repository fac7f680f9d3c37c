"""What is odd about the recordings that a result is made of: clipped, cut, almost silent, resampled."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from staanet.core import Clip
from staanet.errors import printable

SHOWN_IDS = 3
"""So many clips of each note are named."""
MAX_NOTES = 100
"""So many different notes are kept."""
NUMBER = re.compile(r"-?\d+(\.\d+)?(?! Hz|\d|\.)")
"""A number in a note; rates are not among them."""


@dataclass
class RecordingNotes:
    """Counts how many clips have each note, and names some; the order of the clips does not matter.

    Notes that differ in a number alone are one: where the numbers differ, dots stand for them.

    >>> notes = RecordingNotes.of([Clip("a", [], 8000, notes=("clipped",)), Clip("b", [], 8000)])
    >>> notes.entry()
    {'recordings': {'clipped': {'count': 1, 'clips': ['a']}}}
    >>> notes.lines()
    ['clipped: a']
    """

    counts: dict[str, int] = field(default_factory=dict)
    """By the note without its numbers."""
    texts: dict[str, str] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    _seen: dict[str, set[bytes]] = field(default_factory=dict, repr=False)
    """By the note: hashes of the ids that were counted. They are the same in each process."""

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> RecordingNotes:
        """The notes of some clips."""
        notes = cls()
        for clip in clips:
            notes.add(clip)
        return notes

    def add(self, clip: Clip) -> None:
        """Counts the notes of a clip, once however often it is read."""
        for note in clip.notes:
            key, earlier = blake2b(clip.id.encode(), digest_size=8).digest(), self._seen_with(note)
            if key not in earlier:
                earlier.add(key)
                self._count(note, 1, [clip.id])

    def join(self, other: RecordingNotes) -> None:
        """Adds the clips that another process read, each once for a note."""
        for note, keys in other._seen.items():
            earlier, kind = self._seen_with(note), NUMBER.sub("...", note)
            new_ids = set(other.ids[kind]) - set(self.ids.get(kind, []))
            self._count(note, len(keys - earlier), sorted(new_ids))
            earlier |= keys

    def _seen_with(self, note: str) -> set[bytes]:
        return self._seen.setdefault(note, set())

    def merge(self, entry: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds what a card says of other clips."""
        for note, entries in entry.items():
            self._count(note, int(entries["count"]), [str(name) for name in entries["clips"]])

    def _count(self, note: str, count: int, ids: list[str]) -> None:
        kind = NUMBER.sub("...", note)
        self.texts[kind] = note if self.texts.get(kind, note) == note else kind
        self.counts[kind] = self.counts.get(kind, 0) + count
        self.ids[kind] = heapq.nsmallest(SHOWN_IDS, [*self.ids.get(kind, []), *ids])

    def entry(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What a card says: count and first clips of each note. Empty if nothing is odd."""
        entries = {
            self.texts[kind]: {"count": self.counts[kind], "clips": self.ids[kind]}
            for kind in sorted(self.counts)[:MAX_NOTES]
        }
        return {"recordings": entries} if entries else {}

    def lines(self) -> list[str]:
        """A line for each note, the commonest first."""
        ordered = sorted(self.counts, key=lambda kind: (-self.counts[kind], kind))
        return [f"{self.texts[kind]}: {self._names(kind)}" for kind in ordered]

    def _names(self, kind: str) -> str:
        more = self.counts[kind] - len(self.ids[kind])
        names = ", ".join(map(printable, self.ids[kind]))
        return f"{names} and {more} more" if more else names
