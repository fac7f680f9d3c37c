"""Input transformations: what stands between a waveform and a victim, in torch, with a gradient."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from staanet import audio
from staanet.core import valid
from staanet.defences.base import Limits, Settings, straight_through
from staanet.errors import InvalidInput
from staanet.transforms.channels import Channel, parse_channel

_FILTER_S = 0.008
"""A filter iterations so far to both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantise(Settings):
    """Round to ``bits`` bits; the gradient is that of the identity.

    >>> Quantise(bits=2)(torch.tensor([[0.2, 0.3, -0.9, 0.9]])).tolist()
    [[0.0, 0.5, -1.0, 0.5]]
    """

    name: ClassVar[str] = "quantise"
    exact: ClassVar[bool] = False
    limits: ClassVar[Limits] = {"bits": (2, 16)}
    bits: int = 8

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        return straight_through(x, self.rounded(x.detach()))

    def rounded(self, x: Tensor) -> Tensor:
        """The rounding itself, whose gradient is 0."""
        steps: int = 2 ** (self.bits - 1)
        return (x * steps).round().clamp(-steps, steps - 1) / steps


class Filter(Settings):
    """A symmetric finite filter without delay; beyond the clip's ends is silence."""

    __slots__ = ()

    def taps(self, sample_rate: int) -> Tensor:
        """Its ``[2 reach + 1]`` weights, in double."""
        raise TypeError(f"{type(self).__name__} does not implement taps")

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        return _filtered(x, lengths, self.taps(sample_rate))


@dataclass(frozen=True, slots=True, kw_only=True)
class Average(Filter):
    """The mean of ``width`` samples around each; beyond the clip's ends is silence.

    >>> Average(width=3)(torch.tensor([[0.3, 0.0, 0.0, 0.6]])).tolist()
    [[0.10000000149011612, 0.10000000149011612, 0.20000000298023224, 0.20000000298023224]]
    """

    name: ClassVar[str] = "average"
    limits: ClassVar[Limits] = {"width": (3, 255)}
    width: int = 3

    def problem(self) -> str:
        return _even(self.width)

    def taps(self, sample_rate: int) -> Tensor:
        return torch.full((self.width,), 1 / self.width, dtype=torch.float64)

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        mean = F.avg_pool1d(_inside(x, lengths), self.width, stride=1, padding=self.width // 2)
        return _inside(mean, lengths).clamp(-1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Median(Settings):
    """The median of ``width`` samples around each; beyond the clip's ends is silence.

    >>> Median(width=3)(torch.tensor([[0.25, 0.25, 0.75, 0.5]])).tolist()
    [[0.25, 0.25, 0.5, 0.5]]
    """

    name: ClassVar[str] = "median"
    limits: ClassVar[Limits] = {"width": (3, 31)}
    width: int = 3

    def problem(self) -> str:
        return _even(self.width)

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        reach = self.width // 2
        around = F.pad(_inside(x, lengths), (reach, reach)).unfold(1, self.width, 1)
        return _inside(around.median(dim=2).values, lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowpass(Filter):
    """Keep what lies below ``hz``: a Blackman-windowed sinc of 16 ms, without delay."""

    name: ClassVar[str] = "lowpass"
    limits: ClassVar[Limits] = {"hz": (200, 96_000)}
    hz: int = 4_000

    def taps(self, sample_rate: int) -> Tensor:
        _require_below(self, self.hz, sample_rate)
        return _sinc(0, self.hz, sample_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandpass(Filter):
    """Keep what lies between ``low_hz`` and ``high_hz``, such as a telephone does; see ``Lowpass``."""

    name: ClassVar[str] = "bandpass"
    limits: ClassVar[Limits] = {"low_hz": (50, 96_000), "high_hz": (200, 96_000)}
    low_hz: int = 300
    high_hz: int = 3_400

    def problem(self) -> str:
        if self.low_hz < self.high_hz:
            return ""
        return f"a band from {self.low_hz} to {self.high_hz} Hz is empty"

    def taps(self, sample_rate: int) -> Tensor:
        _require_below(self, self.high_hz, sample_rate)
        return _sinc(self.low_hz, self.high_hz, sample_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample(Filter):
    """Down to ``hz`` and back: what lies above half of it is lost.

    With filters that end below ``hz / 2`` nothing is folded back, and the way down and up is one
    low-pass; it is computed as such, with an exact gradient, its edge as steep as soxr's.
    """

    name: ClassVar[str] = "resample"
    limits: ClassVar[Limits] = {"hz": (1_000, 192_000)}
    hz: int = 8_000

    def taps(self, sample_rate: int) -> Tensor:
        _require_below(self, self.hz / 2, sample_rate)
        edge = 0.087 * self.hz / 2  # soxr's passband ends so far below half the rate
        reach_s = 2.75 / edge  # half a Blackman window whose transition is as wide
        return _sinc(0, (self.hz - edge) / 2, sample_rate, reach_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Settings):
    """White Gaussian noise ``snr_db`` below each clip's own energy, or of deviation ``sigma`` if given."""

    name: ClassVar[str] = "noise"
    randomised: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"snr_db": (-20, 90), "sigma": (0, 1)}
    snr_db: float = 20.0
    sigma: float | None = None

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        inside = _inside(x, lengths)
        noise = torch.randn(x.shape, generator=generator).to(x)  # alike in single and double
        if self.sigma is not None:
            level: Tensor | float = self.sigma
        else:
            count = x.shape[1] if lengths is None else lengths[:, None]
            energy = inside.square().sum(dim=1, keepdim=True) / count
            level = 10 ** (-self.snr_db / 20) * energy.clamp_min(1e-12).sqrt()
        return _inside(inside + level * noise, lengths).clamp(-1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain(Settings):
    """Louder or softer by up to ``db``, drawn evenly in dB for each clip, cut at full scale."""

    name: ClassVar[str] = "gain"
    randomised: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"db": (0, 60)}
    db: float = 6.0

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        drawn = torch.rand(len(x), 1, generator=generator).to(x)
        return (_inside(x, lengths) * 10 ** ((2 * drawn - 1) * self.db / 20)).clamp(-1, 1)


# ---------------------------------------------------------------- codecs


class Codec(Settings):
    """A codec in memory, as ``staanet.transforms.channels`` has it; the gradient is that of the identity."""

    __slots__ = ()
    exact: ClassVar[bool] = False

    def problem(self) -> str:
        self.channel()  # whether this machine has the codec is told at once
        return ""

    def channel(self) -> Channel:
        """The channel of the same name and setting."""
        return parse_channel(str(self))

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        channel, heard = self.channel(), torch.zeros_like(x)
        for row, clip in enumerate(x.detach().cpu().numpy()):
            length = x.shape[1] if lengths is None else int(lengths[row])
            coded = channel(audio.snap(clip[:length]), sample_rate)
            heard[row, :length] = torch.from_numpy(audio.to_float(coded)).to(heard)
        return straight_through(x, heard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mp3(Codec):
    """MPEG layer III at a constant ``kbps``."""

    name: ClassVar[str] = "mp3"
    limits: ClassVar[Limits] = {"kbps": (8, 320)}
    kbps: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Opus(Codec):
    """Opus at about ``kbps``; 24 is a good voice call."""

    name: ClassVar[str] = "opus"
    limits: ClassVar[Limits] = {"kbps": (6, 256)}
    kbps: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Gsm(Codec):
    """A call by GSM 06.10: 13 kbit/s at 8 kHz."""

    name: ClassVar[str] = "gsm"


@dataclass(frozen=True, slots=True, kw_only=True)
class MuLaw(Codec):
    """8 bits a sample by mu-law (ITU-T G.711)."""

    name: ClassVar[str] = "mulaw"


# ---------------------------------------------------------------- helpers


def _even(width: int) -> str:
    return "" if width % 2 else f"width is {width}: an even window has no middle"


def _require_below(defence: Settings, hz: float, sample_rate: int) -> None:
    if hz >= sample_rate / 2:
        raise InvalidInput(
            f"defence {defence} keeps all: audio at {sample_rate} Hz ends at {sample_rate // 2} Hz",
            remedy="Give a lower frequency",
        )


def _inside(x: Tensor, lengths: Tensor | None) -> Tensor:
    """``x [B, T]``, zero beyond ``lengths``."""
    return x if lengths is None else x * valid(lengths, x.shape[1])


@functools.lru_cache(maxsize=32)
def _sinc(low_hz: float, high_hz: float, rate: int, reach_s: float = _FILTER_S) -> Tensor:
    """A band-pass from ``low_hz`` to ``high_hz``, symmetric, ``[2 reach + 1]`` in double."""
    reach = round(reach_s * rate)
    time = torch.arange(-reach, reach + 1, dtype=torch.float64)
    window = torch.blackman_window(2 * reach + 1, periodic=False, dtype=torch.float64)

    def below(hz: float) -> Tensor:
        taps: Tensor = 2 * hz / rate * torch.special.sinc(2 * hz / rate * time) * window
        return taps / taps.sum()

    return below(high_hz) - (below(low_hz) if low_hz else 0)


def _filtered(x: Tensor, lengths: Tensor | None, taps: Tensor) -> Tensor:
    """Symmetric ``taps [N]`` over ``x [B, T]``, without delay, silence beyond the clip's ends."""
    from scipy.fft import next_fast_len

    time, reach = x.shape[1], len(taps) // 2
    size = next_fast_len(time + 2 * reach, real=True)
    spectrum = torch.fft.rfft(_inside(x, lengths), size) * torch.fft.rfft(taps.to(x), size)
    heard: Tensor = torch.fft.irfft(spectrum, size)[:, reach : reach + time]
    return _inside(heard, lengths).clamp(-1, 1)
