"""Waveforms as tensors for tests of transforms and defences, and what is measured on them."""

from __future__ import annotations

import math

import numpy as np
import torch
from tests.support.speech import RATE, tone

from staanet import audio


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def speechlike(
    *lengths: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tones in noise, padded to one batch."""
    x = torch.zeros(len(lengths), max(lengths), dtype=dtype)
    for row, length in enumerate(lengths):
        samples = tone(length / RATE, 250.0 + 90 * row, seed=row)[:length]
        x[row, :length] = torch.from_numpy(audio.to_float(samples)).to(dtype)
    return x, torch.tensor(lengths)


def sine(hz: float, seconds: float = 0.5) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * RATE)) / RATE)[None]


def level_db(x: torch.Tensor) -> float:
    """The level of the middle half, where no edge is near."""
    quarter = x.shape[1] // 4
    return float(10 * torch.log10(x[:, quarter:-quarter].square().mean().clamp_min(1e-20)))


def chirp(seconds: float = 1.0, rate: int = RATE, top: float = 3000.0) -> np.ndarray:
    """A sweep up from 100 Hz: it agrees with itself at the right lag alone."""
    t = np.arange(round(seconds * rate)) / rate
    sweep = np.sin(2 * np.pi * (100 * t + (top - 100) / (2 * seconds) * t**2))
    return audio.snap(0.4 * sweep * np.hanning(len(t)))


def lag(clean: np.ndarray, late: np.ndarray) -> int:
    """By how many samples ``late`` comes late: the peak of the cross-correlation."""
    size = 2 * len(clean)
    spectrum = np.fft.rfft(late.astype(float), size) * np.fft.rfft(clean.astype(float), size).conj()
    peak = int(np.fft.irfft(spectrum).argmax())
    return peak if peak < len(clean) else peak - size


LENGTHS = torch.tensor([4000, 6001, 4000])


def padded() -> torch.Tensor:
    """Noise of ``LENGTHS`` samples a row, padded to one batch."""
    torch.manual_seed(1)
    batch = torch.zeros(len(LENGTHS), int(LENGTHS.max()))
    for row, length in enumerate(LENGTHS):
        batch[row, :length] = torch.randn(int(length)) * 0.1 + 0.02
    return batch
