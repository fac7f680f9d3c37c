"""Clips that cannot be used: each is put aside with its reason, and the run goes on without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from staanet import storage
from staanet.core import Utterance
from staanet.errors import InvalidInput, UnusableClip


@dataclass
class Quarantine:
    """Clips put aside, each with its reason; the run goes on without them."""

    strict: bool = False
    rows: list[dict[str, str]] = field(default_factory=list)
    _known: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False, compare=False)

    def __call__(self, utterance: Utterance, problem: UnusableClip) -> None:
        if self.strict:
            raise InvalidInput(problem.what, where=problem.where, remedy=problem.remedy)
        self.add(utterance.id, problem)

    def add(self, clip_id: str, problem: UnusableClip) -> None:
        row = {"id": clip_id, "file": problem.where or clip_id, "reason": problem.what}
        self.put(row)

    def put(self, row: dict[str, str]) -> None:
        """A row that says all of it; nothing is done where it is there."""
        if _told(row) not in self._known:
            self._known.add(_told(row))
            self.rows.append(row)

    def save(self, folder: Path) -> None:
        """Write ``quarantine.jsonl`` where anything was put aside."""
        if self.rows:
            journal = storage.Journal(folder / "quarantine.jsonl")
            known = {_told(row) for row in journal}
            for row in self.in_order():
                if _told(row) not in known:
                    journal.append(row)

    def in_order(self) -> list[dict[str, str]]:
        """The rows sorted by id, which is the same whoever read the clips, in whatever order."""
        return sorted(self.rows, key=lambda row: (row["id"], row["file"], row["reason"]))


def _told(row: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ("id", "file", "reason"))
