"""Transforms of a clip's time and pitch: silence and cuts at its ends, another speed, another pitch.

On a batch ``[B, T]`` the length stays, and what leaves it is lost. As a channel a clip becomes longer or
shorter (``new_length``), so that nothing of it is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from staanet.transforms.base import BaseTransform, BatchInfo, Limits, mask_padding

_REACH = 16
"""The sinc that reads a clip between its samples covers so many on both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence(BaseTransform):
    """``before`` zeros at the clip's start, and ``after`` zeros at its end.

    >>> Silence(before=1)(torch.tensor([[0.1, 0.2, 0.3]]))
    tensor([[0.0000, 0.1000, 0.2000]])
    """

    name: ClassVar[str] = "silence"
    limits: ClassVar[Limits] = {"before": (0, 10**7), "after": (0, 10**7)}
    before: int = 1_000
    after: int = 0

    def new_length(self, length: int) -> int:
        return length + self.before + self.after

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        return F.pad(x, (self.before, 0))[:, : x.shape[1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(BaseTransform):
    """Without the first ``start`` and the last ``end`` samples; at least one sample stays.

    On a batch, where the length stays, zeros take the place of what is cut.

    >>> Cut(start=1)(torch.tensor([[0.1, 0.2, 0.3]]))
    tensor([[0.2000, 0.3000, 0.0000]])
    """

    name: ClassVar[str] = "cut"
    limits: ClassVar[Limits] = {"start": (0, 10**7), "end": (0, 10**7)}
    start: int = 1_000
    end: int = 0

    def new_length(self, length: int) -> int:
        return max(min(length, 1), length - self.start - self.end)

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        time, lengths = x.shape[1], info.lengths_of(x)
        start = (lengths - 1).clamp(min=0, max=self.start)
        stays = (lengths - self.start - self.end).clamp_min(1)
        index = torch.arange(time, device=x.device) + start[:, None]
        return mask_padding(x.gather(1, index.clamp_max(time - 1)), stays)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed(BaseTransform):
    """Played faster by ``percent``, or slower where it is negative; tempo and pitch change together.

    The clip is read between its samples by a Hann-windowed sinc.
    """

    name: ClassVar[str] = "speed"
    limits: ClassVar[Limits] = {"percent": (-50, 100)}
    percent: float = 5.0

    def new_length(self, length: int) -> int:
        return max(min(length, 1), round(length / (1 + self.percent / 100)))

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        if not self.percent:
            return x
        speed = 1 + self.percent / 100
        return mask_padding(read_between(x, speed), (info.lengths_of(x) / speed).ceil())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pitch(BaseTransform):
    """Higher by ``semitones``, or lower where they are negative, at the same tempo.

    A phase vocoder (Flanagan and Golden 1966; windows of 32 ms, a quarter apart) makes the clip longer or
    shorter, and ``Speed`` brings it back to its length. The gradient is that of the identity.
    """

    name: ClassVar[str] = "pitch"
    has_exact_gradient: ClassVar[bool] = False
    limits: ClassVar[Limits] = {"semitones": (-12, 12)}
    semitones: float = 1.0

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        ratio = 2 ** (self.semitones / 12)
        size = 4 * max(2, round(0.008 * info.sample_rate))
        return read_between(stretch(x, ratio, size), ratio)[:, : x.shape[1]]


def stretch(x: Tensor, ratio: float, size: int) -> Tensor:
    """``x [B, T]`` made ``ratio`` times as long at the same pitch, ``[B, at least T and ratio * T]``."""
    hop = size // 4
    window = torch.hann_window(size, dtype=x.dtype, device=x.device)
    padded = F.pad(x, (0, 2 * size + math.ceil(x.shape[1] * max(0.0, 1 / ratio - 1))))
    frames = torch.stft(padded, size, hop, window=window, pad_mode="constant", return_complex=True)
    position = torch.arange(0, frames.shape[2] - 1, 1 / ratio, device=x.device)
    first = position.long()
    share = (position - first).to(x)
    before, after = frames[:, :, first], frames[:, :, first + 1]
    magnitude = torch.lerp(before.abs(), after.abs(), share)
    advance = (after.angle() - before.angle()).roll(1, dims=2)  # from each frame to the next
    advance[:, :, 0] = before[:, :, 0].angle()
    turned = torch.polar(magnitude, advance.cumsum(dim=2))
    result: Tensor = torch.istft(turned, size, hop, window=window)
    return F.pad(result, (0, max(0, x.shape[1] - result.shape[1])))


def read_between(x: Tensor, speed: float) -> Tensor:
    """``x [B, T]`` at the times ``0, speed, 2 speed, ...``, ``[B, T]``."""
    time = x.shape[1]
    position = torch.arange(time, dtype=torch.float64) * speed
    first = position.floor()
    offset = (position - first)[:, None] - torch.arange(1 - _REACH, _REACH + 1)
    cutoff = min(1.0, 1 / speed)
    window = torch.cos(math.pi / 2 * (offset / _REACH).clamp(-1, 1)).square()
    weights = (cutoff * torch.special.sinc(cutoff * offset) * window).to(x)
    padded = F.pad(x, (_REACH - 1, _REACH + 1))
    index = first.long().clamp_max(time)  # windows from there on hold zeros alone
    windows = F.pad(padded, (0, _REACH)).unfold(1, 2 * _REACH, 1)[:, index.to(x.device)]
    result: Tensor = (windows * weights).sum(dim=2)
    return result
