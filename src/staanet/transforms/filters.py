"""Filter and level transforms: low-pass, band-pass, median, resampling, gain."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from staanet.transforms.base import BaseTransform, BatchInfo, Limits, convolve, mask_padding

_REACH_S = 0.008
"""A filter covers so many seconds on both sides of a sample."""
_HIGHPASS_REACH_S = 0.0275
"""Half a Blackman window whose transition is 100 Hz wide."""


class Filter(BaseTransform):
    """A symmetric finite filter without delay; beyond the clip's ends is silence."""

    __slots__ = ()

    def taps(self, sample_rate: int) -> Tensor:
        """The filter's ``[2 reach + 1]`` weights, in double."""
        raise TypeError(f"{type(self).__name__} does not implement taps")

    def highest_hz(self) -> float:
        """Nothing above this frequency passes; 0 where a filter has no such edge."""
        return 0.0

    def problem_at(self, sample_rate: int) -> str:
        if self.highest_hz() < sample_rate / 2:
            return ""
        return f"keeps all: audio at {sample_rate} Hz ends at {sample_rate // 2} Hz"

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        if self.problem_at(info.sample_rate):
            return x
        taps = self.taps(info.sample_rate)
        return convolve(x, taps, delay=len(taps) // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Average(Filter):
    """The mean of ``width`` samples around each; beyond the clip's ends is silence.

    >>> Average(width=3)(torch.tensor([[0.3, 0.0, 0.0, 0.6]])).tolist()
    [[0.10000000149011612, 0.10000000149011612, 0.20000000298023224, 0.20000000298023224]]
    """

    name: ClassVar[str] = "average"
    limits: ClassVar[Limits] = {"width": (3, 255)}
    width: int = 3

    def setting_problem(self) -> str:
        return _even_width(self.width)

    def taps(self, sample_rate: int) -> Tensor:
        return torch.full((self.width,), 1 / self.width, dtype=torch.float64)

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        return F.avg_pool1d(x, self.width, stride=1, padding=self.width // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Median(BaseTransform):
    """The median of ``width`` samples around each; beyond the clip's ends is silence.

    >>> Median(width=3)(torch.tensor([[0.25, 0.25, 0.75, 0.5]])).tolist()
    [[0.25, 0.25, 0.5, 0.5]]
    """

    name: ClassVar[str] = "median"
    limits: ClassVar[Limits] = {"width": (3, 31)}
    width: int = 3

    def setting_problem(self) -> str:
        return _even_width(self.width)

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        reach = self.width // 2
        windows = F.pad(x, (reach, reach)).unfold(1, self.width, 1)
        return windows.median(dim=2).values


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowpass(Filter):
    """Keep what lies below ``hz``: a Blackman-windowed sinc of 16 ms, without delay."""

    name: ClassVar[str] = "lowpass"
    limits: ClassVar[Limits] = {"hz": (200, 96_000)}
    hz: int = 4_000

    def highest_hz(self) -> float:
        return self.hz

    def taps(self, sample_rate: int) -> Tensor:
        return _sinc(0, self.hz, sample_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Highpass(Filter):
    """Keep what lies above ``hz``, with an edge 100 Hz wide; see ``Lowpass``."""

    name: ClassVar[str] = "highpass"
    limits: ClassVar[Limits] = {"hz": (20, 96_000)}
    hz: int = 100

    def taps(self, sample_rate: int) -> Tensor:
        taps = -_sinc(0, self.hz, sample_rate, _HIGHPASS_REACH_S)
        taps[len(taps) // 2] += 1
        return taps


@dataclass(frozen=True, slots=True, kw_only=True)
class Tilt(Filter):
    """Another colour: ``db`` more at the top than at 100 Hz, along a line over log frequency.

    The clip keeps its energy, but for what full scale cuts.
    """

    name: ClassVar[str] = "tilt"
    limits: ClassVar[Limits] = {"db": (-40, 40)}
    db: float = -6.0

    def taps(self, sample_rate: int) -> Tensor:
        size = 2 * round(_REACH_S * sample_rate) + 1
        hz = torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64)
        octaves = (hz.clamp_min(100) / 100).log2() / math.log2(sample_rate / 200)
        taps = torch.fft.irfft(10 ** (self.db * octaves / 20), size).roll(size // 2)
        windowed: Tensor = taps * torch.blackman_window(size, periodic=False, dtype=torch.float64)
        return windowed

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        taps = self.taps(info.sample_rate)
        y = mask_padding(convolve(x, taps, delay=len(taps) // 2), info.lengths)
        before, after = (z.square().sum(dim=1, keepdim=True) for z in (x, y))
        return y * (before.clamp_min(1e-12) / after.clamp_min(1e-12)).sqrt()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandpass(Filter):
    """Keep what lies between ``low_hz`` and ``high_hz``, as a telephone does; see ``Lowpass``."""

    name: ClassVar[str] = "bandpass"
    limits: ClassVar[Limits] = {"low_hz": (50, 96_000), "high_hz": (200, 96_000)}
    low_hz: int = 300
    high_hz: int = 3_400

    def setting_problem(self) -> str:
        if self.low_hz < self.high_hz:
            return ""
        return f"a band from {self.low_hz} to {self.high_hz} Hz is empty"

    def highest_hz(self) -> float:
        return self.high_hz

    def taps(self, sample_rate: int) -> Tensor:
        return _sinc(self.low_hz, self.high_hz, sample_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample(Filter):
    """Down to ``hz`` and back: what lies above half of it is lost. Up and back changes nothing.

    With filters that end below ``hz / 2`` nothing is folded back, and the way down and up is one
    low-pass. It is computed as that low-pass, with an exact gradient and an edge as steep as soxr's.
    """

    name: ClassVar[str] = "resample"
    limits: ClassVar[Limits] = {"hz": (1_000, 192_000)}
    hz: int = 8_000

    def highest_hz(self) -> float:
        return self.hz / 2

    def taps(self, sample_rate: int) -> Tensor:
        edge = 0.087 * self.hz / 2  # soxr's passband ends so far below half the rate
        reach_s = 2.75 / edge  # half a Blackman window whose transition is as wide
        return _sinc(0, (self.hz - edge) / 2, sample_rate, reach_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain(BaseTransform):
    """Louder or softer by ``db``, cut at full scale; ``random_gain`` draws the level of each clip.

    >>> Gain(db=-20.0)(torch.tensor([[0.5, -0.1]]))
    tensor([[ 0.0500, -0.0100]])
    """

    name: ClassVar[str] = "gain"
    limits: ClassVar[Limits] = {"db": (-60, 60)}
    db: float = -6.0

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        return x * 10 ** (self.db / 20)


def _even_width(width: int) -> str:
    return "" if width % 2 else f"width is {width}: an even window has no middle"


@functools.lru_cache(maxsize=32)
def _sinc(low_hz: float, high_hz: float, rate: int, reach_s: float = _REACH_S) -> Tensor:
    """A band-pass from ``low_hz`` to ``high_hz``, symmetric, ``[2 reach + 1]`` in double."""
    reach = round(reach_s * rate)
    time = torch.arange(-reach, reach + 1, dtype=torch.float64)
    window = torch.blackman_window(2 * reach + 1, periodic=False, dtype=torch.float64)

    def lowpass(hz: float) -> Tensor:
        taps: Tensor = 2 * hz / rate * torch.special.sinc(2 * hz / rate * time) * window
        return taps / taps.sum()

    return lowpass(high_hz) - (lowpass(low_hz) if low_hz else 0)
