"""One recording in two parts of a split: equal, or equal but for gain, shift, trimming or noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet import audio
from staanet.core import Corpus, Samples
from staanet.errors import UnusableClip
from staanet.sanity.verdicts import Tell

NEAR_COPY = 0.9
"""Normalised cross-correlation from which two clips are one recording."""


def shared_recordings(parts: Sequence[Corpus], tell: Tell = lambda what: None) -> list[str]:
    """Recordings that are in two parts: equal, or equal but for gain, shift, trimming or noise.

    A clip is compared with the few of other parts whose average spectrum is nearest to its own.
    """
    rate, bands = 16_000, []
    everyone = [(part, utterance) for part in parts for utterance in part.utterances]
    usable: list[tuple[Corpus, Any]] = []
    hashes: dict[str, tuple[Corpus, Any]] = {}
    wrong = []
    for number, (part, utterance) in enumerate(everyone, start=1):
        tell(f"{number}/{len(everyone)}")
        try:
            samples = part.load(utterance, rate).pcm16
        except UnusableClip:
            continue
        usable.append((part, utterance))
        bands.append(_spectrum(samples))
        other, twin = hashes.setdefault(audio.content_hash(samples), (part, utterance))
        if other is not part:
            wrong.append(_copy_found(other, twin.id, part, utterance.id, "equal"))
    near = _near(np.array(bands), np.array([parts.index(part) for part, _ in usable]))
    for done, (i, j) in enumerate(near, start=1):
        tell(f"pair {done}/{len(near)}")
        (a, one), (b, two) = usable[i], usable[j]
        found = correlation(a.load(one, rate).pcm16, b.load(two, rate).pcm16)
        if found > NEAR_COPY and not any(one.id in w and two.id in w for w in wrong):
            wrong.append(_copy_found(a, one.id, b, two.id, f"correlated by {found:.2f}"))
    return wrong


def _near(bands: NDArray[np.float64], part: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Pairs of clips that are worth a comparison: ``bands [N, bands]``, of the parts ``part [N]``."""
    likeness = bands @ bands.T
    likeness[part[:, None] == part[None]] = -np.inf
    near = {
        (min(i, int(j)), max(i, int(j)))
        for i in range(len(bands))
        for j in np.argsort(-likeness[i])[:3]
        if likeness[i, j] > 0.9
    }
    return sorted(near)


def _copy_found(a: Corpus, one: str, b: Corpus, two: str, how: str) -> str:
    return f"{one} in {a.part} and {two} in {b.part} are one recording ({how})"


def _spectrum(samples: Samples, bands: int = 64) -> NDArray[np.float64]:
    """Average log spectrum, free of gain: centred and of length 1, ``[T] -> [bands]``."""
    power = np.square(np.abs(np.fft.rfft(samples.astype(np.float64), max(len(samples), 2 * bands))))
    pooled = np.array([chunk.mean() for chunk in np.array_split(power, bands)])
    level = np.log(pooled + 1e-3 * pooled.mean() + 1e-9)
    centred = level - level.mean()
    unit: NDArray[np.float64] = centred / max(float(np.linalg.norm(centred)), 1e-9)
    return unit


def correlation(a: Samples, b: Samples) -> float:
    """The largest normalised cross-correlation of two clips over all shifts, in [0, 1].

    >>> x = np.int16([0, 90, -50, 20, 0, 0])
    >>> round(correlation(x, np.roll(-x // 2, 1)), 1)
    1.0
    """
    from scipy.signal import correlate

    x, y = (one.astype(np.float64) - one.mean() for one in (a, b))
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.abs(correlate(x, y, method="fft")).max()) / scale if scale else 0.0
