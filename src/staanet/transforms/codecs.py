"""Lossy coding transforms: MP3, Opus, Vorbis, GSM, mu-law, quantisation.

A codec writes and reads 16-bit samples in memory with libsndfile. What a codec delays or pads is cut,
so that its output is aligned with its input. The gradient is that of the identity.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from staanet import audio
from staanet.core import NO_CHANNEL, Samples
from staanet.errors import InvalidInput
from staanet.transforms.base import BaseTransform, BatchInfo, Limits

_BLOCK = 4096  # frames written at a time: 130 s of Vorbis in one call crash libsndfile 1.2.2
_TAIL_S = 0.05  # zeros appended before resampling, so that the last samples survive both filters
_MP3_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_MP3_DELAY = 576 + 529  # samples: of the LAME encoder and of the decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantise(BaseTransform):
    """Round to ``bits`` bits; the gradient is that of the identity.

    >>> Quantise(bits=2)(torch.tensor([[0.2, 0.3, -0.9, 0.9]])).tolist()
    [[0.0, 0.5, -1.0, 0.5]]
    """

    name: ClassVar[str] = "quantise"
    has_exact_gradient: ClassVar[bool] = False
    limits: ClassVar[Limits] = {"bits": (2, 16)}
    bits: int = 8

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        return self.round(x)

    def round(self, x: Tensor) -> Tensor:
        """The rounding itself, ``[B, T] -> [B, T]``, whose gradient is 0."""
        steps: int = 2 ** (self.bits - 1)
        return (x * steps).round().clamp(-steps, steps - 1) / steps


class Codec(BaseTransform):
    """A codec of libsndfile, run in memory on the 16-bit samples of each clip."""

    __slots__ = ()
    has_exact_gradient: ClassVar[bool] = False
    container: ClassVar[str] = ""
    coding: ClassVar[str] = ""
    rates_hz: ClassVar[tuple[int, ...]] = ()
    """The rates at which the codec works, ascending; empty where it works at any rate."""

    def setting_problem(self) -> str:
        import soundfile

        if not self.container:
            return ""
        has_container = self.container in soundfile.available_formats()
        if not has_container or self.coding not in soundfile.available_subtypes(self.container):
            raise InvalidInput(
                f"this machine's libsndfile {soundfile.__libsndfile_version__} cannot write "
                f"{self.coding} in {self.container}",
                where=f"transform {self.name}",
                remedy="Install the soundfile wheel that brings its own (pip install "
                "--force-reinstall soundfile), or leave the transform out",
            )
        return ""

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        y, lengths = torch.zeros_like(x), info.lengths_of(x).tolist()
        for row, clip in enumerate(x.cpu().numpy()):
            samples = self.code(audio.snap(clip[: lengths[row]]), info.sample_rate)
            y[row, : lengths[row]] = torch.from_numpy(audio.to_float(samples)).to(y)
        return y

    def code(self, samples: Samples, sample_rate: int) -> Samples:
        """16-bit samples coded and decoded, ``[T] -> [T]``, resampled where the codec needs it."""
        hz = self.working_rate(sample_rate)
        if hz == sample_rate:
            return _fit(self.code_at(samples, hz), len(samples))
        padded = np.pad(audio.to_float(samples), (0, round(_TAIL_S * sample_rate)))
        resampled = audio.snap(audio.resample(padded, sample_rate, hz))
        decoded = audio.to_float(self.code_at(resampled, hz))
        return _fit(audio.snap(audio.resample(decoded, hz, sample_rate)), len(samples))

    def working_rate(self, sample_rate: int) -> int:
        """The lowest rate of the codec that keeps all of a clip, or else its highest rate."""
        if not self.rates_hz:
            return sample_rate
        return min((hz for hz in self.rates_hz if hz >= sample_rate), default=self.rates_hz[-1])

    def code_at(self, samples: Samples, rate: int) -> Samples:
        """Samples written and read in memory at a rate of the codec, ``[T] -> [T or more]``."""
        import soundfile

        if not len(samples):
            return samples
        buffer = io.BytesIO()
        with soundfile.SoundFile(
            buffer,
            "w",
            rate,
            1,
            format=self.container,
            subtype=self.coding,
            **self.encoder_options(rate),
        ) as file:
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
        buffer.seek(0)
        decoded = soundfile.read(buffer, dtype="float32")[0]  # integers would wrap around at peaks
        return audio.snap(decoded)

    def encoder_options(self, rate: int) -> dict[str, Any]:
        """Settings of libsndfile's encoder: ``compression_level`` from 0 (best) to 1, and its mode."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pcm16(Codec):
    """16-bit samples as they are: the file without any change."""

    name: ClassVar[str] = NO_CHANNEL

    def code_at(self, samples: Samples, rate: int) -> Samples:
        return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip(Codec):
    """Resampled to ``hz``, rounded to 16 bits, and resampled back by soxr, as between two devices."""

    name: ClassVar[str] = "round_trip"
    limits: ClassVar[Limits] = {"hz": (1_000, 192_000)}
    hz: int = 44_100

    def working_rate(self, sample_rate: int) -> int:
        return self.hz

    def code_at(self, samples: Samples, rate: int) -> Samples:
        return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Mp3(Codec):
    """MPEG layer III by LAME at a constant ``kbps`` (the nearest that the rate has)."""

    name: ClassVar[str] = "mp3"
    container: ClassVar[str] = "MP3"
    coding: ClassVar[str] = "MPEG_LAYER_III"
    rates_hz: ClassVar[tuple[int, ...]] = _MP3_HZ
    limits: ClassVar[Limits] = {"kbps": (8, 320)}
    kbps: int = 64

    def problem_at(self, sample_rate: int) -> str:
        rate = self.working_rate(sample_rate)
        low, high = self._range_kbps(rate)
        if low < self.kbps <= high:
            return ""
        return f"{self.kbps} kbit/s at {rate} Hz; MP3 has more than {low} and up to {high} there"

    def _range_kbps(self, rate: int) -> tuple[int, int]:
        return (32, 320) if rate >= 32_000 else (8, 160) if rate >= 16_000 else (8, 64)

    def encoder_options(self, rate: int) -> dict[str, Any]:
        low, high = self._range_kbps(rate)
        level = (high - self.kbps) / (high - low)
        return {"compression_level": level, "bitrate_mode": "CONSTANT"}

    def code_at(self, samples: Samples, rate: int) -> Samples:
        problem, (_, high) = self.problem_at(rate), self._range_kbps(rate)
        if problem:
            raise InvalidInput(
                problem, where=f"transform {self}", remedy=f"Give, say, mp3:{min(high, 64)}"
            )
        decoded = Codec.code_at(self, samples, rate)
        # frames below 48 kbit/s or so have no room for the tag by which a decoder cuts the delay
        return decoded[_MP3_DELAY:] if len(decoded) > len(samples) else decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Opus(Codec):
    """Opus (RFC 6716) at about ``kbps``; 24 is a good voice call."""

    name: ClassVar[str] = "opus"
    container: ClassVar[str] = "OGG"
    coding: ClassVar[str] = "OPUS"
    rates_hz: ClassVar[tuple[int, ...]] = (8_000, 12_000, 16_000, 24_000, 48_000)
    limits: ClassVar[Limits] = {"kbps": (6, 256)}
    kbps: int = 24

    def encoder_options(self, rate: int) -> dict[str, Any]:
        return {"compression_level": (256 - self.kbps) / 250}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vorbis(Codec):
    """Vorbis at its encoder's default quality."""

    name: ClassVar[str] = "vorbis"
    container: ClassVar[str] = "OGG"
    coding: ClassVar[str] = "VORBIS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gsm(Codec):
    """A call by GSM 06.10 full rate: 13 kbit/s at 8 kHz, and back to the rate of the clip."""

    name: ClassVar[str] = "gsm"
    container: ClassVar[str] = "WAV"
    coding: ClassVar[str] = "GSM610"
    rates_hz: ClassVar[tuple[int, ...]] = (8_000,)


@dataclass(frozen=True, slots=True, kw_only=True)
class MuLaw(Codec):
    """8 bits a sample by mu-law (ITU-T G.711) at the rate of the clip."""

    name: ClassVar[str] = "mulaw"
    container: ClassVar[str] = "WAV"
    coding: ClassVar[str] = "ULAW"


def _fit(samples: Samples, length: int) -> Samples:
    """Samples cut, or filled up with zeros, ``-> [length]``."""
    fitted = np.zeros(length, dtype=np.int16)
    fitted[: len(samples)] = samples[:length]
    return fitted
