"""Recordings of any length in flat memory: windows that are clips of their own, and joined again.

Neither network has an exact context that would let a part of a clip be computed alone: the mirror's
LSTM runs over the whole clip both ways, GroupNorm of the Wave-U-Nets spans it, and both scale what they
propose by its root mean square. So windows are the definition, as they are for whoever analyses a long
recording: each is attacked, judged and measured as a clip, and equals that part attacked as a file. The
adversarial recording is its windows in order; parts without sound stay as they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from staanet import audio, storage
from staanet.core import Samples, Utterance
from staanet.errors import UnusableClip

COLUMNS = (
    "id",
    "file_name",
    "original_file_name",
    "label",
    "speaker",
    "windows",
    "put_aside",
    "samples",
    "l0",
    "density",
    "linf",
    "snr_db",
    "peak_ratio_db",
)
FOLDER = "recordings"


def bounds(samples: int, window: int) -> list[tuple[int, int]]:
    """Where the windows of a recording begin and end; the last one has half to one and a half windows.

    >>> bounds(10, 4), bounds(9, 4), bounds(5, 4)
    ([(0, 4), (4, 8), (8, 10)], [(0, 4), (4, 9)], [(0, 5)])
    """
    count = max(1, (samples + window // 2) // window)
    edges = [window * number for number in range(count)] + [samples]
    return list(itertools.pairwise(edges))


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that is attacked in windows of ``window`` samples, ``samples`` long at ``sample_rate`` Hz."""

    utterance: Utterance
    sample_rate: int
    window: int
    samples: int
    limits: audio.AudioLimits

    @classmethod
    def of(
        cls, utterance: Utterance, sample_rate: int, seconds: float, limits: audio.AudioLimits
    ) -> Recording | None:
        """The recording, read once and found whole; None where it is too short for two windows.

        Raises ``UnusableClip`` where it is broken or beyond ``limits``.
        """
        window = max(1, round(seconds * sample_rate))
        declared = 0.0 if utterance.is_segment else audio.declared_seconds(utterance.path, limits)
        if declared < 1.5 * seconds:
            return None
        samples = sum(map(len, audio.stream_samples(utterance.path, sample_rate, limits)))
        return cls(utterance, sample_rate, window, samples, limits)

    def __len__(self) -> int:
        return len(bounds(self.samples, self.window))

    def windows(self) -> Iterator[tuple[Utterance, Samples]]:
        """Each window as an utterance, ``ID~00001`` the first, and its samples; one at a time in memory."""
        blocks = audio.stream_samples(self.utterance.path, self.sample_rate, self.limits)
        waiting: list[Samples] = []
        held = 0
        for number, (start, end) in enumerate(bounds(self.samples, self.window), start=1):
            while held < end - start:
                block = next(blocks, None)
                if block is None:
                    raise UnusableClip(
                        "is shorter than when it was read first",
                        where=self.utterance.path,
                        remedy="Leave the file as it is while it is attacked, run again",
                    )
                waiting.append(block)
                held += len(block)
            together = np.concatenate(waiting)
            waiting, held = [together[end - start :].copy()], held - (end - start)
            part = replace(
                self.utterance,
                id=f"{self.utterance.id}~{number:05d}",
                start_s=start / self.sample_rate,
                end_s=end / self.sample_rate,
            )
            yield part, together[: end - start]

    def join(self, adversarial: Callable[[str], Samples | None], out: Path) -> dict[str, Any]:
        """Write the whole recording, clean and adversarial, below ``out``, and measure what was written.

        ``adversarial`` gives a window by its id, or None where it was put aside and stays as it is.
        Returns a row of ``COLUMNS``; its distances are those of the whole, by accumulation.
        """
        names = {
            part: f"{FOLDER}/{part}/{self.utterance.id}.wav" for part in ("adversarial", "clean")
        }
        aside = 0
        header = audio.wav_header(self.samples, self.sample_rate)
        with (
            storage.FileWriter(out / names["adversarial"]) as made,
            storage.FileWriter(out / names["clean"]) as clean,
        ):
            made.write(header)
            clean.write(header)
            for part, samples in self.windows():
                moved = adversarial(part.id)
                aside += moved is None
                clean.write(samples.astype("<i2").tobytes())
                made.write((samples if moved is None else moved).astype("<i2").tobytes())
        return {
            "id": self.utterance.id,
            "file_name": names["adversarial"],
            "original_file_name": names["clean"],
            "label": self.utterance.label or "",
            "speaker": self.utterance.speaker,
            "windows": len(self),
            "put_aside": aside,
            "samples": self.samples,
            **distances(out / names["clean"], out / names["adversarial"], self.sample_rate),
        }


def distances(clean: Path, adversarial: Path, sample_rate: int) -> dict[str, float | int]:
    """l0, density, linf, snr_db and peak_ratio_db of two files of any length, in flat memory.

    Counts, peaks and energies are summed as integers, so the figures are exact for the whole files.
    """
    count = changed = peak = largest = signal = noise = 0
    pairs = zip(
        audio.stream_samples(clean, sample_rate, audio.OWN_FILES),
        audio.stream_samples(adversarial, sample_rate, audio.OWN_FILES),
        strict=True,
    )
    for one, other in pairs:
        x, delta = one.astype(np.int64), other.astype(np.int64) - one
        count, changed = count + len(x), changed + int(np.count_nonzero(delta))
        peak = max(peak, int(np.abs(x).max(initial=0)))
        largest = max(largest, int(np.abs(delta).max(initial=0)))
        signal, noise = signal + int(x @ x), noise + int(delta @ delta)
    return {
        "l0": changed,
        "density": changed / count,
        "linf": largest / audio.FULL_SCALE,
        "snr_db": _decibels(signal, noise, 10),
        "peak_ratio_db": _decibels(peak, largest, 20),
    }


def _decibels(above: int, below: int, factor: float) -> float:
    if not below:
        return math.inf
    return factor * math.log10(above / below) if above else -math.inf
