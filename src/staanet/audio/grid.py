"""Samples as 16-bit integers: conversion from and to floats, resampling, cutting, tiling, hashing.

Clean audio is rounded to the 16-bit grid once. After that each sample is an exact integer, so that a
sample that an attack does not change is bit-identical on disk.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from staanet.errors import UnusableClip

Element = TypeVar("Element", bound=np.generic)

FULL_SCALE = 32_768
"""Steps of the 16-bit grid in [0, 1): one step is 2**-15."""


def snap(samples: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    """Returns the nearest 16-bit integers, limited to their range; ``to_float`` is the exact inverse.

    >>> snap(np.array([0.5, 1.0, -1.5]))
    array([ 16384,  32767, -32768], dtype=int16)
    """
    scaled = np.rint(samples * samples.dtype.type(FULL_SCALE))
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1, out=scaled).astype(np.int16)


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """Returns 16-bit integers as float samples in [-1, 1), exactly.

    >>> to_float(np.int16([16384, -32768]))
    array([ 0.5, -1. ], dtype=float32)
    """
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


def resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Resamples ``[T] -> [about T * to_hz / from_hz]`` by soxr's linear-phase filter VHQ.

    >>> len(resample(np.zeros(480, np.float32), 48_000, 16_000))
    160
    """
    if from_hz == to_hz:
        return samples
    import soxr

    result: NDArray[np.float32] = soxr.resample(samples, from_hz, to_hz, quality="VHQ")
    return result


def fit_length(samples: NDArray[Element], length: int, start: int = 0) -> NDArray[Element]:
    """Cuts or tiles a clip from ``start`` on, ``[T] -> [length]``; one that ends too soon is repeated.

    >>> fit_length(np.array([1, 2, 3]), 5)
    array([1, 2, 3, 1, 2])
    """
    return np.take(samples, np.arange(start, start + length), mode="wrap")


def content_hash(samples: NDArray[np.int16]) -> str:
    """Returns the sha256 of the little-endian samples, 64 hex digits; any file format gives the same."""
    return hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()


def cut(
    samples: NDArray[Element], sample_rate: int, start_s: float = 0.0, end_s: float | None = None
) -> NDArray[Element]:
    """Returns the part between two times, ``[T] -> [at most T]``; without ``end_s``, to the clip's end.

    Times may be rounded to milliseconds, so an end up to half a millisecond after the clip is allowed.
    Raises ``UnusableClip`` for a part that does not lie in the clip.

    >>> cut(np.array([1, 2, 3, 4]), 2, 0.5, 1.5)
    array([2, 3])
    """
    first = round(start_s * sample_rate)
    last = len(samples) if end_s is None else round(end_s * sample_rate)
    if not 0 <= first <= len(samples) or last > len(samples) + sample_rate // 2000:
        end = "the end" if end_s is None else f"{end_s:.9g} s"
        raise UnusableClip(
            f"its part from {start_s:.9g} s to {end} is not in the file, which ends at "
            f"{len(samples) / sample_rate:.9g} s",
            remedy="Correct the times in its row, or drop the row",
        )
    return samples[first:last]


def degeneracy(samples: NDArray[np.int16]) -> str | None:
    """Returns why a clip ``[T]`` holds no usable sound, or None where it does.

    >>> degeneracy(np.int16([0, 9, 0])), degeneracy(np.int16([7, 7])), degeneracy(np.int16([1, 2]))
    ('one click', 'constant (DC only)', 'one click')
    """
    if len(samples) == 0:
        return "0 samples"
    steps = np.flatnonzero(samples[1:] != samples[:-1])
    if len(steps) == 0:
        return "constant (DC only)" if samples[0] else "digital silence"
    first, last = int(steps[0]), int(steps[-1])
    there_and_back = last == first + 1 and samples[first] == samples[last + 1]
    at_an_end = first == last and first in (0, len(samples) - 2)
    return "one click" if there_and_back or at_an_end else None
