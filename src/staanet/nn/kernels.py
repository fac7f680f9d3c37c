"""What torch is slow at on a GPU, as small programs in Triton.

* GroupNorm and ReLU over channels-last features. torch normalises groups in another order of memory only, so that
  features are copied there and back, and on one clip it keeps a handful of a GPU's units busy. Here each program
  reads some frames of some groups as they lie, adds the convolution's bias on the way, and writes them back in
  the precision that they came in.
* The two passes of ``staanet.nn.conv_maxpool`` between samples and the first features: one channel is too few for cuDNN.

Triton comes with a torch for GPUs; without it, and where it finds no C compiler, torch's own operators serve, as they do on a CPU.
With ``TRITON_INTERPRET=1`` the programs run on a CPU, slowly, which is how they are tested without a GPU.
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
"""Values that one program holds in its registers at most."""
UNITS = 264
"""Programs that keep a large GPU busy: two for each of its processors."""
LONGEST = 2**31
"""Values of a clip that an offset of 32 bits reaches; a convolution answers at most 8 frames for one."""


def serve(x: Tensor) -> bool:
    """Whether the programs of this module can be asked about ``x``."""
    return triton is not None and x.device.type == "cuda" and _works(x.device)


@functools.cache
def _works(device: torch.device) -> bool:
    """Whether a program can be compiled for ``device``: Triton needs a C compiler and a folder for its files."""
    one = torch.ones(1, 1, 1, device=device)
    try:
        return bool(sums_of_rows(one, one.byte(), one, 2)[0, 0, 0, 1] == 1)
    except Exception as problem:  # whatever it is, torch's own operators serve
        said = " ".join(str(problem).split())[:200]
        warnings.warn(f"Triton compiles nothing here, so {device} is slower: {said}", stacklevel=2)
        return False


def _there(function: Callable[Concatenate[Tensor, P], R]) -> Callable[Concatenate[Tensor, P], R]:
    """The function, its programs started on the GPU of its first argument."""

    @functools.wraps(function)
    def started(x: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
            return function(x, *args, **kwargs)

    return started


def can_normalise(x: Tensor, norm: nn.GroupNorm) -> bool:
    """Whether ``relu_of_norm`` serves for features ``x [B, C, 1, T]``."""
    width = norm.num_channels // norm.num_groups
    return (
        serve(x)
        and not torch.is_grad_enabled()
        and 8 * norm.num_channels * x.shape[3] < LONGEST
        and width == _power(width)
        and norm.affine
    )


@_there
def relu_of_norm(x: Tensor, bias: Tensor, norm: nn.GroupNorm) -> Tensor:
    """``relu(norm(x + bias))`` of features ``x [B, C, 1, T]`` with ``bias [C]``, in channels-last memory."""
    batch, channels, _, time = x.shape
    if x.stride(1) != 1 or (time > 1 and x.stride(3) != channels):
        x = x.contiguous(memory_format=torch.channels_last)
    groups, width = norm.num_groups, channels // norm.num_groups
    written = x.new_empty(batch, 1, time, channels)
    given, sizes = (x, bias, norm.weight, norm.bias, written), (x.stride(0), time, channels)
    whole = _at_least(time) * width <= BLOCK
    frames = _at_least(time) if whole else BLOCK // (2 * width)
    side = _side_by_side(groups, BLOCK // (frames * width))
    while not whole and frames > 128 and batch * groups * time < UNITS * side * frames:
        frames //= 2
    shape = {"frames": frames, "side": side, "width": width}
    shape["num_warps"] = max(1, min(8, frames * side * width // 1024))
    if whole:
        _whole[batch, groups // side](*given, *sizes, norm.eps, **shape)
    else:
        pieces = triton.cdiv(time, frames)
        grid, most = (batch, groups // side, pieces), _at_least(pieces)
        moments = torch.empty(2, batch, groups, pieces, device=x.device)
        _moments[grid](x, bias, *moments, *sizes, **shape)
        _normalised[grid](*given, *moments, *sizes, pieces, norm.eps, most=most, **shape)
    return written.permute(0, 3, 1, 2)


def _power(number: int) -> int:
    """The largest power of 2 that divides it."""
    return number & -number


def _at_least(number: int) -> int:
    """The smallest power of 2 that is not below it."""
    return 1 << (number - 1).bit_length()


def _side_by_side(groups: int, most: int) -> int:
    """How many groups a program takes, so that all are taken."""
    return min(_power(groups), 1 << (max(1, most).bit_length() - 1))


def _program(function: Callable[..., Any]) -> Any:
    return function if triton is None else triton.jit(function)


@_there
def convolved_maxima(
    padded: Tensor, weight: Tensor, pool: int, steps: int
) -> tuple[Tensor, Tensor]:
    """``staanet.nn.conv_maxpool.convolved_maxima`` of ``padded [B, T]`` without a bias: ``[B, steps, C]``, and bytes."""
    batch, (channels, kernel) = len(padded), weight.shape
    padded, weight = padded.contiguous(), weight.contiguous()
    maxima = padded.new_empty(batch, steps, channels)
    winner = torch.empty(batch, steps, channels, dtype=torch.uint8, device=padded.device)
    frames, across = 32, _at_least(channels)
    grid = batch, triton.cdiv(steps, frames)
    _convolved_maxima[grid](
        padded,
        weight,
        maxima,
        winner,
        padded.shape[1],
        steps,
        channels,
        pool=pool,
        kernel=kernel,
        frames=frames,
        across=across,
        num_warps=4,
    )
    return maxima, winner


@_there
def sums_of_rows(values: Tensor, winner: Tensor, weight: Tensor, pool: int) -> Tensor:
    """Of each frame of ``values [B, S, C]`` what it adds to the ``pool + K - 1`` samples that it reaches, through
    ``weight [C, O, K]`` shifted to its winners: ``[B, S, O, pool + K - 1]``."""
    (batch, steps, channels), (_, out, kernel) = values.shape, weight.shape
    values, winner, weight = values.contiguous(), winner.contiguous(), weight.contiguous()
    width, frames = pool + kernel - 1, 32
    taps = values.new_empty(batch, steps, out, width)
    _sums_of_rows[triton.cdiv(batch * steps, frames), out](
        values,
        winner,
        weight,
        taps,
        batch * steps,
        channels=channels,
        width=width,
        kernel=kernel,
        frames=frames,
        across=_at_least(width),
        num_warps=4,
    )
    return taps


# ------------------------------------------------- programs: the grid is clips, groups, pieces of a clip


@_program
def _read(
    x,
    bias,
    start,
    stride,
    time,
    channels,
    frames: tl.constexpr,
    side: tl.constexpr,
    width: tl.constexpr,
):
    t = start + tl.arange(0, frames)[:, None, None]
    group = tl.program_id(1) * side + tl.arange(0, side)[None, :, None]
    c = group * width + tl.arange(0, width)[None, None, :]
    inside = (t < time) & (c < channels)
    at = x + tl.program_id(0).to(tl.int64) * stride + t * channels + c
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32) + tl.load(bias + c).to(tl.float32)
    return value, inside, t, c


@_program
def _spread(value, inside, count):
    """Mean of each group, and the sum of squares about it."""
    mean = tl.sum(tl.sum(tl.where(inside, value, 0.0), 2), 0) / count
    off = tl.where(inside, value - mean[None, :, None], 0.0)
    return mean, tl.sum(tl.sum(off * off, 2), 0)


@_program
def _write(written, value, inside, t, c, mean, variance, weight, shift, time, channels, eps):
    scale = tl.load(weight + c) / tl.sqrt(variance + eps)[None, :, None]
    normed = (value - mean[None, :, None]) * scale + tl.load(shift + c)
    at = written + tl.program_id(0).to(tl.int64) * time * channels + t * channels + c
    tl.store(at, tl.maximum(normed, 0.0).to(written.dtype.element_ty), mask=inside)


@_program
def _whole(
    x,
    bias,
    weight,
    shift,
    written,
    stride,
    time,
    channels,
    eps,
    frames: tl.constexpr,
    side: tl.constexpr,
    width: tl.constexpr,
):
    """Groups whose frames one program can hold."""
    value, inside, t, c = _read(x, bias, 0, stride, time, channels, frames, side, width)
    mean, squares = _spread(value, inside, time * width)
    variance = squares / (time * width)
    _write(written, value, inside, t, c, mean, variance, weight, shift, time, channels, eps)


@_program
def _moments(
    x,
    bias,
    means,
    squares,
    stride,
    time,
    channels,
    frames: tl.constexpr,
    side: tl.constexpr,
    width: tl.constexpr,
):
    """Of a piece of a clip: each group's mean, and the sum of squares about it."""
    start = tl.program_id(2) * frames
    value, inside, _, _ = _read(x, bias, start, stride, time, channels, frames, side, width)
    mean, square = _spread(value, inside, tl.minimum(frames, time - start) * width)
    group = tl.program_id(1) * side + tl.arange(0, side)
    every = tl.num_programs(1) * side
    at = (tl.program_id(0) * every + group) * tl.num_programs(2) + tl.program_id(2)
    tl.store(means + at, mean)
    tl.store(squares + at, square)


@_program
def _normalised(
    x,
    bias,
    weight,
    shift,
    written,
    means,
    squares,
    stride,
    time,
    channels,
    pieces,
    eps,
    most: tl.constexpr,
    frames: tl.constexpr,
    side: tl.constexpr,
    width: tl.constexpr,
):
    """A piece of a clip, by what ``_moments`` says of all of its pieces."""
    start = tl.program_id(2) * frames
    value, inside, t, c = _read(x, bias, start, stride, time, channels, frames, side, width)
    piece = tl.arange(0, most)[:, None]
    group = tl.program_id(1) * side + tl.arange(0, side)[None, :]
    every = tl.num_programs(1) * side
    at = (tl.program_id(0) * every + group) * pieces + piece
    there = (piece < pieces) & (group < every)
    count = tl.where(there, tl.minimum(frames, time - piece * frames) * width, 0).to(tl.float32)
    own = tl.load(means + at, mask=there, other=0.0)
    mean = tl.sum(count * own, 0) / (time * width)
    off = own - mean[None, :]
    spread = tl.load(squares + at, mask=there, other=0.0) + count * off * off
    variance = tl.sum(spread, 0) / (time * width)
    _write(written, value, inside, t, c, mean, variance, weight, shift, time, channels, eps)


@_program
def _convolved_maxima(
    padded,
    weight,
    maxima,
    winner,
    time,
    steps,
    channels,
    pool: tl.constexpr,
    kernel: tl.constexpr,
    frames: tl.constexpr,
    across: tl.constexpr,
):
    s = tl.program_id(1) * frames + tl.arange(0, frames)
    c = tl.arange(0, across)
    clip = tl.program_id(0).to(tl.int64)
    inside, known = s < steps, c < channels
    best = tl.full((frames, across), float("-inf"), tl.float32)
    won = tl.zeros((frames, across), tl.int32)
    for place in tl.static_range(pool):
        answer = tl.zeros((frames, across), tl.float32)
        for tap in tl.static_range(kernel):
            read = tl.load(padded + clip * time + s * pool + place + tap, mask=inside, other=0.0)
            by = tl.load(weight + c * kernel + tap, mask=known, other=0.0)
            answer += read[:, None] * by[None, :]
        better = (answer > best) | (answer != answer)  # noqa: PLR0124 - not a number
        best = tl.where(better, answer, best)
        won = tl.where(better, place, won)
    at = (clip * steps + s[:, None]) * channels + c[None, :]
    both = inside[:, None] & known[None, :]
    tl.store(maxima + at, best, mask=both)
    tl.store(winner + at, won.to(tl.uint8), mask=both)


@_program
def _sums_of_rows(
    values,
    winner,
    weight,
    taps,
    count,
    channels: tl.constexpr,
    width: tl.constexpr,
    kernel: tl.constexpr,
    frames: tl.constexpr,
    across: tl.constexpr,
):
    s = (tl.program_id(0) * frames + tl.arange(0, frames)).to(tl.int64)
    out = tl.program_id(1)
    tap = tl.arange(0, across)
    inside = s < count
    sums = tl.zeros((frames, across), tl.float32)
    for c in range(channels):
        value = tl.load(values + s * channels + c, mask=inside, other=0.0)
        won = tl.load(winner + s * channels + c, mask=inside, other=0).to(tl.int32)
        place = tap[None, :] - won[:, None]
        reached = (place >= 0) & (place < kernel)
        row = weight + (c * tl.num_programs(1) + out) * kernel
        sums += value[:, None] * tl.load(row + place, mask=reached, other=0.0)
    at = (s[:, None] * tl.num_programs(1) + out) * width + tap[None, :]
    tl.store(taps + at, sums, mask=inside[:, None] & (tap < width)[None, :])
