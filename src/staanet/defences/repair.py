"""Sample-wise outlier repair, made for sparse changes: samples that do not fit their neighbours are redrawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from staanet.core import valid
from staanet.defences.base import Limits, Settings

_FRAME_S = 0.02
"""Speech is taken as steady for so long."""
_FLOOR = 2.0**-14
"""Two steps of the 16-bit grid: less is rounding, never an outlier's scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair(Settings):
    """Predict each sample from ``order`` neighbours on both sides; replace those that do not fit.

    The predictor is that of 20 ms and their neighbours, by least squares. A sample fits where its
    residual is within ``threshold`` robust deviations (1.4826 medians of the absolute residual in each of
    the three, the largest of them). One wrong sample spoils the residuals around it: of those
    that overlap only the largest is replaced, and all are looked at again, ``passes`` times. The
    gradient is exact for a fixed choice of samples.
    """

    name: ClassVar[str] = "repair"
    limits: ClassVar[Limits] = {"threshold": (1, 1_000), "order": (1, 16), "passes": (1, 64)}
    threshold: float = 8.0
    order: int = 8
    passes: int = 8

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        if x.shape[1] <= 2 * self.order:
            return x
        inside = _inside(x, lengths)
        frame = max(2 * self.order + 1, round(_FRAME_S * sample_rate))
        y = x * inside
        for _ in range(self.passes):
            guess = predicted(y, self.order, frame) * inside
            wrong = self._outliers((y - guess).detach(), inside, frame)
            if not bool(wrong.any()):
                break
            y = torch.where(wrong, guess.clamp(-1, 1), y)
        return y

    def _outliers(self, residual: Tensor, inside: Tensor, frame: int) -> Tensor:
        """Of residuals ``[B, T]`` beyond the threshold, each the largest among its neighbours."""
        size = residual.abs()
        scale = 1.4826 * local_median(size, inside, frame)
        beyond = size > self.threshold * scale.clamp_min(_FLOOR)
        around = F.max_pool1d(size, 2 * self.order + 1, stride=1, padding=self.order)
        return beyond & (size == around)


def predicted(x: Tensor, order: int, frame: int) -> Tensor:
    """Each sample of ``x [B, T]`` from ``order`` neighbours on both sides, ``[B, T]``.

    Least squares over ``frame`` samples and as many before and after; beyond the clip's ends is
    silence. Both neighbours at a distance share a weight, as the best predictor of a stationary signal
    is symmetric.

    >>> tone = torch.sin(0.3 * torch.arange(80, dtype=torch.float64))[None]
    >>> bool((predicted(tone, 1, 8) - tone)[0, 16:-16].abs().max() < 1e-5)  # of a tone, two suffice
    True
    """
    batch, time = x.shape
    both = F.pad(x, (order, order + -time % frame))
    last = both.shape[1] - 2 * order  # whole frames

    def shifted(by: int) -> Tensor:
        return both[:, order + by : order + by + last]

    sums = torch.stack([shifted(-k) + shifted(k) for k in range(1, order + 1)], dim=2)
    sums = sums.view(batch, -1, frame, order)
    own = shifted(0).view(batch, -1, frame, 1)
    normal = _with_neighbours(sums.transpose(2, 3) @ sums)
    right = _with_neighbours(sums.transpose(2, 3) @ own)
    trace = normal.diagonal(dim1=2, dim2=3).sum(dim=2)
    ridge = 1e-6 * trace + 1e-9  # silence predicts silence
    normal = normal + torch.diag_embed(ridge[..., None].expand(-1, -1, order))
    guess: Tensor = (sums @ torch.linalg.solve(normal, right)).view(batch, -1)
    return guess[:, :time]


def _with_neighbours(framed: Tensor) -> Tensor:
    """Each frame of ``[B, F, ...]`` and the two beside it, added."""
    total = framed.clone()
    total[:, 1:] += framed[:, :-1]
    total[:, :-1] += framed[:, 1:]
    return total


def local_median(size: Tensor, inside: Tensor, frame: int) -> Tensor:
    """The largest median of ``size [B, T]`` in the frame of a sample and the two beside it, ``[B, T]``."""
    batch, time = size.shape
    missing = -time % frame
    framed = F.pad(size.masked_fill(~inside, torch.nan), (0, missing), value=torch.nan)
    medians = framed.view(batch, -1, frame).nanmedian(dim=2).values.nan_to_num(0.0)
    largest = F.max_pool1d(medians, 3, stride=1, padding=1)
    return largest.repeat_interleave(frame, dim=1)[:, :time]


def _inside(x: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return torch.ones_like(x, dtype=torch.bool)
    return valid(lengths, x.shape[1])
