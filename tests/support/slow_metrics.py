"""The metrics once more, one sample at a time, as the truth that the fast ones are held against."""

from __future__ import annotations

import math


def l0(clean: list[float], adversarial: list[float]) -> int:
    return sum(a != b for a, b in zip(clean, adversarial, strict=True))


def linf(clean: list[float], adversarial: list[float]) -> float:
    return max(abs(b - a) for a, b in zip(clean, adversarial, strict=True))


def snr_db(clean: list[float], adversarial: list[float]) -> float:
    noise = sum((b - a) ** 2 for a, b in zip(clean, adversarial, strict=True))
    signal = sum(a**2 for a in clean)
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def peak_ratio_db(clean: list[float], adversarial: list[float]) -> float:
    peak = max(abs(a) for a in clean)
    change = linf(clean, adversarial)
    if change == 0:
        return math.inf
    return 20 * math.log10(peak / change) if peak else -math.inf
