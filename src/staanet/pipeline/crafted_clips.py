"""The finished clips of an adversarial set, kept in a journal while the attack runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import Clip
from staanet.errors import InvalidInput
from staanet.results import adversarial_set
from staanet.storage import lazy_rows

_COLUMNS = (
    *adversarial_set.COLUMNS,
    "seconds",
    adversarial_set.SOURCE_FILE,
    adversarial_set.TARGET_CLASS,
    "sha256",
)


@dataclass
class CraftedClips:
    """A row for each clip that is done, with the hash of the clip."""

    out: Path
    journal: storage.Journal
    table: lazy_rows.TextTable = field(default_factory=lambda: lazy_rows.TextTable(_COLUMNS))
    earlier: dict[str, int] = field(default_factory=dict)
    """Row numbers of the clips of an earlier run, by id."""
    rows: dict[str, int] = field(default_factory=dict)
    """Row numbers of the clips that were read: one that is gone since is not in the set."""
    total: int = 0

    @classmethod
    def of(cls, out: Path) -> CraftedClips:
        """The clips that an earlier run finished in a folder."""
        crafted = cls(out, storage.Journal(out / "journal.jsonl"))
        for record in crafted.journal:
            row = {key: str(value) for key, value in record.items()}
            if {"id", "sha256"} <= row.keys():
                crafted.earlier[row["id"]] = crafted.table.append(row)
        return crafted

    def has(self, clip: Clip, digest: str) -> bool:
        """Whether this very clip is done and its files match; then it counts as read."""
        number = self.earlier.get(clip.id)
        row = {} if number is None else self.table.build(number)
        done = row.get("sha256") == digest and _files_match(self.out, row)
        if done and number is not None:
            self.rows[clip.id] = number
            self.count(digest)
        return done

    def add(self, clip: Clip, digest: str, row: dict[str, str]) -> None:
        """Notes a clip that was crafted and written."""
        self.journal.append({**row, "sha256": digest})
        self.rows[clip.id] = self.table.append(row)
        self.count(digest)

    def count(self, digest: str) -> None:
        """Adds a clip that was read to the hash of the set, whether or not it could be attacked."""
        self.total = (self.total + int(digest, 16)) % 2**256

    def in_order(self) -> Sequence[Mapping[str, str]]:
        """The rows of the set in the order of their ids."""
        return self.table.rows([self.rows[name] for name in sorted(self.rows)])

    def sha256(self) -> str:
        """The ``sum_of`` the hashes of all clips that were read."""
        return f"sum:{self.total:064x}"


def _files_match(out: Path, row: Mapping[str, Any]) -> bool:
    """Whether the files of a clip still match their measurements."""
    try:
        measured = adversarial_set.read_clip(out, row).measurements()
    except InvalidInput:
        return False
    return all(row.get(key) == repr(value) for key, value in measured.items())
