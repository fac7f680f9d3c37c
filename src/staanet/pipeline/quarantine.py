"""The quarantine: unusable clips are skipped and listed with their reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from staanet import storage
from staanet.core import Utterance
from staanet.errors import InvalidInput, UnusableClip
from staanet.pipeline.recording_notes import RecordingNotes


@dataclass
class Quarantine:
    """Skipped clips, each with its reason.

    With ``strict`` the first one raises ``InvalidInput`` instead.
    """

    strict: bool = False
    rows: list[dict[str, str]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    """Doubts about the victims of the command, as sentences."""
    notes: list[str] = field(default_factory=list)
    """Facts for the user to check, such as labels that were matched by their words."""
    recordings: RecordingNotes = field(default_factory=RecordingNotes)
    """What is odd about the recordings that were read."""
    _keys: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False, compare=False)

    def __call__(self, utterance: Utterance, problem: UnusableClip) -> None:
        if self.strict:
            raise InvalidInput(problem.what, where=problem.where, remedy=problem.remedy)
        self.add(utterance.id, problem)

    def warn(self, flag: str) -> None:
        """Adds a flag, once."""
        if flag not in self.flags:
            self.flags.append(flag)

    def warn_of(self, flags: Sequence[str]) -> dict[str, list[str]]:
        """Adds flags, and returns them as the entry of a card: empty where there are none.

        >>> Quarantine().warn_of(["few clips"]), Quarantine().warn_of([])
        ({'flags': ['few clips']}, {})
        """
        for flag in flags:
            self.warn(flag)
        return {"flags": list(flags)} if flags else {}

    def note(self, note: str) -> None:
        """Adds a note, once."""
        if note not in self.notes:
            self.notes.append(note)

    def add(self, clip_id: str, problem: UnusableClip) -> None:
        """Notes a clip and why it cannot be used."""
        self.put({"id": clip_id, "file": problem.where or clip_id, "reason": problem.what})

    def put(self, row: dict[str, str]) -> None:
        """Notes a row, unless it is there already."""
        if _key(row) not in self._keys:
            self._keys.add(_key(row))
            self.rows.append(row)

    def join(self, other: Quarantine) -> None:
        """Adds what another process noted, each row, flag, note and recording once."""
        for row in other.rows:
            self.put(row)
        for flag in other.flags:
            self.warn(flag)
        for note in other.notes:
            self.note(note)
        self.recordings.join(other.recordings)

    def save(self, folder: Path) -> None:
        """Writes ``quarantine.jsonl``, if any clip was skipped."""
        if self.rows:
            journal = storage.Journal(folder / "quarantine.jsonl")
            written = {_key(row) for row in journal}
            for row in self.in_order():
                if _key(row) not in written:
                    journal.append(row)

    def in_order(self) -> list[dict[str, str]]:
        """The rows sorted by id: the same in whatever order the clips were read."""
        return sorted(self.rows, key=lambda row: (row["id"], row["file"], row["reason"]))


def _key(row: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ("id", "file", "reason"))
