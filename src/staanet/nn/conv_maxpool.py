"""Convolution with max-pooling in one pass, and the transposed convolution through its argmax.

The features of a first layer at the full sample rate are its largest tensor by far, and max-pooling
keeps one of ``pool`` of them. ``conv_maxpool`` therefore works on pieces that fit a cache: a few frames
are convolved by one product with a banded matrix and pooled at once. The gradient needs one byte for
each maximum: which of its ``pool`` samples was the largest.
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

FORWARD_FRAMES = 2400
"""Pooled frames that one piece of the forward pass makes: with 10 x 64 features each, 6 MB."""
BACKWARD_FRAMES = 256
"""Pooled frames of one piece where a matrix product replaces a convolution: 0.6 MB, a core's own cache."""


@in_float32
def conv_maxpool(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, pool: int
) -> tuple[Tensor, Tensor]:
    """Returns ``max_pool1d(conv1d(x, weight, bias, padding), pool)`` of one channel, and its argmax.

    Gradients reach ``x``, ``weight`` and ``bias``; there are no second derivatives.

    Args:
        x: Waveforms, ``[B, T]``.
        weight: Kernels, ``[C, K]``.
        bias: ``[C]``, or None.
        padding: Zeros before and after each row of ``x``.
        pool: Frames of each maximum, at most 256.

    Returns:
        The maxima ``[B, S, C]`` with ``S = (T + 2 padding - K + 1) // pool``, and for each of them the
        frame that it came from, ``[B, S, C]`` as bytes below ``pool``.

    >>> ones = torch.ones(1, 1)
    >>> pooled, argmax = conv_maxpool(torch.tensor([[1.0, 5.0, 7.0, 2.0]]), ones, None, 0, 2)
    >>> pooled.flatten().tolist(), argmax.flatten().tolist()
    ([5.0, 7.0], [1, 0])
    """
    pooled, argmax = _ConvMaxpool.apply(x, weight, padding, pool)  # type: ignore[no-untyped-call]
    return pooled if bias is None else pooled + bias, argmax  # a bias raises all frames alike


def is_long(x: Tensor, pool: int) -> bool:
    """Returns whether ``conv_maxpool`` is quicker than a convolution and a pooling of ``x [B, T]``.

    It is where the features take more than some 25 MB, and always on a GPU.

    >>> is_long(torch.zeros(1, 6 * 16_000), 10), is_long(torch.zeros(1, 7 * 16_000), 10)
    (False, True)
    """
    return x.numel() > 4 * FORWARD_FRAMES * pool or kernels.is_available(x)


@in_float32
def unpool_conv_transpose(values: Tensor, argmax: Tensor, weight: Tensor, pool: int) -> Tensor:
    """Returns ``conv_transpose1d(max_unpool1d(values, argmax), weight)`` without the unpooled tensor.

    Gradients reach ``values`` and ``weight``; there are no second derivatives.

    Args:
        values: One value for each maximum, ``[B, S, C]``.
        argmax: The frame that each maximum came from, ``[B, S, C]``, below ``pool``.
        weight: Kernels, ``[C, O, K]``.
        pool: Frames of each maximum.

    Returns:
        ``[B, O, S * pool + K - 1]``.

    >>> values, argmax = torch.tensor([[[5.0], [7.0]]]), torch.tensor([[[1], [0]]])
    >>> unpool_conv_transpose(values, argmax, torch.tensor([[[1.0, 10.0]]]), 2)
    tensor([[[ 0.,  5., 57., 70.,  0.]]])
    """
    output: Tensor = _UnpoolConvTranspose.apply(values, argmax, weight, pool)  # type: ignore[no-untyped-call]
    return output


def max_unpool(values: Tensor, argmax: Tensor, pool: int) -> Tensor:
    """Returns each value in the frame of its maximum, zeros elsewhere, ``[B, C, 1, S] -> [B, C, 1, S * pool]``.

    Input and output are in channels-last memory.

    >>> max_unpool(torch.tensor([[[[5.0, 7.0]]]]), torch.tensor([[[[1, 0]]]]), 2)
    tensor([[[[0., 5., 7., 0.]]]])
    """
    batch, channels, _, steps = values.shape
    values, argmax = channels_to_rows(values), channels_to_rows(argmax)
    if (
        values.is_cuda
    ):  # there a deterministic scatter waits for the CPU, and no CUDA graph holds it
        is_maximum = argmax[:, :, None] == torch.arange(pool, device=values.device)[:, None]
        spread = torch.where(is_maximum, values[:, :, None], 0)
        return spread.reshape(batch, 1, steps * pool, channels).permute(0, 3, 1, 2)
    frames = argmax + pool * torch.arange(steps, device=values.device)[:, None]
    indices = frames * channels + torch.arange(channels, device=values.device)
    spread = values.new_zeros(batch, steps * pool * channels).scatter(
        1, indices.reshape(batch, -1), values.reshape(batch, -1)
    )
    return spread.view(batch, 1, steps * pool, channels).permute(0, 3, 1, 2)


def channels_to_rows(x: Tensor) -> Tensor:
    """``[B, C, 1, S] -> [B, S, C]``: no copy where ``x`` is in channels-last memory."""
    return x[:, :, 0].transpose(1, 2)


def banded_matrix(weight: Tensor, pool: int) -> Tensor:
    """Returns each kernel shifted to each frame of a maximum, ``[C, O, K] -> [pool, C, O, pool + K - 1]``."""
    channels, out, kernel = weight.shape
    matrix = weight.new_zeros(pool, channels, out, pool + kernel - 1)
    for shift in range(pool):
        matrix[shift, ..., shift : shift + kernel] = weight
    return matrix


class _ConvMaxpool(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, padding: int, pool: int
    ) -> tuple[Tensor, Tensor]:
        padded = F.pad(x, (padding, padding))
        steps = (padded.shape[1] - weight.shape[1] + 1) // pool
        compute = kernels.conv_maxpool if kernels.is_available(x) else _conv_maxpool_in_pieces
        pooled, argmax = compute(padded, weight, pool, steps)
        ctx.save_for_backward(padded, weight, argmax)
        ctx.mark_non_differentiable(argmax)
        ctx.padding, ctx.pool, ctx.time = padding, pool, x.shape[1]
        return pooled, argmax

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        padded, weight, argmax = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            summed = _unpool_conv_transpose(grad_output, argmax, weight[:, None], ctx.pool)[:, 0]
            missing = ctx.padding + ctx.time - summed.shape[1]
            grad_x = F.pad(summed, (0, max(0, missing)))[:, ctx.padding : ctx.padding + ctx.time]
        if ctx.needs_input_grad[1]:
            windows = _windows(padded, ctx.pool, weight.shape[1])
            grad_weight = _weight_gradient(grad_output, argmax, windows, ctx.pool)
        return grad_x, grad_weight, None, None


class _UnpoolConvTranspose(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, argmax: Tensor, weight: Tensor, pool: int) -> Tensor:
        ctx.save_for_backward(values, argmax, weight)
        ctx.pool = pool
        return _unpool_conv_transpose(values, argmax, weight, pool)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        values, argmax, weight = ctx.saved_tensors
        channels, out, kernel = weight.shape
        windows = torch.cat(
            [_windows(grad_output[:, o], ctx.pool, kernel) for o in range(out)], dim=2
        )
        grad_values = grad_weight = None
        if ctx.needs_input_grad[0]:
            matrix = banded_matrix(weight, ctx.pool).view(ctx.pool * channels, -1).t().contiguous()
            grad_values = torch.empty_like(values)
            for clips, frames in _pieces(
                len(values), values.shape[1], values.device, BACKWARD_FRAMES
            ):
                all_frames = windows[clips, frames] @ matrix
                all_frames = all_frames.view(*all_frames.shape[:2], ctx.pool, channels)
                index = argmax[clips, frames].long()[:, :, None]
                grad_values[clips, frames] = all_frames.gather(2, index)[:, :, 0]
        if ctx.needs_input_grad[2]:
            parts = windows.chunk(out, dim=2)
            grad_weight = torch.stack(
                [_weight_gradient(values, argmax, part, ctx.pool) for part in parts], dim=1
            )
        return grad_values, None, grad_weight, None


def _conv_maxpool_in_pieces(
    padded: Tensor, weight: Tensor, pool: int, steps: int
) -> tuple[Tensor, Tensor]:
    """Maxima ``[B, steps, C]`` of the convolved ``padded [B, T]``, and their argmax."""
    batch, (channels, kernel) = len(padded), weight.shape
    kernels_2d = _channels_last(weight[:, None, None])
    pooled = padded.new_empty(batch, steps, channels)
    argmax = torch.empty(batch, steps, channels, dtype=torch.uint8, device=padded.device)
    for clips, frames in _pieces(batch, steps, padded.device, FORWARD_FRAMES):
        samples = padded[clips, None, None, frames.start * pool : frames.stop * pool + kernel - 1]
        largest, index = F.max_pool2d(F.conv2d(samples, kernels_2d), (1, pool), return_indices=True)
        starts = pool * torch.arange(largest.shape[3], device=padded.device)
        pooled[clips, frames] = largest[:, :, 0].transpose(1, 2)
        argmax[clips, frames] = (index - starts)[:, :, 0].transpose(1, 2).to(torch.uint8)
    return pooled, argmax


def _unpool_conv_transpose(values: Tensor, argmax: Tensor, weight: Tensor, pool: int) -> Tensor:
    """``unpool_conv_transpose``: each value takes the row of the banded matrix of its argmax."""
    batch, steps, _ = values.shape
    out, kernel = weight.shape[1:]
    reach = -(-(pool + kernel - 1) // pool)  # frames of the output that one frame reaches into
    output = values.new_zeros(batch, out, steps + reach - 1, pool)
    compute = kernels.unpool_rows if kernels.is_available(values) else _unpool_rows
    rows = compute(values, argmax, weight, pool).transpose(1, 2)
    for offset in range(reach):
        part = rows[..., offset * pool : (offset + 1) * pool]
        output[:, :, offset : offset + steps, : part.shape[3]] += part
    return output.flatten(2)[..., : steps * pool + kernel - 1]


def _unpool_rows(values: Tensor, argmax: Tensor, weight: Tensor, pool: int) -> Tensor:
    """The contribution of each frame of ``values [B, S, C]`` to its samples, ``[B, S, O, pool + K - 1]``."""
    batch, steps, channels = values.shape
    out, kernel = weight.shape[1:]
    matrix = banded_matrix(weight, pool).view(pool * channels, -1)
    channel = torch.arange(channels, device=values.device)
    rows = values.new_empty(batch, steps, matrix.shape[1])
    for clips, frames in _pieces(batch, steps, values.device, FORWARD_FRAMES):
        index = argmax[clips, frames].long() * channels + channel
        scale = values[clips, frames].reshape(-1, channels)
        sums = F.embedding_bag(
            index.view(scale.shape), matrix, mode="sum", per_sample_weights=scale
        )
        rows[clips, frames] = sums.view(*index.shape[:2], -1)
    return rows.view(batch, steps, out, pool + kernel - 1)


def _weight_gradient(values: Tensor, argmax: Tensor, windows: Tensor, pool: int) -> Tensor:
    """Sums of ``values`` times the part of ``windows [B, S, pool + K - 1]`` at their argmax, ``[C, K]``."""
    batch, steps, channels = values.shape
    kernel = windows.shape[2] - pool + 1
    sums = values.new_zeros(pool * channels, windows.shape[2])
    channel = torch.arange(channels, device=values.device)
    for clips, frames in _pieces(batch, steps, values.device, BACKWARD_FRAMES):
        rows = values[clips, frames].reshape(-1, channels)
        spread = rows.new_zeros(len(rows), pool * channels)
        index = argmax[clips, frames].reshape(rows.shape).long() * channels + channel
        spread.scatter_(1, index, rows)
        sums.addmm_(spread.t(), windows[clips, frames].reshape(len(rows), -1))
    bands = [sums[j * channels : (j + 1) * channels, j : j + kernel] for j in range(pool)]
    return torch.stack(bands).sum(dim=0)


def _channels_last(x: Tensor) -> Tensor:
    """A copy whose strides are channels-last also where a size of 1 leaves them open."""
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def _windows(x: Tensor, pool: int, kernel: int) -> Tensor:
    """The samples of ``x [B, T]`` that each pooled frame sees, ``[B, S, pool + K - 1]``, a view."""
    return x.unfold(1, pool + kernel - 1, pool)


def _pieces(batch: int, steps: int, device: torch.device, size: int) -> list[tuple[slice, slice]]:
    """Clips and frames of each piece: ``size`` frames of one clip; on a GPU everything at once."""
    if device.type != "cpu":
        return [(slice(None), slice(0, steps))]
    return [
        (slice(row, row + 1), slice(start, min(start + size, steps)))
        for row in range(batch)
        for start in range(0, steps, size)
    ]
