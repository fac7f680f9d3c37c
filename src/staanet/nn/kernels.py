"""Triton kernels for operations that are slow in torch on a GPU.

* ``group_norm_relu``: bias, GroupNorm and ReLU of channels-last features. torch has GroupNorm for
  channels-first memory only, so it copies the features there and back. It also uses few processors of a
  GPU for a single clip. Here each program normalises some frames of some groups, without a copy.
* ``conv_maxpool`` and ``unpool_rows``: the forward and the backward pass of ``staanet.nn.conv_maxpool``
  between the samples and the first features. cuDNN is slow with a single channel.

A program is one instance of a kernel, as in Triton's documentation. Triton comes with a torch for GPUs.
Without Triton, or without a C compiler, the callers use torch's own operators, as on a CPU. With
``TRITON_INTERPRET=1`` the kernels run slowly on a CPU, for tests without a GPU.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

P = ParamSpec("P")
R = TypeVar("R")
BLOCK = 16_384
"""The most values that one program holds in its registers."""
MIN_PROGRAMS = 264
"""Programs that keep a large GPU busy: two for each of its processors."""
MAX_OFFSET = 2**31
"""Values of a clip that a 32-bit offset can address."""


def is_available(x: Tensor) -> bool:
    """Returns whether the kernels of this module can run on ``x``: a GPU, and Triton works there."""
    return triton is not None and x.device.type == "cuda" and _compiles_on(x.device)


@functools.cache
def _compiles_on(device: torch.device) -> bool:
    """Whether a kernel compiles for ``device``: Triton needs a C compiler and a folder for its files."""
    ones = torch.ones(1, 1, 1, device=device)
    try:
        return bool(unpool_rows(ones, ones.byte(), ones, 2)[0, 0, 0, 1] == 1)
    except Exception as error:  # of any kind: torch's own operators are used then
        reason = " ".join(str(error).split())[:200]
        warnings.warn(
            f"Triton compiles nothing here, so {device} is slower: {reason}", stacklevel=2
        )
        return False


def can_normalise(x: Tensor, norm: nn.GroupNorm) -> bool:
    """Returns whether ``group_norm_relu`` can run on features ``x [B, C, 1, T]``."""
    width = norm.num_channels // norm.num_groups
    return (
        is_available(x)
        and not torch.is_grad_enabled()
        and 8 * norm.num_channels * x.shape[3]
        < MAX_OFFSET  # a convolution makes at most 8 frames of one
        and width == _largest_power_dividing(width)
        and norm.affine
    )


def _on_device_of_first(
    function: Callable[Concatenate[Tensor, P], R],
) -> Callable[Concatenate[Tensor, P], R]:
    """Decorates a function so that its kernels start on the GPU of its first argument."""

    @functools.wraps(function)
    def on_device(x: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
            return function(x, *args, **kwargs)

    return on_device


@_on_device_of_first
def group_norm_relu(x: Tensor, bias: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Returns ``relu(norm(x + bias))`` in channels-last memory, for ``x [B, C, 1, T]`` and ``bias [C]``."""
    batch, channels, _, time = x.shape
    if x.stride(1) != 1 or (time > 1 and x.stride(3) != channels):
        x = x.contiguous(memory_format=torch.channels_last)
    groups, width = norm.num_groups, channels // norm.num_groups
    output = x.new_empty(batch, 1, time, channels)
    affine, sizes = (norm.weight, norm.bias), (x.stride(0), time, channels)
    fits_whole = _next_power(time) * width <= BLOCK
    frames = _next_power(time) if fits_whole else BLOCK // (2 * width)
    group_block = _groups_per_program(groups, BLOCK // (frames * width))
    while (
        not fits_whole
        and frames > 128
        and batch * groups * time < MIN_PROGRAMS * group_block * frames
    ):
        frames //= 2
    warps = max(1, min(8, frames * group_block * width // 1024))
    if fits_whole:
        block = frames, group_block, width
        _normalise_whole[batch, groups // group_block](
            x, bias, affine, output, sizes, norm.eps, block=block, num_warps=warps
        )
    else:
        pieces = triton.cdiv(time, frames)
        piece_block = frames, group_block, width, _next_power(pieces)
        grid = batch, groups // group_block, pieces
        means, squares = torch.empty(2, batch, groups, pieces, device=x.device)
        _write_moments[grid](x, bias, means, squares, sizes, block=piece_block, num_warps=warps)
        _normalise_piece[grid](
            x,
            bias,
            affine,
            output,
            (means, squares),
            sizes,
            norm.eps,
            block=piece_block,
            num_warps=warps,
        )
    return output.permute(0, 3, 1, 2)


def _largest_power_dividing(number: int) -> int:
    """Returns the largest power of 2 that divides ``number``."""
    return number & -number


def _next_power(number: int) -> int:
    """Returns the smallest power of 2 that is at least ``number``."""
    return 1 << (number - 1).bit_length()


def _groups_per_program(groups: int, most: int) -> int:
    """Returns how many groups one program takes, at most ``most``; it divides their number."""
    return min(_largest_power_dividing(groups), 1 << (max(1, most).bit_length() - 1))


@_on_device_of_first
def conv_maxpool(padded: Tensor, weight: Tensor, pool: int, steps: int) -> tuple[Tensor, Tensor]:
    """Returns maxima and their argmax, ``[B, steps, C]`` each, of a convolution without bias.

    The same as ``staanet.nn.conv_maxpool.conv_maxpool``, for ``padded [B, T]`` and ``weight [C, K]``.
    """
    batch, (channels, kernel) = len(padded), weight.shape
    padded, weight = padded.contiguous(), weight.contiguous()
    pooled = padded.new_empty(batch, steps, channels)
    argmax = torch.empty(batch, steps, channels, dtype=torch.uint8, device=padded.device)
    frames = 32
    _conv_maxpool[batch, triton.cdiv(steps, frames)](
        padded,
        weight,
        pooled,
        argmax,
        (padded.shape[1], steps, channels),
        block=(pool, kernel, frames, _next_power(channels)),
        num_warps=4,
    )
    return pooled, argmax


@_on_device_of_first
def unpool_rows(values: Tensor, argmax: Tensor, weight: Tensor, pool: int) -> Tensor:
    """Returns the contribution of each frame to its samples, ``[B, S, O, pool + K - 1]``.

    Each of the ``values [B, S, C]`` is multiplied by its kernel in ``weight [C, O, K]``, shifted to its
    ``argmax [B, S, C]``.
    """
    (batch, steps, channels), (_, out, kernel) = values.shape, weight.shape
    values, argmax, weight = values.contiguous(), argmax.contiguous(), weight.contiguous()
    width, frames = pool + kernel - 1, 32
    rows = values.new_empty(batch, steps, out, width)
    _unpool_rows[triton.cdiv(batch * steps, frames), out](
        values,
        argmax,
        weight,
        rows,
        batch * steps,
        block=(channels, width, kernel, frames, _next_power(width)),
        num_warps=4,
    )
    return rows


# The kernels. Sizes and pointers that belong together are tuples. ``block`` is known at compile time.


def _kernel(function: Callable[..., Any]) -> Any:
    return function if triton is None else triton.jit(function)


@_kernel
def _load(x, bias, start, sizes, block: tl.constexpr):
    """Loads the frames of this program from ``start`` on: values, mask of those that exist, and indices."""
    stride, time, channels = sizes
    frames: tl.constexpr = block[0]
    group_block: tl.constexpr = block[1]
    width: tl.constexpr = block[2]
    t = start + tl.arange(0, frames)[:, None, None]
    group = tl.program_id(1) * group_block + tl.arange(0, group_block)[None, :, None]
    c = group * width + tl.arange(0, width)[None, None, :]
    inside = (t < time) & (c < channels)
    address = x + tl.program_id(0).to(tl.int64) * stride + t * channels + c
    value = tl.load(address, mask=inside, other=0.0).to(tl.float32)
    return value + tl.load(bias + c).to(tl.float32), inside, t, c


@_kernel
def _moments(value, inside, count):
    """The mean of each group, and the sum of squared distances from it."""
    mean = tl.sum(tl.sum(tl.where(inside, value, 0.0), 2), 0) / count
    centred = tl.where(inside, value - mean[None, :, None], 0.0)
    return mean, tl.sum(tl.sum(centred * centred, 2), 0)


@_kernel
def _store(output, loaded, mean, variance, affine, sizes, eps):
    """Writes ``relu(weight * normalised + shift)`` of what ``_load`` returned."""
    value, inside, t, c = loaded
    weight, shift = affine
    _, time, channels = sizes
    scale = tl.load(weight + c) / tl.sqrt(variance + eps)[None, :, None]
    normed = (value - mean[None, :, None]) * scale + tl.load(shift + c)
    address = output + tl.program_id(0).to(tl.int64) * time * channels + t * channels + c
    tl.store(address, tl.maximum(normed, 0.0).to(output.dtype.element_ty), mask=inside)


@_kernel
def _normalise_whole(x, bias, affine, output, sizes, eps, block: tl.constexpr):
    """GroupNorm of groups whose frames fit one program. Grid: clips, groups."""
    loaded = _load(x, bias, 0, sizes, block)
    count = sizes[1] * block[2]
    mean, squares = _moments(loaded[0], loaded[1], count)
    _store(output, loaded, mean, squares / count, affine, sizes, eps)


@_kernel
def _write_moments(x, bias, means, squares, sizes, block: tl.constexpr):
    """The moments of each group of one piece of a clip. Grid: clips, groups, pieces."""
    frames: tl.constexpr = block[0]
    group_block: tl.constexpr = block[1]
    start = tl.program_id(2) * frames
    loaded = _load(x, bias, start, sizes, block)
    mean, square = _moments(loaded[0], loaded[1], tl.minimum(frames, sizes[1] - start) * block[2])
    group = tl.program_id(1) * group_block + tl.arange(0, group_block)
    groups = tl.num_programs(1) * group_block
    index = (tl.program_id(0) * groups + group) * tl.num_programs(2) + tl.program_id(2)
    tl.store(means + index, mean)
    tl.store(squares + index, square)


@_kernel
def _normalise_piece(x, bias, affine, output, moments, sizes, eps, block: tl.constexpr):
    """GroupNorm of one piece of a clip, from the moments of all pieces. Grid: clips, groups, pieces."""
    frames: tl.constexpr = block[0]
    group_block: tl.constexpr = block[1]
    width: tl.constexpr = block[2]
    time, pieces = sizes[1], tl.num_programs(2)
    loaded = _load(x, bias, tl.program_id(2) * frames, sizes, block)
    piece = tl.arange(0, block[3])[:, None]
    group = tl.program_id(1) * group_block + tl.arange(0, group_block)[None, :]
    groups = tl.num_programs(1) * group_block
    index = (tl.program_id(0) * groups + group) * pieces + piece
    exists = (piece < pieces) & (group < groups)
    count = tl.where(exists, tl.minimum(frames, time - piece * frames) * width, 0).to(tl.float32)
    piece_mean = tl.load(moments[0] + index, mask=exists, other=0.0)
    mean = tl.sum(count * piece_mean, 0) / (time * width)
    offset = piece_mean - mean[None, :]
    squares = tl.load(moments[1] + index, mask=exists, other=0.0) + count * offset * offset
    _store(output, loaded, mean, tl.sum(squares, 0) / (time * width), affine, sizes, eps)


@_kernel
def _conv_maxpool(padded, weight, pooled, argmax, sizes, block: tl.constexpr):
    """Convolution of one channel and max-pooling. Grid: clips, pieces of ``frames`` maxima."""
    time, steps, channels = sizes
    pool: tl.constexpr = block[0]
    kernel: tl.constexpr = block[1]
    frames: tl.constexpr = block[2]
    channel_block: tl.constexpr = block[3]
    s = tl.program_id(1) * frames + tl.arange(0, frames)
    c = tl.arange(0, channel_block)
    clip = tl.program_id(0).to(tl.int64)
    is_step, is_channel = s < steps, c < channels
    largest = tl.full((frames, channel_block), float("-inf"), tl.float32)
    index = tl.zeros((frames, channel_block), tl.int32)
    for frame in tl.static_range(pool):
        feature = tl.zeros((frames, channel_block), tl.float32)
        for tap in tl.static_range(kernel):
            address = padded + clip * time + s * pool + frame + tap
            sample = tl.load(address, mask=is_step, other=0.0)
            scale = tl.load(weight + c * kernel + tap, mask=is_channel, other=0.0)
            feature += sample[:, None] * scale[None, :]
        larger = (feature > largest) | (feature != feature)  # noqa: PLR0124 - not a number
        largest = tl.where(larger, feature, largest)
        index = tl.where(larger, frame, index)
    offset = (clip * steps + s[:, None]) * channels + c[None, :]
    exists = is_step[:, None] & is_channel[None, :]
    tl.store(pooled + offset, largest, mask=exists)
    tl.store(argmax + offset, index.to(tl.uint8), mask=exists)


@_kernel
def _unpool_rows(values, argmax, weight, rows, count, block: tl.constexpr):
    """Sums of kernels shifted to their argmax. Grid: pieces of ``frames`` maxima, output channels."""
    channels: tl.constexpr = block[0]
    width: tl.constexpr = block[1]
    kernel: tl.constexpr = block[2]
    frames: tl.constexpr = block[3]
    s = (tl.program_id(0) * frames + tl.arange(0, frames)).to(tl.int64)
    out = tl.program_id(1)
    column = tl.arange(0, block[4])
    exists = s < count
    sums = tl.zeros((frames, block[4]), tl.float32)
    for c in range(channels):
        value = tl.load(values + s * channels + c, mask=exists, other=0.0)
        index = tl.load(argmax + s * channels + c, mask=exists, other=0).to(tl.int32)
        tap = column[None, :] - index[:, None]
        is_tap = (tap >= 0) & (tap < kernel)
        row = weight + (c * tl.num_programs(1) + out) * kernel
        sums += value[:, None] * tl.load(row + tap, mask=is_tap, other=0.0)
    offset = (s[:, None] * tl.num_programs(1) + out) * width + column[None, :]
    tl.store(rows + offset, sums, mask=exists[:, None] & (column < width)[None, :])
