"""Transforms of poor devices and lines: clipped peaks, lost packets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from staanet.transforms.base import BaseTransform, Limits, inside

PACKET_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipping(BaseTransform):
    """The loudest ``percent`` of a clip's samples cut to one level, as a microphone set too high does.

    >>> Clipping(percent=25.0)(torch.tensor([[0.9, -0.5, 0.1, 0.2]]))
    tensor([[ 0.5000, -0.5000,  0.1000,  0.2000]])
    """

    name: ClassVar[str] = "clipping"
    limits: ClassVar[Limits] = {"percent": (0, 90)}
    percent: float = 1.0

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        clean = inside(x, lengths)
        time = x.shape[1]
        levels = clean.abs().sort(dim=1, descending=True).values
        counts = [time] * len(x) if lengths is None else lengths.tolist()
        ranks = [min(time - 1, math.floor(self.percent / 100 * n)) for n in counts]
        level = levels.gather(1, torch.tensor(ranks, device=x.device)[:, None])
        return clean.clamp(-level, level)


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketLoss(BaseTransform):
    """Packets of 20 ms are lost with a probability of ``percent``; silence takes their place."""

    name: ClassVar[str] = "packet_loss"
    is_random: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"percent": (0, 100)}
    percent: float = 5.0

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        batch, time = x.shape
        packet = max(1, round(PACKET_S * sample_rate))
        draws = torch.rand(batch, time // packet + 1, generator=generator)
        arrives = (draws >= self.percent / 100).repeat_interleave(packet, dim=1)[:, :time]
        return inside(x, lengths) * arrives.to(x)
