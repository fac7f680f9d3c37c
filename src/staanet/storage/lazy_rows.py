"""A million rows in little memory: texts packed in one buffer, words by number, objects made when asked.

A Python object for each row of a large manifest takes more than a kilobyte; a row here takes about as
many bytes as its text, and as many again for its numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Made_co = TypeVar("Made_co", covariant=True)
Places = NDArray[np.int64]
_RUN = 1024


class Texts:
    """Texts that are mostly different: their bytes one after another.

    >>> texts = Texts(["one", "", "drei"])
    >>> len(texts), texts[2], list(texts)
    (3, 'drei', ['one', '', 'drei'])
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add one; half a surrogate pair, which a JSON file may hold, is kept as it is."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        if not 0 <= place < len(self):
            raise IndexError(place)
        text = self._bytes[self._ends[place] : self._ends[place + 1]]
        return text.decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def longest(self) -> int:
        """The bytes of the longest one."""
        return int(np.diff(np.frombuffer(self._ends, np.uint64)).max(initial=0))


class Words:
    """Texts, or None, of which there are few different ones: each is kept once, and numbered.

    >>> words = Words(["joy", "fear", "joy", None])
    >>> words[2], words[3], words.known, list(words.codes)
    ('joy', None, ['joy', 'fear', None], [0, 1, 0, 2])
    """

    def __init__(self, words: Iterable[str | None] = ()) -> None:
        self.known: list[str | None] = []
        self.codes = array("I")
        self._numbers: dict[str | None, int] = {}
        for word in words:
            self.append(word)

    def append(self, word: str | None) -> None:
        """Add one."""
        number = self._numbers.setdefault(word, len(self.known))
        if number == len(self.known):
            self.known.append(word)
        self.codes.append(number)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, place: int) -> str | None:
        return self.known[self.codes[place]]


class Table:
    """Rows of a table of texts; what a row does not have is empty in it.

    >>> list(Table(["a", "b"], [{"a": "1", "b": "2"}, {"a": "3", "c": "4"}]).rows())
    [{'a': '1', 'b': '2'}, {'a': '3', 'b': ''}]
    """

    def __init__(self, names: Iterable[str], rows: Iterable[Mapping[str, str]] = ()) -> None:
        self.columns = {name: Texts() for name in names}
        for row in rows:
            self.append(row)

    def append(self, row: Mapping[str, str]) -> int:
        """Add a row; returns its number."""
        for name, texts in self.columns.items():
            texts.append(row.get(name, ""))
        return len(texts) - 1

    def make(self, row: int) -> dict[str, str]:
        return {name: texts[row] for name, texts in self.columns.items()}

    def field(self, name: str) -> Callable[[int], str] | None:
        return None

    def rows(self, numbers: Sequence[int] | None = None) -> Made[dict[str, str]]:
        """The rows of those numbers, or all, each made when it is looked at."""
        if numbers is None:
            numbers = range(len(next(iter(self.columns.values()), ())))
        return Made(self, np.array(numbers, np.int64))


class Maker(Protocol[Made_co]):
    """What makes the object of a row; ``field`` tells one of its values without making it."""

    def make(self, row: int) -> Made_co: ...

    def field(self, name: str) -> Callable[[int], Any] | None: ...


class Made(Sequence[T]):
    """Objects of chosen rows in a chosen order, each made anew when it is looked at and never kept.

    It equals any sequence of the same objects, a tuple too.
    """

    def __init__(self, maker: Maker[T], rows: Places) -> None:
        self.maker, self.rows = maker, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Made[T]: ...
    def __getitem__(self, place: int | slice) -> T | Made[T]:
        if isinstance(place, slice):
            return Made(self.maker, self.rows[place])
        return self.maker.make(int(self.rows[place]))

    def __iter__(self) -> Iterator[T]:
        return map(self.maker.make, integers(self.rows))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Made | tuple | list):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(islice(self, 3)))

    def __repr__(self) -> str:
        return f"({', '.join(map(repr, islice(self, 3)))}{', ...' * (len(self) > 3)})"


def integers(rows: Places) -> Iterator[int]:
    """The numbers of an array as Python's, a few at a time.

    >>> list(integers(np.array([3, 1])))
    [3, 1]
    """
    for start in range(0, len(rows), _RUN):
        yield from rows[start : start + _RUN].tolist()


def field(objects: Sequence[Any], name: str) -> Iterator[Any]:
    """One attribute of each object, without making the objects where there is a shorter way."""
    if isinstance(objects, Made) and (short := objects.maker.field(name)) is not None:
        return map(short, integers(objects.rows))
    return (getattr(one, name) for one in objects)


def where(objects: Sequence[T], wanted: Iterable[bool]) -> Sequence[T]:
    """The objects that are wanted, in the same order: a tuple, or rows to be made where they are that.

    >>> where(("a", "b", "c"), [True, False, True])
    ('a', 'c')
    """
    if isinstance(objects, Made):
        chosen = np.fromiter(wanted, bool, len(objects))
        return Made(objects.maker, objects.rows[chosen])
    return tuple(one for one, is_wanted in zip(objects, wanted, strict=True) if is_wanted)


def sorted_places(texts: Texts) -> Places:
    """The places of ASCII texts in the order of the texts.

    >>> sorted_places(Texts(["b", "c", "a"])).tolist()
    [2, 0, 1]
    """
    width = max(1, texts.longest())
    packed = np.fromiter((text.encode("ascii") for text in texts), f"S{width}", len(texts))
    return packed.argsort(kind="stable")


# ---------------------------------------------------------------- equal texts among millions

Digests = NDArray[np.uint64]
"""``[N, 2]``: 128 bits of each text, which no two different texts share."""


def digests_of(texts: Iterable[str]) -> Digests:
    """What tells equal texts from different ones."""
    found = bytearray()
    for text in texts:
        found += blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.frombuffer(bytes(found), np.uint64).reshape(-1, 2)


def repeated(digests: Digests, then: NDArray[Any] | None = None) -> Iterator[list[int]]:
    """The places of texts that are there more than once, a list for each text; in their order, or in that
    of ``then``.

    >>> list(repeated(digests_of(["a", "b", "a"])))
    [[0, 2]]
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]) if then is None else (then, *digests.T))
    ordered = digests[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8)))
    groups = [order[first : last + 1].tolist() for first, last in edges.reshape(-1, 2)]
    yield from groups if then is not None else sorted(groups)
