"""The transform that replaces outlier samples by a prediction from their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from staanet.core import valid_mask
from staanet.transforms.base import BaseTransform, BatchInfo, Limits

_FRAME_S = 0.02
"""The seconds for which speech is taken as steady."""
_FLOOR = 2.0**-14
"""Two steps of the 16-bit grid: a smaller residual is rounding, never an outlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair(BaseTransform):
    """Predict each sample from ``order`` neighbours on both sides; replace those that do not fit.

    The predictor is fitted by least squares to 20 ms and the 20 ms on both sides. A sample fits where
    its residual is within ``threshold`` robust deviations. A robust deviation is 1.4826 medians of the
    absolute residual; of the three frames the largest counts. A wrong sample spoils the residuals around
    it, so only the largest of overlapping outliers is replaced in each of ``passes`` passes. The gradient
    is exact for a fixed choice of samples.
    """

    name: ClassVar[str] = "repair"
    limits: ClassVar[Limits] = {"threshold": (1, 1_000), "order": (1, 16), "passes": (1, 64)}
    threshold: float = 8.0
    order: int = 8
    passes: int = 8

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        if x.shape[1] <= 2 * self.order:
            return x
        in_clip = valid_mask(info.lengths_of(x), x.shape[1])
        frame = max(2 * self.order + 1, round(_FRAME_S * info.sample_rate))
        y = x
        for _ in range(self.passes):
            prediction = predict(y, self.order, frame) * in_clip
            outliers = self._find_outliers((y - prediction).detach(), in_clip, frame)
            if not bool(outliers.any()):
                break
            y = torch.where(outliers, prediction.clamp(-1, 1), y)
        return y

    def _find_outliers(self, residual: Tensor, in_clip: Tensor, frame: int) -> Tensor:
        """Which residuals ``[B, T]`` are beyond the threshold and the largest of their neighbours."""
        size = residual.abs()
        scale = 1.4826 * local_median(size, in_clip, frame)
        is_beyond = size > self.threshold * scale.clamp_min(_FLOOR)
        largest = F.max_pool1d(size, 2 * self.order + 1, stride=1, padding=self.order)
        return is_beyond & (size == largest)


def predict(x: Tensor, order: int, frame: int) -> Tensor:
    """Each sample of ``x [B, T]`` from ``order`` neighbours on both sides, ``[B, T]``.

    The weights are a least-squares fit over ``frame`` samples and as many before and after. Beyond the
    clip's ends is silence. The two neighbours at a distance share a weight, because the best predictor of
    a stationary signal is symmetric.

    >>> tone = torch.sin(0.3 * torch.arange(80, dtype=torch.float64))[None]
    >>> bool((predict(tone, 1, 8) - tone)[0, 16:-16].abs().max() < 1e-5)  # two suffice for a tone
    True
    """
    batch, time = x.shape
    padded = F.pad(x, (order, order + -time % frame))
    length = padded.shape[1] - 2 * order  # whole frames

    def shift(by: int) -> Tensor:
        return padded[:, order + by : order + by + length]

    sums = torch.stack([shift(-k) + shift(k) for k in range(1, order + 1)], dim=2)
    sums = sums.view(batch, -1, frame, order)
    centre = shift(0).view(batch, -1, frame, 1)
    normal = _add_neighbours(sums.transpose(2, 3) @ sums)
    right = _add_neighbours(sums.transpose(2, 3) @ centre)
    trace = normal.diagonal(dim1=2, dim2=3).sum(dim=2)
    ridge = 1e-6 * trace + 1e-9  # silence predicts silence
    normal = normal + torch.diag_embed(ridge[..., None].expand(-1, -1, order))
    prediction: Tensor = (sums @ torch.linalg.solve(normal, right)).view(batch, -1)
    return prediction[:, :time]


def _add_neighbours(framed: Tensor) -> Tensor:
    """The sum of each frame of ``[B, F, ...]`` and the two beside it."""
    total = framed.clone()
    total[:, 1:] += framed[:, :-1]
    total[:, :-1] += framed[:, 1:]
    return total


def local_median(size: Tensor, in_clip: Tensor, frame: int) -> Tensor:
    """The largest median of ``size [B, T]`` in the frame of a sample and the two beside it, ``[B, T]``."""
    batch, time = size.shape
    missing = -time % frame
    framed = F.pad(size.masked_fill(~in_clip, torch.nan), (0, missing), value=torch.nan)
    medians = framed.view(batch, -1, frame).nanmedian(dim=2).values.nan_to_num(0.0)
    largest = F.max_pool1d(medians, 3, stride=1, padding=1)
    return largest.repeat_interleave(frame, dim=1)[:, :time]
