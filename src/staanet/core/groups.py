"""Rates of many groups of clips, with a correction for having looked at many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from staanet.core import metrics

SPEAKER = "speaker"
"""The kind whose groups are the clusters: within one, clips count as independent."""
MIN_CLIPS = 3
"""Smaller groups are not looked at, and do not count as looks."""


@dataclass(frozen=True, slots=True)
class GroupRate:
    """The rate of one group, such as the clips of a class, beside that of all other clips.

    ``low`` and ``high`` are simultaneous: with 95 % probability all groups together lie within theirs
    (Bonferroni). ``p`` is of the difference to the others, and holds for all groups together (Holm
    1979, Scandinavian Journal of Statistics 6(2)). None where too few speakers tell.
    """

    kind: str
    name: str
    count: int
    speakers: int
    value: float
    low: float | None
    high: float | None
    others: float
    p: float | None

    @property
    def is_worse(self) -> bool:
        """Whether its rate is shown to be above that of the others."""
        return self.p is not None and self.p < 0.05 and self.value > self.others


def group_rates(
    outcomes: ArrayLike, kinds: Mapping[str, Sequence[str]], clusters: Sequence[str]
) -> list[GroupRate]:
    """Returns the rate of every group of every kind, the highest of each kind first.

    Args:
        outcomes: Of each clip, ``[N]``, 0 or 1: 1 where an attack fooled it.
        kinds: The group of each clip, ``[N]``, by kind, such as ``sex`` and ``class``; an empty name is
            no group.
        clusters: The speaker of each clip, ``[N]``.

    >>> found = group_rates([1, 1, 1, 0, 0, 0], {"class": list("aaabbb")}, list("xyzxyz"))
    >>> [(group.name, group.value, group.others) for group in found]
    [('a', 1.0, 0.0), ('b', 0.0, 1.0)]
    """
    hits, speakers = np.asarray(outcomes, dtype=float), np.asarray(clusters, dtype=str)
    members = [
        (kind, str(name), np.asarray(names, dtype=str) == name)
        for kind, names in kinds.items()
        for name in np.unique(np.asarray(names, dtype=str))
        if name
    ]
    looked = [m for m in members if MIN_CLIPS <= m[2].sum() <= len(hits) - MIN_CLIPS]
    level = 1 - 0.05 / max(1, len(looked))
    rates = [_rate(kind, name, inside, hits, speakers, level) for kind, name, inside in looked]
    order = list(kinds)
    return sorted(_holm(rates), key=lambda g: (order.index(g.kind), -g.value, g.name))


def _rate(
    kind: str,
    name: str,
    inside: NDArray[np.bool_],
    hits: NDArray[np.float64],
    speakers: NDArray[np.str_],
    level: float,
) -> GroupRate:
    if kind == SPEAKER:  # nothing is said of other speakers
        clusters = [str(index) for index in range(int(inside.sum()))]
        p: float | None = _exact_p(hits[inside], hits[~inside])
    else:
        clusters = list(speakers[inside])
        p = _clustered_p(hits, inside, speakers)
    estimate = metrics.rate(hits[inside], clusters, level)
    return GroupRate(
        kind=kind,
        name=name,
        count=estimate.count,
        speakers=len(np.unique(speakers[inside])),
        value=float(hits[inside].mean()),
        low=estimate.low,
        high=estimate.high,
        others=float(hits[~inside].mean()),
        p=p,
    )


def _exact_p(first: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Fisher's exact test of two rates."""
    from scipy.stats import fisher_exact

    table = np.array([[part.sum(), len(part) - part.sum()] for part in (first, others)], dtype=int)
    return float(fisher_exact(table).pvalue)


def _clustered_p(
    hits: NDArray[np.float64], inside: NDArray[np.bool_], speakers: NDArray[np.str_]
) -> float | None:
    """Of the difference between two rates whose clips share speakers, linearised; t of few speakers.

    The variance is never taken to be less than that of independent clips, as in ``paired_difference``.
    """
    from scipy.stats import t

    freedom = min(len(np.unique(speakers[part])) for part in (inside, ~inside)) - 1
    if freedom < 1:
        return None
    influence = np.empty_like(hits)
    independent = 0.0
    for part in (inside, ~inside):
        size = int(part.sum())
        sign = 1 if part is inside else -1
        influence[part] = sign * (hits[part] - hits[part].mean()) / size
        smoothed = (hits[part].sum() + 1) / (size + 2)
        independent += smoothed * (1 - smoothed) / size
    _, index, sizes = np.unique(speakers, return_inverse=True, return_counts=True)
    sums = np.bincount(index, influence)
    clustered = float(np.square(sums).sum()) * len(sizes) / (len(sizes) - 1)
    error = math.sqrt(max(clustered, independent))
    difference = hits[inside].mean() - hits[~inside].mean()
    return float(2 * t.sf(abs(difference) / error, freedom))


def _holm(rates: Sequence[GroupRate]) -> list[GroupRate]:
    """The rates with each ``p`` as it holds for all of them together.

    >>> rates = [GroupRate("class", n, 9, 3, 0.5, 0, 1, 0.4, p) for n, p in (("a", 0.01), ("b", 0.04))]
    >>> [group.p for group in _holm(rates)]
    [0.02, 0.04]
    """
    tested = sorted(
        (index for index, rate in enumerate(rates) if rate.p is not None),
        key=lambda index: rates[index].p or 0.0,
    )
    corrected: dict[int, float] = {}
    largest = 0.0
    for rank, index in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * (rates[index].p or 0.0)))
        corrected[index] = largest
    return [replace(rate, p=corrected.get(index)) for index, rate in enumerate(rates)]
