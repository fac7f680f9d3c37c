"""Shards of work: ``3/16`` is every sixteenth clip of a sorted list, from the third on.

The result of a clip depends on the clip, the settings and the seed alone. So shards may be made on any
machines and in any order; ``staanet merge`` joins them and checks that they fit together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from staanet.errors import InvalidInput, printable

T = TypeVar("T")
MAX_SHARDS = 100_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``number`` (from 1) of ``of`` parts.

    >>> Shard(2, 3).part("abcdefg"), str(Shard(2, 3))
    ('be', '2/3')
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parses ``3/16``; raises ``InvalidInput`` for anything else."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.of <= MAX_SHARDS:
            raise InvalidInput(
                f"--shard '{printable(text)}' is not one part of 1 to {MAX_SHARDS}",
                remedy="Write for example --shard 3/16 for the third of sixteen",
            )
        return shard

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """Returns every ``of``-th item, from the ``number``-th on."""
        return items[self.number - 1 :: self.of]

    def card(self, ids: Iterable[str]) -> dict[str, Any]:
        """Returns the entries of a shard for a card; ``ids`` are those of the whole list, in its order."""
        return {"number": self.number, "of": self.of, "listing": hash_ids(ids)}

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def hash_ids(ids: Iterable[str]) -> str:
    """Returns the sha256 of ids in their order, 64 hex digits; shards of one list have the same."""
    digest = hashlib.sha256()
    for item_id in ids:
        digest.update(item_id.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
