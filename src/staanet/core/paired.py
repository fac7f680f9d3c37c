"""Compares two outcomes of the same clips: difference, interval, and smallest detectable difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from staanet.errors import InvalidInput

POWER = 0.8
"""How often a test set should show a true difference of ``Difference.least``."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference over ``count`` clips of ``clusters`` speakers, with its interval.

    ``least`` is the least true difference that this test set would have shown in 80 % of repetitions.
    A difference nearer to 0 may be real, and these clips cannot tell. With one speaker, interval, ``p``
    and ``least`` are None. Without a clip, ``value`` is None too.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    least: float | None
    count: int
    clusters: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def is_real(self) -> bool:
        """Whether it is shown, and is no smaller than what these clips could be relied on to show."""
        return self.is_shown and abs(self.value or 0.0) >= (self.least or 0.0)


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[str], level: float = 0.95
) -> Difference:
    """Returns the mean of ``a - b`` over clips, with an interval that knows that clips share speakers.

    The variance is that of a mean with clusters, with the small-sample correction CR2 and Satterthwaite
    degrees of freedom (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018, Journal of Business and
    Economic Statistics 36(4)). Few speakers therefore give a wide interval. It is never taken to be less than
    that of independent clips (Agresti and Min 2005, Statistics in Medicine 24(5)), since few changed clips
    may by chance be alike in all speakers.

    Args:
        a: Outcome of each clip, ``[N]``, in [0, 1]: 1 where the first attack fooled it.
        b: The same of the second attack, on the same clips.
        clusters: The speaker of each clip, ``[N]``.
        level: Of the interval; ``p`` below ``1 - level`` is where it leaves out 0.

    Raises:
        InvalidInput: The three have different lengths.

    >>> speakers = [str(i % 8) for i in range(80)]
    >>> difference = paired_difference([1] * 40 + [0] * 40, [0] * 80, speakers)
    >>> difference.value, difference.is_shown
    (0.5, True)
    """
    from scipy.special import stdtr, stdtrit

    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    names = np.asarray(clusters, dtype=str)
    if not len(first) == len(second) == len(names):
        raise InvalidInput(
            f"{len(first)} outcomes against {len(second)}, of {len(names)} clips",
            remedy="Compare the same clips",
        )
    if not len(first):
        return Difference(None, None, None, None, None, 0, 0)
    difference = first - second
    value, number = float(difference.mean()), len(np.unique(names))
    if number < 2:
        return Difference(value, None, None, None, None, len(first), number)
    clustered, freedom = _clustered_variance(difference, names)
    independent = _independent_variance(difference)
    error = math.sqrt(max(clustered, independent))
    reach = float(stdtrit(freedom, 0.5 + level / 2)) * error
    return Difference(
        value=value,
        low=max(-1.0, value - reach),
        high=min(1.0, value + reach),
        p=float(2 * stdtr(freedom, -abs(value) / error)),
        least=min(1.0, _least_difference(clustered, independent, freedom, level)),
        count=len(first),
        clusters=number,
    )


def _clustered_variance(
    difference: NDArray[np.float64], names: NDArray[np.str_]
) -> tuple[float, float]:
    """Variance of the mean of ``difference [N]``, and its degrees of freedom: the fewer of those for
    independent clips, and for clips of a speaker that are all alike."""
    count = len(difference)
    _, index, sizes = np.unique(names, return_inverse=True, return_counts=True)
    sums = np.bincount(index, difference - difference.mean())
    weights = 1 / (1 - sizes / count)  # CR2: squared, so that equal clusters give G / (G - 1)
    clustered = float((np.square(sums) * weights).sum()) / count**2
    centred = np.eye(len(sizes)) - sizes / count
    scale = np.sqrt(np.outer(weights, weights))
    models = (scale * (centred * sizes) @ centred.T, scale * (centred * sizes**2) @ centred.T)
    freedom = min(float(np.trace(m) ** 2 / np.square(m).sum()) for m in models)
    return clustered, freedom


def _independent_variance(difference: NDArray[np.float64]) -> float:
    """Variance of the mean where clips have nothing in common; above 0 even if all are alike."""
    size = len(difference) + 2
    total, squares = float(difference.sum()), float(np.square(difference).sum())
    return (squares + 1 - total**2 / size) / size**2


def _least_difference(clustered: float, independent: float, freedom: float, level: float) -> float:
    """The true difference at which the test of ``paired_difference`` succeeds with ``POWER``.

    The error that a repetition would find varies as chi-squared, and never falls below that of
    independent clips.
    """
    from scipy.optimize import brentq
    from scipy.special import gammaincinv, ndtr, stdtrit

    def ratio_quantiles(q: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantiles of chi-squared over its degrees of freedom."""
        return np.asarray(2 * gammaincinv(freedom / 2, q) / freedom)

    typical = clustered / float(ratio_quantiles(0.5))  # few speakers' is often too small
    error = math.sqrt(max(typical, independent))
    ratio = ratio_quantiles((np.arange(200) + 0.5) / 200)
    errors = np.sqrt(np.maximum(ratio, independent / error**2))
    critical = float(stdtrit(freedom, 0.5 + level / 2)) * errors
    return error * float(
        brentq(
            lambda shift: float(ndtr(shift - critical).mean()) - POWER, 0, 5 + 2 * critical.max()
        )
    )
