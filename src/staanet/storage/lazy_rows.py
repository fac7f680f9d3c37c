"""A million rows in compact memory: pyarrow columns, with objects built on access.

A Python object for each row of a large manifest takes more than a kilobyte. Here a row takes about
as many bytes as its text, and as many again for its numbers.
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
T_co = TypeVar("T_co", covariant=True)
Indices = NDArray[np.int64]
_CHUNK = 4096


class TextColumn:
    """Texts that mostly differ.

    >>> column = TextColumn(["one", "", "drei"])
    >>> len(column), column[2], list(column)
    (3, 'drei', ['one', '', 'drei'])
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._chunks: list[Any] = []  # pyarrow arrays of _CHUNK texts each
        self._tail: list[bytes] = []
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text; half a surrogate pair, which a JSON file may hold, is kept as it is."""
        self._tail.append(text.encode("utf-8", "surrogatepass"))
        if len(self._tail) == _CHUNK:
            self._chunks.append(_packed(self._tail))
            self._tail = []

    def __len__(self) -> int:
        return len(self._chunks) * _CHUNK + len(self._tail)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk, offset = divmod(index, _CHUNK)
        is_packed = chunk < len(self._chunks)
        data = self._chunks[chunk][offset].as_py() if is_packed else self._tail[offset]
        return str(data, "utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for chunk in (*self._chunks, _packed(self._tail)):
            for data in chunk.to_pylist():
                yield str(data, "utf-8", "surrogatepass")

    def sorted_indices(self) -> Indices:
        """Returns the indices of the texts in the order of their UTF-8 bytes.

        >>> TextColumn(["b", "c", "a"]).sorted_indices().tolist()
        [2, 0, 1]
        """
        import pyarrow
        from pyarrow import compute

        texts = pyarrow.chunked_array([*self._chunks, _packed(self._tail)])
        order: Indices = compute.sort_indices(texts).to_numpy().astype(np.int64)
        return order


def _packed(texts: Sequence[bytes]) -> Any:
    import pyarrow

    # pyarrow's own pool keeps some 70 MiB of a million rows to itself
    return pyarrow.array(texts, pyarrow.binary(), memory_pool=pyarrow.system_memory_pool())


class CategoryColumn:
    """Texts, or None, of which few differ: each is kept once, in ``categories``, and numbered.

    >>> column = CategoryColumn(["joy", "fear", "joy", None])
    >>> column[2], column[3], column.categories, list(column.codes)
    ('joy', None, ['joy', 'fear', None], [0, 1, 0, 2])
    """

    def __init__(self, values: Iterable[str | None] = ()) -> None:
        self.categories: list[str | None] = []
        self.codes = array("I")
        self._numbers: dict[str | None, int] = {}
        for value in values:
            self.append(value)

    def append(self, value: str | None) -> None:
        """Add a value."""
        number = self._numbers.setdefault(value, len(self.categories))
        if number == len(self.categories):
            self.categories.append(value)
        self.codes.append(number)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> str | None:
        return self.categories[self.codes[index]]


class RowBuilder(Protocol[T_co]):
    """Builds the object of a row; ``getter`` reads one of its attributes without building it."""

    def build(self, row: int) -> T_co: ...

    def getter(self, name: str) -> Callable[[int], Any] | None: ...


class LazyRows(Sequence[T]):
    """A view of some rows in some order, each object built on access and never kept.

    It equals any sequence of the same objects, a tuple too.
    """

    def __init__(self, builder: RowBuilder[T], indices: Indices) -> None:
        self.builder, self.indices = builder, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> LazyRows[T]: ...
    def __getitem__(self, index: int | slice) -> T | LazyRows[T]:
        if isinstance(index, slice):
            return LazyRows(self.builder, self.indices[index])
        return self.builder.build(int(self.indices[index]))

    def __iter__(self) -> Iterator[T]:
        return map(self.builder.build, iterate_ints(self.indices))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LazyRows | tuple | list):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(islice(self, 3)))

    def __repr__(self) -> str:
        return f"({', '.join(map(repr, islice(self, 3)))}{', ...' * (len(self) > 3)})"


class TextTable:
    """Rows of text columns; a column that a row does not have is empty in it.

    >>> list(TextTable(["a", "b"], [{"a": "1", "b": "2"}, {"a": "3", "c": "4"}]).rows())
    [{'a': '1', 'b': '2'}, {'a': '3', 'b': ''}]
    """

    def __init__(self, names: Iterable[str], rows: Iterable[Mapping[str, str]] = ()) -> None:
        self.columns = {name: TextColumn() for name in names}
        for row in rows:
            self.append(row)

    def append(self, row: Mapping[str, str]) -> int:
        """Add a row; returns its index."""
        for name, column in self.columns.items():
            column.append(row.get(name, ""))
        return len(column) - 1

    def build(self, row: int) -> dict[str, str]:
        """Returns a row."""
        return {name: column[row] for name, column in self.columns.items()}

    def getter(self, name: str) -> Callable[[int], str] | None:
        """Returns None: rows are dicts, which have no attributes."""
        return None

    def rows(self, indices: Sequence[int] | None = None) -> LazyRows[dict[str, str]]:
        """Returns the rows of these indices, or all."""
        if indices is None:
            indices = range(len(next(iter(self.columns.values()), ())))
        return LazyRows(self, np.array(indices, np.int64))


def iterate_ints(indices: Indices) -> Iterator[int]:
    """Yields the numbers of an array as Python ints, without a list of all of them.

    >>> list(iterate_ints(np.array([3, 1])))
    [3, 1]
    """
    for start in range(0, len(indices), _CHUNK):
        yield from indices[start : start + _CHUNK].tolist()


def attribute_values(objects: Sequence[Any], name: str) -> Iterator[Any]:
    """Yields one attribute of each object, without building the objects where that is possible."""
    if isinstance(objects, LazyRows) and (getter := objects.builder.getter(name)) is not None:
        return map(getter, iterate_ints(objects.indices))
    return (getattr(item, name) for item in objects)


def filter_rows(objects: Sequence[T], mask: Iterable[bool]) -> Sequence[T]:
    """Returns the objects where ``mask`` is True, in the same order: lazy rows, or a tuple.

    >>> filter_rows(("a", "b", "c"), [True, False, True])
    ('a', 'c')
    """
    if isinstance(objects, LazyRows):
        return LazyRows(objects.builder, objects.indices[np.fromiter(mask, bool, len(objects))])
    return tuple(item for item, is_selected in zip(objects, mask, strict=True) if is_selected)


# ---------------------------------------------------------------- equal texts among millions

Digests = NDArray[np.uint64]
"""``[N, 2]``: 128 bits of each text, which no two different texts share."""


def digests_of(texts: Iterable[str]) -> Digests:
    """Returns keys that are equal just for equal texts, in 16 bytes a text."""
    digests = bytearray()
    for text in texts:
        digests += blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def duplicate_groups(digests: Digests, order_by: NDArray[Any] | None = None) -> Iterator[list[int]]:
    """Yields the indices of each text that occurs more than once.

    Indices ascend, or follow ``order_by``.

    >>> list(duplicate_groups(digests_of(["a", "b", "a"])))
    [[0, 2]]
    """
    keys = (digests[:, 1], digests[:, 0]) if order_by is None else (order_by, *digests.T)
    order = np.lexsort(keys)
    ordered = digests[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8)))
    groups = [order[first : last + 1].tolist() for first, last in edges.reshape(-1, 2)]
    yield from groups if order_by is not None else sorted(groups)
