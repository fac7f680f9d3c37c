"""Finds one recording in two parts of a split, equal or after gain, shift, trimming or noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from staanet import audio
from staanet.config import SAMPLE_RATE
from staanet.core import Corpus, Samples, Utterance
from staanet.errors import UnusableClip

NEAR_COPY = 0.9
"""Normalised cross-correlation from which two clips are one recording."""
_LOW_BAND = 4  # the first look is at an eighth of the sampling rate: a quarter of the samples
_WORTH_A_LOOK = 0.6  # what the low band of a near copy has at least, under noise that is all low
_LOW_CLIPS = 20_000  # kept in memory, some 8 kB a second
_ROWS = 1024  # of the table of likeness, at a time


@dataclass(frozen=True, slots=True)
class _Recording:
    part: Corpus
    utterance: Utterance
    low: NDArray[np.float32] | None

    def samples(self) -> Samples:
        return self.part.load(self.utterance, SAMPLE_RATE).pcm16

    def low_band(self) -> NDArray[np.float32]:
        return _low_band(np.fft.rfft(self.samples())) if self.low is None else self.low


def shared_recordings(
    parts: Sequence[Corpus], progress: Callable[[str], None] = lambda what: None
) -> list[str]:
    """Returns a sentence for each recording that is in two parts of a split.

    A clip is compared with the few of other parts whose average spectrum is nearest to its own: by the
    correlation of their low bands, and where these are alike, of the whole.
    """
    recordings: list[_Recording] = []
    bands: list[NDArray[np.float32]] = []
    first: dict[str, _Recording] = {}
    copies: dict[tuple[str, str], str] = {}
    total = sum(len(part) for part in parts)
    utterances = [(part, utterance) for part in parts for utterance in part.utterances]
    for number, (part, utterance) in enumerate(utterances, start=1):
        progress(f"{number}/{total}")
        try:
            samples = part.load(utterance, SAMPLE_RATE).pcm16
        except UnusableClip:
            continue
        spectrum = np.fft.rfft(samples.astype(np.float64), max(len(samples), 128))
        low = _low_band(spectrum) if len(recordings) < _LOW_CLIPS else None
        recordings.append(_Recording(part, utterance, low))
        bands.append(_average_spectrum(spectrum))
        twin = first.setdefault(audio.content_hash(samples), recordings[-1])
        if twin.part is not part:
            _note_copy(copies, twin, recordings[-1], "equal")
    owners = np.array([parts.index(each.part) for each in recordings])
    pairs = sorted(set(_near(np.array(bands), owners)))
    for number, (i, j) in enumerate(pairs, start=1):
        progress(f"pair {number}/{len(pairs)}")
        a, b = recordings[i], recordings[j]
        key = a.utterance.id, b.utterance.id
        if key in copies or correlation(a.low_band(), b.low_band()) < _WORTH_A_LOOK:
            continue
        if (value := correlation(a.samples(), b.samples())) > NEAR_COPY:
            _note_copy(copies, a, b, f"correlated by {value:.2f}")
    return list(copies.values())


def _note_copy(copies: dict[tuple[str, str], str], a: _Recording, b: _Recording, how: str) -> None:
    ids = a.utterance.id, b.utterance.id
    copies[ids] = (
        f"{ids[0]} in {a.part.part} and {ids[1]} in {b.part.part} are one recording ({how})"
    )


def _near(bands: NDArray[np.float32], owners: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Pairs of clips worth a comparison: the three nearest to each, of ``bands [N, bands]``.

    ``owners [N]`` is the part of each clip; clips of one part are not compared.
    """
    for start in range(0, len(bands), _ROWS):
        likeness = bands[start : start + _ROWS] @ bands.T
        likeness[owners[start : start + _ROWS, None] == owners[None]] = -np.inf
        for offset, row in enumerate(likeness):
            nearest = np.argpartition(-row, 3)[:3] if len(row) > 3 else range(len(row))
            for j in nearest:
                if row[j] > 0.9:
                    yield min(start + offset, int(j)), max(start + offset, int(j))


def _average_spectrum(spectrum: NDArray[np.complex128], bands: int = 64) -> NDArray[np.float32]:
    """Log power in equal bands, free of gain: centred and of length 1, ``[F] -> [bands]``."""
    power = np.square(np.abs(spectrum))
    edges = np.linspace(0, len(power), bands + 1).astype(int)
    pooled = np.add.reduceat(power, edges[:-1]) / np.diff(edges)
    level = np.log(pooled + 1e-3 * pooled.mean() + 1e-9)
    centred = level - level.mean()
    unit: NDArray[np.float32] = (centred / max(float(np.linalg.norm(centred)), 1e-9)).astype("f4")
    return unit


def _low_band(spectrum: NDArray[np.complex128]) -> NDArray[np.float32]:
    """The waveform of the lowest quarter of a spectrum, at a quarter of the rate."""
    low: NDArray[np.float32] = np.fft.irfft(spectrum[: len(spectrum) // _LOW_BAND + 1]).astype("f4")
    return low


def correlation(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Returns the largest normalised cross-correlation of two clips over all shifts, in [0, 1].

    >>> x = np.int16([0, 90, -50, 20, 0, 0])
    >>> round(correlation(x, np.roll(-x // 2, 1)), 1)
    1.0
    """
    from scipy.signal import correlate

    x, y = (clip.astype(np.float64) for clip in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.abs(correlate(x, y, method="fft")).max()) / scale if scale else 0.0
