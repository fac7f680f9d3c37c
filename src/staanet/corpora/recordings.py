"""Long recordings in constant memory: split into windows, each a clip, and joined again.

No network here has an exact context that would let a part of a clip be computed alone. The LSTM
runs over the whole clip in both directions, GroupNorm of the Wave-U-Nets spans it, and both scale
their perturbation by its root mean square. So a window is the unit, as it is for whoever analyses a
long recording: each window is attacked, judged and measured as a clip, and equals that part attacked
as a file. The adversarial recording is its windows in order; parts without sound stay as they are.
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


def window_bounds(samples: int, window: int) -> list[tuple[int, int]]:
    """Return where each window begins and ends; the last has half to one and a half windows.

    >>> window_bounds(10, 4), window_bounds(9, 4), window_bounds(5, 4)
    ([(0, 4), (4, 8), (8, 10)], [(0, 4), (4, 9)], [(0, 5)])
    """
    count = max(1, (samples + window // 2) // window)
    edges = [window * number for number in range(count)] + [samples]
    return list(itertools.pairwise(edges))


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of ``samples`` samples at ``sample_rate`` Hz, attacked in windows of ``window`` samples."""

    utterance: Utterance
    sample_rate: int
    window: int
    samples: int
    limits: audio.AudioLimits
    notes: tuple[str, ...] = ()
    """What is unusual about the file."""

    @classmethod
    def measure(
        cls, utterance: Utterance, sample_rate: int, seconds: float, limits: audio.AudioLimits
    ) -> Recording | None:
        """Read the whole file once and return the recording; None where it is too short for two windows.

        ``seconds`` is the length of a window. Raises ``UnusableClip`` where the file is broken or
        beyond ``limits``.
        """
        window = max(1, round(seconds * sample_rate))
        declared = 0.0 if utterance.is_segment else audio.declared_seconds(utterance.path, limits)
        if declared < 1.5 * seconds:
            return None
        notes: list[str] = []
        blocks = audio.stream_samples(utterance.path, sample_rate, limits, notes)
        samples = sum(map(len, blocks))
        return cls(utterance, sample_rate, window, samples, limits, tuple(notes))

    def __len__(self) -> int:
        return len(window_bounds(self.samples, self.window))

    def windows(self) -> Iterator[tuple[Utterance, Samples]]:
        """Yield each window as an utterance (``ID~00001`` is the first) and its samples.

        One window is in memory at a time. Raises ``UnusableClip`` where the file became shorter.
        """
        blocks = audio.stream_samples(self.utterance.path, self.sample_rate, self.limits)
        buffer = np.zeros(0, np.int16)
        for number, (start, end) in enumerate(window_bounds(self.samples, self.window), start=1):
            pending = [buffer]
            missing = end - start - len(buffer)
            while missing > 0:
                block = next(blocks, None)
                if block is None:
                    raise UnusableClip(
                        "is shorter than when it was read first",
                        where=self.utterance.path,
                        remedy="Leave the file as it is while it is attacked, run again",
                    )
                pending.append(block)
                missing -= len(block)
            joined = np.concatenate(pending)
            buffer = joined[end - start :].copy()
            part = replace(
                self.utterance,
                id=f"{self.utterance.id}~{number:05d}",
                start_s=start / self.sample_rate,
                end_s=end / self.sample_rate,
            )
            yield part, joined[: end - start]

    def join(self, adversarial: Callable[[str], Samples | None], out: Path) -> dict[str, Any]:
        """Write the whole recording, clean and adversarial, below ``out``, and measure the files.

        ``adversarial`` gives a window by its id, or None where it was put aside and stays as it is.
        Returns a row of ``COLUMNS``; its distances are those of the whole files.
        """
        names = {
            part: f"{FOLDER}/{part}/{self.utterance.id}.wav" for part in ("adversarial", "clean")
        }
        put_aside = 0
        header = audio.wav_header(self.samples, self.sample_rate)
        with (
            storage.FileWriter(out / names["adversarial"]) as adversarial_file,
            storage.FileWriter(out / names["clean"]) as clean_file,
        ):
            adversarial_file.write(header)
            clean_file.write(header)
            for part, clean in self.windows():
                changed = adversarial(part.id)
                put_aside += changed is None
                clean_file.write(clean.astype("<i2").tobytes())
                adversarial_file.write(
                    (clean if changed is None else changed).astype("<i2").tobytes()
                )
        return {
            "id": self.utterance.id,
            "file_name": names["adversarial"],
            "original_file_name": names["clean"],
            "label": self.utterance.label or "",
            "speaker": self.utterance.speaker,
            "windows": len(self),
            "put_aside": put_aside,
            "samples": self.samples,
            **file_distances(out / names["clean"], out / names["adversarial"], self.sample_rate),
        }


def file_distances(clean: Path, adversarial: Path, sample_rate: int) -> dict[str, float | int]:
    """Return l0, density, linf, snr_db and peak_ratio_db of two files of any length, in flat memory.

    Counts, peaks and energies are summed as integers, so the figures are exact for the whole files.
    """
    count = changed = peak = largest = signal = noise = 0
    pairs = zip(
        audio.stream_samples(clean, sample_rate, audio.OWN_FILES),
        audio.stream_samples(adversarial, sample_rate, audio.OWN_FILES),
        strict=True,
    )
    for block, adversarial_block in pairs:
        x, delta = block.astype(np.int64), adversarial_block.astype(np.int64) - block
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


def _decibels(numerator: int, denominator: int, factor: float) -> float:
    if not denominator:
        return math.inf
    return factor * math.log10(numerator / denominator) if numerator else -math.inf
