"""Transforms of poor devices and lines: clipped peaks, lost packets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from staanet.transforms.base import BaseTransform, BatchInfo, Limits

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

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        levels = x.abs().sort(dim=1, descending=True).values
        ranks = [
            min(x.shape[1] - 1, math.floor(self.percent / 100 * n))
            for n in info.lengths_of(x).tolist()
        ]
        level = levels.gather(1, torch.tensor(ranks, device=x.device)[:, None])
        return x.clamp(-level, level)


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketLoss(BaseTransform):
    """Packets of 20 ms are lost with a probability of ``percent``; silence takes their place."""

    name: ClassVar[str] = "packet_loss"
    is_random: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"percent": (0, 100)}
    percent: float = 5.0

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        batch, time = x.shape
        packet = max(1, round(PACKET_S * info.sample_rate))
        draws = torch.rand(batch, time // packet + 1, generator=info.generator)
        arrives = (draws >= self.percent / 100).repeat_interleave(packet, dim=1)[:, :time]
        return x * arrives.to(x)
