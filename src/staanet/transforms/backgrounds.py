"""Transforms that add a background to a clip, so many dB below it: a tone, mains hum, music."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from staanet.transforms.base import BaseTransform, BatchInfo, Limits, mask_padding

SNR_LIMITS = (-40.0, 90.0)
_NOTES_PER_S = 4
_SCALE = (0, 2, 4, 7, 9)  # pentatonic: any of its notes sound well together


class Background(BaseTransform):
    """A sound whose energy lies ``snr_db`` below that of each clip."""

    __slots__ = ()
    snr_db: float

    def sound(self, time: int, sample_rate: int, generator: torch.Generator | None) -> Tensor:
        """The background ``[time]`` in double, at any level."""
        raise TypeError(f"{type(self).__name__} does not implement sound")

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        sound = self.sound(x.shape[1], info.sample_rate, info.generator).to(x)
        return add_at_snr(x, mask_padding(sound.expand_as(x), info.lengths), self.snr_db)


def add_at_snr(clean: Tensor, background: Tensor, snr_db: float) -> Tensor:
    """``clean [B, T]`` and ``background [B, T]``, scaled to ``snr_db`` below its energy, ``[B, T]``.

    >>> add_at_snr(torch.tensor([[0.4, 0.0]]), torch.tensor([[0.0, 9.0]]), 20.0)
    tensor([[0.4000, 0.0400]])
    """
    energy = clean.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
    power = background.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
    return clean + (energy / power).sqrt() * 10 ** (-snr_db / 20) * background


@dataclass(frozen=True, slots=True, kw_only=True)
class Tone(Background):
    """A steady tone of ``hz``, ``snr_db`` below the clip."""

    name: ClassVar[str] = "tone"
    limits: ClassVar[Limits] = {"snr_db": SNR_LIMITS, "hz": (20, 96_000)}
    snr_db: float = 40.0
    hz: float = 6_000.0

    def problem_at(self, sample_rate: int) -> str:
        return (
            "" if self.hz < sample_rate / 2 else f"{self.hz:g} Hz lie beyond {sample_rate} Hz / 2"
        )

    def sound(self, time: int, sample_rate: int, generator: torch.Generator | None) -> Tensor:
        return _sine(self.hz, time, sample_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hum(Background):
    """Mains hum: ``hz`` and nine harmonics, ever weaker, with drawn phases."""

    name: ClassVar[str] = "hum"
    is_random: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"snr_db": SNR_LIMITS, "hz": (20, 1_000)}
    snr_db: float = 20.0
    hz: float = 50.0

    def sound(self, time: int, sample_rate: int, generator: torch.Generator | None) -> Tensor:
        phases = torch.rand(10, generator=generator, dtype=torch.float64).tolist()
        waves = [
            _sine(self.hz * n, time, sample_rate, phase) / n
            for n, phase in enumerate(phases, start=1)
            if self.hz * n < sample_rate / 2
        ]
        return torch.stack(waves).sum(dim=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Music(Background):
    """Four drawn notes a second of a pentatonic scale, each plucked, dying away, with harmonics."""

    name: ClassVar[str] = "music"
    is_random: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"snr_db": SNR_LIMITS}
    snr_db: float = 20.0

    def sound(self, time: int, sample_rate: int, generator: torch.Generator | None) -> Tensor:
        sound = torch.zeros(time, dtype=torch.float64)
        step = sample_rate // _NOTES_PER_S
        for start in range(0, time, step):
            choice, octave = torch.randint(15, (2,), generator=generator).tolist()
            semitones = _SCALE[choice % 5] + 12 * (octave % 3)
            hz, length = 220 * 2 ** (semitones / 12), min(2 * step, time - start)
            decay = torch.exp(-6 * torch.arange(length, dtype=torch.float64) / sample_rate)
            for n in (1, 2, 3, 4):
                if hz * n < sample_rate / 2:
                    sound[start : start + length] += _sine(hz * n, length, sample_rate) * decay / n
        return sound


def _sine(hz: float, time: int, sample_rate: int, phase: float = 0.0) -> Tensor:
    """A sine ``[time]`` that begins at ``phase`` turns."""
    turns = torch.arange(time, dtype=torch.float64) * (hz / sample_rate) + phase
    return torch.sin(2 * math.pi * turns)
