"""Shards of work: ``3/16`` is every sixteenth clip of a sorted list, from the third on.

What is made of a clip depends on nothing but the clip, the settings and the seed, so shards made on
any machines, in any order, are together what one machine makes alone; ``staanet merge`` proves it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from staanet.errors import InvalidInput, printable

T = TypeVar("T")
MOST = 100_000


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
        if not 1 <= shard.number <= shard.of <= MOST:
            raise InvalidInput(
                f"--shard '{printable(text)}' is not one part of 1 to {MOST}",
                remedy="Write for example --shard 3/16 for the third of sixteen",
            )
        return shard

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """Every ``of``-th item, from the ``number``-th on."""
        return items[self.number - 1 :: self.of]

    def card(self, ids: Iterable[str]) -> dict[str, Any]:
        """The card's entries of a shard: its number, and the list (by its ids) that it is a part of."""
        return {"number": self.number, "of": self.of, "listing": listing(ids)}

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def listing(ids: Iterable[str]) -> str:
    """The sha256 of a list of ids, in its order: shards of one list fit together, others do not."""
    digest = hashlib.sha256()
    for item_id in ids:
        digest.update(item_id.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
