"""The masking threshold once more, one bin, one frame and one masker at a time."""

from __future__ import annotations

import math

import numpy as np


def threshold_db(clip: list[float], rate: int, full_scale_db: float | None = None) -> np.ndarray:
    """``[F, N]`` in dB below a full-scale sine."""
    power = power_spectrum(clip, rate)
    bins, frames = power.shape
    if full_scale_db is None:
        peak = power.max()
        full_scale_db = 96 - (10 * math.log10(peak) if peak > 0 else 0.0)
    size = 4 * hop(rate)
    hz = [k * rate / size for k in range(bins)]
    found = np.zeros((bins, frames))
    for n in range(frames):
        maskers = []
        for k in range(bins):
            near = sum(power[j, n] for j in (k - 1, k, k + 1) if 0 <= j < bins)
            maskers.append(10 * math.log10(max(near, 1e-30)) + full_scale_db)
        for k in range(bins):
            strongest = max(mask(level, hz[j], hz[k]) for j, level in enumerate(maskers))
            together = 10 ** (strongest / 10) + 10 ** (quiet(hz[k]) / 10)
            found[k, n] = 10 * math.log10(together) - full_scale_db
    return found


def mask(level: float, masker_hz: float, hz: float) -> float:
    """What a tonal masker of ``level`` dB hides at ``hz``: two slopes on the Bark scale."""
    away = bark(hz) - bark(masker_hz)
    slope = 27 if away < 0 else -27 + 0.37 * max(level - 40, 0)
    return level - 6.025 - 0.275 * bark(masker_hz) + slope * away


def bark(hz: float) -> float:
    return 13 * math.atan(0.00076 * hz) + 3.5 * math.atan((hz / 7500) ** 2)


def quiet(hz: float) -> float:
    khz = max(hz, 20) / 1000
    return 3.64 * khz**-0.8 - 6.5 * math.exp(-0.6 * (khz - 3.3) ** 2) + 0.001 * khz**4 - 12


def power_spectrum(clip: list[float], rate: int) -> np.ndarray:
    """``[F, N]``, frames of four hops centred on every hop, by the sum that defines it."""
    step = hop(rate)
    size = 4 * step
    bins = [k for k in range(size // 2 + 1) if k * rate / size <= 20_000]
    frames = math.ceil(len(clip) / step)
    found = np.zeros((len(bins), frames))
    for n in range(frames):
        for row, k in enumerate(bins):
            total = 0j
            for i in range(size):
                t = n * step - size // 2 + i
                if 0 <= t < len(clip):
                    window = 0.5 - 0.5 * math.cos(2 * math.pi * i / size)
                    angle = -2 * math.pi * k * i / size
                    total += clip[t] * window * complex(math.cos(angle), math.sin(angle))
            found[row, n] = abs(total * 4 / size) ** 2
    return found


def hop(rate: int) -> int:
    return round(0.008 * rate)


def excess(clean: list[float], adversarial: list[float], rate: int) -> tuple[float, float]:
    """Share of bins in which the change is above the threshold, and its mean excess there in dB."""
    threshold = threshold_db(clean, rate)
    change = power_spectrum([b - a for a, b in zip(clean, adversarial, strict=True)], rate)
    above = [
        10 * math.log10(p) - t
        for p, t in zip(change.ravel(), threshold.ravel(), strict=True)
        if p > 10 ** (t / 10)
    ]
    return len(above) / change.size, (sum(above) / len(above) if above else math.nan)
