"""Level, peak, bandwidth and clipping of a recording."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

FRAME_S = 0.02
ACTIVITY_MARGIN_DB = 15.9
"""A frame is active where it is at most this far below the active level (margin of ITU-T P.56)."""
ACTIVE_SHARE = 10 ** (-ACTIVITY_MARGIN_DB / 10)
BANDWIDTH_DB = 60.0
"""How far below its maximum the spectrum may lie within the bandwidth."""
CLIPPED_RUN = 3
"""Equal samples in a row at the maximum or minimum of a clip that count as clipped."""
CLIPPED_SHARE, CLIPPED_PEAK_DB = 1e-3, -6.0
"""A recording counts as clipped from this share of clipped samples on, if its peak is that high."""
LOWEST_LEVEL_DB = -60.0
SILENT_SHARE = 0.75
"""A recording of which so much is digital silence is odd: nothing was recorded there."""
LARGE_OFFSET = 0.02
"""A constant offset of this share of full scale, if it is also above the sound, is odd."""
NARROW_BANDWIDTH = 0.3
"""Bandwidth over rate below which the rate is doubted: 8 kHz in 16 kHz gives 0.25, speech 0.36 and more."""
SPEECH_BANDWIDTH_HZ = 14_400.0
"""Bandwidths above this are never suspicious: few microphones and voices reach further."""
WRAP, WRAPS = 1.9, 3
"""So many jumps across so much of the scale's 2 are integers that overflowed; no voice is that steep."""
COARSE_STEP = 128
"""Samples on multiples of this many 16-bit steps were recorded with 8 or 9 bits."""
_SPECTRA = 256  # spectra in memory at a time


def active_level(samples: NDArray[np.floating], sample_rate: int) -> float:
    """Return the active speech level of ``[T]`` samples in [-1, 1]: a root mean square.

    It is the mean power of all frames of 20 ms that are active: at most 15.9 dB below that very
    mean. Pauses do not lower it, and a click hardly raises it. Silence gives 0.

    >>> active_level(np.array([0.5, -0.5] * 8000 + [0.0] * 48_000), 16_000)
    0.5
    """
    size = max(1, min(len(samples), round(FRAME_S * sample_rate)))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    # sums of squares on the 16-bit grid are exact, so that any order of summing gives the same
    energies = np.sort(np.square(frames, dtype=np.float64).sum(axis=1))[::-1]
    means = np.cumsum(energies) / np.arange(1, len(energies) + 1)
    active = np.flatnonzero(energies >= means * ACTIVE_SHARE)
    return math.sqrt(means[active[-1]] / size) if len(active) else 0.0


def active_levels(x: Tensor, lengths: Tensor | None, sample_rate: int) -> Tensor:
    """Return what ``active_level`` does for each clip of a batch, ``[B, T] -> [B, 1]`` in float64.

    >>> import torch
    >>> active_levels(torch.tensor([[0.5, -0.5, 0.0], [0.25, 0.25, 0.25]]), torch.tensor([2, 3]), 16_000)
    tensor([[0.5000],
            [0.2500]], dtype=torch.float64)
    """
    import torch

    time = x.shape[1]
    size = max(1, min(time, round(FRAME_S * sample_rate)))
    samples = x.detach()[:, : time // size * size].double().contiguous()
    energies = samples.square().view(len(x), -1, size).sum(dim=2)
    sizes = torch.full((len(x), 1), size, device=x.device)
    if lengths is not None:
        sizes = lengths[:, None].clamp(max=size)
        frames = torch.arange(energies.shape[1], device=x.device)
        energies = energies * (frames < lengths[:, None] // sizes)  # not the last part of a frame
    energies = energies.sort(dim=1, descending=True).values
    means = energies.cumsum(dim=1) / torch.arange(1, energies.shape[1] + 1, device=x.device)
    is_active = energies >= means * ACTIVE_SHARE
    power: Tensor = means.masked_fill(~is_active, torch.inf).amin(dim=1, keepdim=True) / sizes
    return power.sqrt()


def active_level_db(samples: NDArray[np.floating], sample_rate: int) -> float:
    """Return ``active_level`` in dB of full scale; silence gives ``-inf``.

    >>> time = np.arange(16_000) / 16_000
    >>> tone = np.sin(2 * np.pi * 440 * time)
    >>> round(active_level_db(np.concatenate([tone, np.zeros(48_000)]), 16_000), 1)
    -3.0
    """
    level = active_level(samples, sample_rate)
    return 20 * math.log10(level) if level > 0 else -math.inf


def peak_db(samples: NDArray[np.floating]) -> float:
    """Return the largest sample in dB of full scale; silence gives ``-inf``.

    >>> round(peak_db(np.array([0.1, -0.5])), 2)
    -6.02
    """
    peak = float(np.abs(samples).max(initial=0.0))
    return 20 * math.log10(peak) if peak > 0 else -math.inf


def bandwidth_hz(samples: NDArray[np.floating], sample_rate: int) -> float:
    """Return the highest frequency at which the mean spectrum is within 60 dB of its maximum.

    Speech that was recorded at 8 kHz and resampled to 16 kHz has about 4000 Hz, because nothing
    lies above; speech recorded at 16 kHz has more. Silence has 0 Hz.
    """
    size = 2 ** math.ceil(math.log2(sample_rate / 40))
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    window, power = np.hanning(size), np.zeros(size // 2 + 1)
    for start in range(0, len(frames), _SPECTRA):
        spectra = np.fft.rfft(frames[start : start + _SPECTRA] * window, axis=1)
        power += np.square(np.abs(spectra)).sum(axis=0)
    smooth = np.convolve(power, np.ones(3) / 3, "same")
    within = np.flatnonzero(smooth > smooth.max() * 10 ** (-BANDWIDTH_DB / 10))
    return float(within[-1] * sample_rate / size) if smooth.max() > 0 else 0.0


def clipped_share(samples: NDArray[np.floating] | NDArray[np.int16]) -> float:
    """Return the share of samples in runs of three or more at the maximum or minimum of the clip.

    >>> clipped_share(np.array([0.0, 0.9, 0.9, 0.9, 0.1, -0.3, 0.2, 0.0, 0.1, 0.2]))
    0.3
    """
    if len(samples) == 0 or samples.max() == samples.min():
        return 0.0
    total = 0
    for extreme in (samples.max(), samples.min()):
        edges = np.diff(np.concatenate(([0], (samples == extreme).view(np.int8), [0])))
        runs = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
        total += int(runs[runs >= CLIPPED_RUN].sum())
    return total / len(samples)


def silent_share(samples: NDArray[np.floating], sample_rate: int) -> float:
    """Return the share of frames of 20 ms in which all samples are equal.

    >>> silent_share(np.concatenate([np.arange(3200) / 3200, np.zeros(3200)]), 16_000)
    0.5
    """
    size = max(1, round(FRAME_S * sample_rate))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    return float((frames == frames[:, :1]).all(axis=1).mean()) if len(frames) else 0.0


def step_size(samples: NDArray[np.floating]) -> int:
    """Return the largest step, in units of 1/32768, that all samples are multiples of; 0 where there is none.

    >>> step_size(np.array([256, -512, 0]) / 32768), step_size(np.array([3, 4]) / 32768)
    (256, 1)
    >>> step_size(np.array([0.1]))
    0
    """
    steps = samples * np.float32(32768)
    whole = np.round(steps)
    if not np.array_equal(steps, whole):
        return 0
    return int(np.gcd.reduce(np.abs(whole).astype(np.int64)))


def recording_notes(
    samples: NDArray[np.float32],
    sample_rate: int,
    *,
    is_clipped_by_reader: bool = False,
    has_8_bits: bool = False,
) -> tuple[str, ...]:
    """Returns warnings about a recording ``[T]``: clipping, overflow, few bits, low level, offset, silence, bandwidth.

    Clipping is not told again where the reader has clipped the samples itself, nor few bits where the
    format of the file has 8.

    >>> recording_notes(np.zeros(8000, np.float32), 16_000)
    ()
    >>> noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    >>> recording_notes(noise / 10, 16_000)
    ()
    >>> recording_notes(np.clip(noise, -0.9, 0.9), 16_000)[0]
    '3.2 % of the samples are clipped in the recording'
    """
    level = active_level_db(samples, sample_rate)
    if level == -math.inf:
        return ()
    notes = []
    share = clipped_share(samples)
    is_loud = peak_db(samples) > CLIPPED_PEAK_DB
    if share >= CLIPPED_SHARE and is_loud and not is_clipped_by_reader:
        notes.append(f"{100 * share:.1f} % of the samples are clipped in the recording")
    wraps = int(np.count_nonzero(np.abs(np.diff(samples)) > WRAP))
    if wraps >= WRAPS and not is_clipped_by_reader:
        notes.append(f"{wraps} jumps across the whole scale: integers that overflowed?")
    is_long = len(samples) >= sample_rate / 10
    if is_long and not has_8_bits and (step := step_size(samples)) >= COARSE_STEP:
        notes.append(
            f"samples in steps of {step} of the 32768 of full scale: recorded with few bits"
        )
    if level < LOWEST_LEVEL_DB:
        notes.append(f"almost no level: {level:.0f} dB of full scale")
    offset, deviation = float(samples.mean()), float(samples.std())
    if abs(offset) > max(LARGE_OFFSET, deviation):
        notes.append(f"a constant offset of {100 * offset:.0f} % of full scale")
    if silent_share(samples, sample_rate) >= SILENT_SHARE:
        notes.append(f"at least {100 * SILENT_SHARE:.0f} % of the recording is digital silence")
    bandwidth = bandwidth_hz(samples - samples.mean(), sample_rate)
    is_narrow = bandwidth < min(NARROW_BANDWIDTH * sample_rate, SPEECH_BANDWIDTH_HZ)
    if is_narrow and is_long:
        notes.append(
            f"no spectrum above {bandwidth:.0f} Hz at {sample_rate} Hz: recorded at a lower rate?"
        )
    return tuple(notes)
