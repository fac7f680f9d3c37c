"""Convolution and maxima over a waveform in one pass, and the way back through the winners.

The features of a first layer at the full rate are its largest tensor by far, and of ``pool`` of them one
is kept. Here they live in pieces that fit a cache: forwards a few frames are convolved by one product
with a banded matrix and pooled at once; backwards each winner iterations up its row of that matrix. What has
to be remembered for a gradient is one byte for each maximum.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from staanet.nn import kernels
from staanet.nn.precision import in_float32

FORWARDS = 2400
"""Frames of maxima that are made at once: with 10 x 64 features each, 6 MB."""
BACKWARDS = 256
"""Frames at once where a matrix product fills what a convolution would: 0.6 MB, in a core's own cache."""


@in_float32
def convolved_maxima(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, pool: int
) -> tuple[Tensor, Tensor]:
    """``max_pool1d(conv1d(x, weight, bias, padding), pool)`` of one channel, and which frame won.

    ``x [B, T]``, ``weight [C, K]``, ``bias [C]`` -> maxima ``[B, S, C]`` with
    ``S = (T + 2 padding - K + 1) // pool``, and winners ``[B, S, C]`` as bytes below ``pool`` (at most
    256). Gradients reach ``x``, ``weight`` and ``bias``, once.

    >>> ones = torch.ones(1, 1)
    >>> maxima, winner = convolved_maxima(torch.tensor([[1.0, 5.0, 7.0, 2.0]]), ones, None, 0, 2)
    >>> maxima.flatten().tolist(), winner.flatten().tolist()
    ([5.0, 7.0], [1, 0])
    """
    maxima, winner = _ConvolvedMaxima.apply(x, weight, padding, pool)  # type: ignore[no-untyped-call]
    return maxima if bias is None else maxima + bias, winner  # a bias lifts all alike


def is_long(x: Tensor, pool: int) -> bool:
    """Whether the features of ``x [B, T]`` are too many to be written down at once: some 25 MB; on a GPU any.

    >>> is_long(torch.zeros(1, 6 * 16_000), 10), is_long(torch.zeros(1, 7 * 16_000), 10)
    (False, True)
    """
    return x.numel() > 4 * FORWARDS * pool or kernels.serve(x)


@in_float32
def through_winners(values: Tensor, winner: Tensor, weight: Tensor, pool: int) -> Tensor:
    """``conv_transpose1d`` of features that are zero but for ``values``, each in its winner's frame.

    ``values`` and ``winner [B, S, C]``, ``weight [C, O, K]`` -> ``[B, O, S * pool + K - 1]``. Gradients
    reach ``values`` and ``weight``, once.

    >>> values, winner = torch.tensor([[[5.0], [7.0]]]), torch.tensor([[[1], [0]]])
    >>> through_winners(values, winner, torch.tensor([[[1.0, 10.0]]]), 2)
    tensor([[[ 0.,  5., 57., 70.,  0.]]])
    """
    answer: Tensor = _ThroughWinners.apply(values, winner, weight, pool)  # type: ignore[no-untyped-call]
    return answer


class _ConvolvedMaxima(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, padding: int, pool: int
    ) -> tuple[Tensor, Tensor]:
        padded = F.pad(x, (padding, padding))
        steps = (padded.shape[1] - weight.shape[1] + 1) // pool
        on_gpu = kernels.serve(x)
        maxima, winner = (kernels.convolved_maxima if on_gpu else _in_pieces)(
            padded, weight, pool, steps
        )
        ctx.save_for_backward(padded, weight, winner)
        ctx.mark_non_differentiable(winner)
        ctx.padding, ctx.pool, ctx.time = padding, pool, x.shape[1]
        return maxima, winner

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        padded, weight, winner = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            back = _summed(gradient, winner, weight[:, None], ctx.pool)[:, 0]
            missing = ctx.padding + ctx.time - back.shape[1]
            to_x = F.pad(back, (0, max(0, missing)))[:, ctx.padding : ctx.padding + ctx.time]
        if ctx.needs_input_grad[1]:
            windows = _windows(padded, ctx.pool, weight.shape[1])
            to_weight = _to_weight(gradient, winner, windows, ctx.pool)
        return to_x, to_weight, None, None


def _in_pieces(padded: Tensor, weight: Tensor, pool: int, steps: int) -> tuple[Tensor, Tensor]:
    """Maxima ``[B, steps, C]`` of convolved ``padded [B, T]``, and which frames won."""
    batch, (channels, kernel) = len(padded), weight.shape
    rows = _channels_last(weight[:, None, None])
    maxima = padded.new_empty(batch, steps, channels)
    winner = torch.empty(batch, steps, channels, dtype=torch.uint8, device=padded.device)
    for clips, frames in _pieces(batch, steps, padded.device, FORWARDS):
        read = padded[clips, None, None, frames.start * pool : frames.stop * pool + kernel - 1]
        best, index = F.max_pool2d(F.conv2d(read, rows), (1, pool), return_indices=True)
        starts = pool * torch.arange(best.shape[3], device=padded.device)
        maxima[clips, frames] = best[:, :, 0].transpose(1, 2)
        winner[clips, frames] = (index - starts)[:, :, 0].transpose(1, 2).to(torch.uint8)
    return maxima, winner


class _ThroughWinners(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, winner: Tensor, weight: Tensor, pool: int) -> Tensor:
        ctx.save_for_backward(values, winner, weight)
        ctx.pool = pool
        return _summed(values, winner, weight, pool)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, winner, weight = ctx.saved_tensors
        channels, out, kernel = weight.shape
        windows = torch.cat([_windows(gradient[:, o], ctx.pool, kernel) for o in range(out)], dim=2)
        to_values = to_weight = None
        if ctx.needs_input_grad[0]:
            matrix = banded(weight, ctx.pool).view(ctx.pool * channels, -1).t().contiguous()
            to_values = torch.empty_like(values)
            for rows, frames in _pieces(len(values), values.shape[1], values.device, BACKWARDS):
                every = windows[rows, frames] @ matrix
                every = every.view(*every.shape[:2], ctx.pool, channels)
                place = winner[rows, frames].long()[:, :, None]
                to_values[rows, frames] = every.gather(2, place)[:, :, 0]
        if ctx.needs_input_grad[2]:
            parts = windows.chunk(out, dim=2)
            to_weight = torch.stack(
                [_to_weight(values, winner, part, ctx.pool) for part in parts], dim=1
            )
        return to_values, None, to_weight, None


def _summed(values: Tensor, winner: Tensor, weight: Tensor, pool: int) -> Tensor:
    """What ``through_winners`` answers: each value takes its winner's row of the banded matrix."""
    batch, steps, _ = values.shape
    out, kernel = weight.shape[1:]
    width = pool + kernel - 1
    whole = -(-width // pool)  # frames that the answer to one frame reaches into
    answer = values.new_zeros(batch, out, steps + whole - 1, pool)
    on_gpu = kernels.serve(values)
    spread = (kernels.sums_of_rows if on_gpu else _looked_up)(values, winner, weight, pool)
    spread = spread.transpose(1, 2)
    for number in range(whole):
        part = spread[..., number * pool : (number + 1) * pool]
        answer[:, :, number : number + steps, : part.shape[3]] += part
    return answer.flatten(2)[..., : steps * pool + kernel - 1]


def _looked_up(values: Tensor, winner: Tensor, weight: Tensor, pool: int) -> Tensor:
    """What each frame of ``values [B, S, C]`` adds to the samples that it reaches, ``[B, S, O, pool + K - 1]``."""
    batch, steps, channels = values.shape
    out, kernel = weight.shape[1:]
    rows = banded(weight, pool).view(pool * channels, -1)
    own = torch.arange(channels, device=values.device)
    taps = values.new_empty(batch, steps, rows.shape[1])
    for clips, frames in _pieces(batch, steps, values.device, FORWARDS):
        places = winner[clips, frames].long() * channels + own
        loud = values[clips, frames].reshape(-1, channels)
        found = F.embedding_bag(places.view(loud.shape), rows, mode="sum", per_sample_weights=loud)
        taps[clips, frames] = found.view(*places.shape[:2], -1)
    return taps.view(batch, steps, out, pool + kernel - 1)


def _to_weight(values: Tensor, winner: Tensor, windows: Tensor, pool: int) -> Tensor:
    """Sums of ``values`` times what each winner saw of ``windows [B, S, P + K - 1]``, ``[C, K]``."""
    batch, steps, channels = values.shape
    kernel = windows.shape[2] - pool + 1
    sums = values.new_zeros(pool * channels, windows.shape[2])
    own = torch.arange(channels, device=values.device)
    for rows, frames in _pieces(batch, steps, values.device, BACKWARDS):
        mine = values[rows, frames].reshape(-1, channels)
        spread = mine.new_zeros(len(mine), pool * channels)
        spread.scatter_(1, winner[rows, frames].reshape(mine.shape).long() * channels + own, mine)
        sums.addmm_(spread.t(), windows[rows, frames].reshape(len(mine), -1))
    bands = [sums[j * channels : (j + 1) * channels, j : j + kernel] for j in range(pool)]
    return torch.stack(bands).sum(dim=0)


def _channels_last(x: Tensor) -> Tensor:
    """A copy in channels-last memory even where sizes of 1 leave it open, which convolutions go by."""
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def _windows(x: Tensor, pool: int, kernel: int) -> Tensor:
    """What each frame of maxima sees of ``x [B, T]``: ``[B, S, pool + K - 1]``, a view."""
    return x.unfold(1, pool + kernel - 1, pool)


def banded(weight: Tensor, pool: int) -> Tensor:
    """``[C, O, K] -> [pool, C, O, pool + K - 1]``: the kernel, shifted by each place in a frame."""
    channels, out, kernel = weight.shape
    matrix = weight.new_zeros(pool, channels, out, pool + kernel - 1)
    for place in range(pool):
        matrix[place, ..., place : place + kernel] = weight
    return matrix


def _pieces(batch: int, steps: int, device: torch.device, size: int) -> list[tuple[slice, slice]]:
    """Clips and frames that are done at once: ``size`` frames of one clip; on a GPU, all."""
    if device.type != "cpu":
        return [(slice(None), slice(0, steps))]
    return [
        (slice(row, row + 1), slice(start, min(start + size, steps)))
        for row in range(batch)
        for start in range(0, steps, size)
    ]
