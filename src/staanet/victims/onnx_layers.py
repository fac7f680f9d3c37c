"""The layers of ONNX in torch: convolution, pooling, normalisation, spectra."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from staanet.victims.onnx_node import Node, UnsupportedGraph


def spatial_pads(node: Node, x: Tensor, kernel: list[int], strides: list[int]) -> list[int]:
    """Pads before and after each axis of a convolution or pooling, ``[before, after, ...]``."""
    axes = len(kernel)
    dilations = node.get("dilations", [1] * axes)
    mode = node.get("auto_pad", "NOTSET")
    pads = [*node.get("pads", [0] * 2 * axes)] if mode in ("NOTSET", "") else [0] * 2 * axes
    if mode.startswith("SAME"):
        for axis in range(axes):
            size = x.shape[2 + axis]
            extent = (kernel[axis] - 1) * dilations[axis] + 1
            total = max(0, (-(-size // strides[axis]) - 1) * strides[axis] + extent - size)
            small, large = total // 2, total - total // 2
            upper = mode == "SAME_UPPER"
            pads[axis], pads[axes + axis] = (small, large) if upper else (large, small)
    return [p for axis in range(axes) for p in (pads[axis], pads[axes + axis])]


def pad_last_axes(x: Tensor, pairs: list[int], value: float = 0.0) -> Tensor:
    """Pad the last axes; ``pairs`` begins with the first of them, unlike torch's."""
    if not any(pairs):
        return x
    backwards = [p for axis in reversed(range(len(pairs) // 2)) for p in pairs[2 * axis :][:2]]
    return F.pad(x, backwards, value=value)


def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution over one to three axes."""
    axes = weight.dim() - 2
    strides, kernel = node.get("strides", [1] * axes), [*weight.shape[2:]]
    pairs = spatial_pads(node, x, kernel, strides)
    pads = pairs[::2]
    if pads != pairs[1::2]:  # torch pads both sides alike
        x, pads = pad_last_axes(x, pairs), [0] * axes
    if axes == 2:  # on a CPU a quarter less time, measured on DNSMOS forward and backward
        x = x.contiguous(memory_format=torch.channels_last)
        weight = weight.contiguous(memory_format=torch.channels_last)
    function: Any = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    dilations, group = node.get("dilations", [1] * axes), node.get("group", 1)
    answer: Tensor = function(x, weight, bias, strides, pads, dilations, group)
    return answer


def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Transposed convolution with even pads."""
    axes = weight.dim() - 2
    pads = node.get("pads", [0] * 2 * axes)
    if node.get("auto_pad", "NOTSET") != "NOTSET" or pads[:axes] != pads[axes:]:
        raise UnsupportedGraph("ConvTranspose with uneven pads")
    function: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    extra, group = node.get("output_padding", [0] * axes), node.get("group", 1)
    strides, dilations = node.get("strides", [1] * axes), node.get("dilations", [1] * axes)
    answer: Tensor = function(x, weight, bias, strides, pads[:axes], extra, group, dilations)
    return answer


def max_pool(node: Node, x: Tensor) -> Tensor:
    """Maxima of windows."""
    kernel = node.get("kernel_shape")
    axes = len(kernel)
    strides = node.get("strides", [1] * axes)
    x = pad_last_axes(x, spatial_pads(node, x, kernel, strides), -math.inf)
    function: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
    dilations, ceil = node.get("dilations", [1] * axes), bool(node.get("ceil_mode", 0))
    answer: Tensor = function(x, kernel, strides, 0, dilations, ceil)
    return answer


def average_pool(node: Node, x: Tensor) -> Tensor:
    """Means of windows, with or without the pads."""
    kernel = node.get("kernel_shape")
    axes = len(kernel)
    strides, ceil = node.get("strides", [1] * axes), bool(node.get("ceil_mode", 0))
    pairs = spatial_pads(node, x, kernel, strides)
    function: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
    if ceil and any(pairs):
        raise UnsupportedGraph("AveragePool with pads and ceil_mode")
    answer: Tensor = function(pad_last_axes(x, pairs), kernel, strides, 0, ceil)
    if any(pairs) and not node.get("count_include_pad", 0):
        inside = function(pad_last_axes(torch.ones_like(x), pairs), kernel, strides, 0, ceil)
        return answer / torch.as_tensor(inside)
    return answer


def batch_norm(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    """Batch normalisation with the statistics of training."""
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


def layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Normalisation over the last axes."""
    axis = node.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, bias, node.get("epsilon", 1e-5))


def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """``alpha * a @ b + beta * c``."""
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    answer: Tensor = node.get("alpha", 1.0) * (a @ b)
    return answer if c is None else answer + node.get("beta", 1.0) * c


def stft(
    node: Node, x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None
) -> Tensor:
    """Frames as spectra, real and imaginary part last."""
    x = x.squeeze(-1) if x.dim() == 3 else x
    size = len(window) if window is not None else int(length.item() if length is not None else 0)
    frames = x.unfold(-1, size, int(step.item()))
    frames = frames if window is None else frames * window
    spectrum = torch.fft.rfft(frames) if node.get("onesided", 1) else torch.fft.fft(frames)
    return torch.view_as_real(spectrum)
