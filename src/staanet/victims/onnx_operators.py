"""The operators of ONNX in torch, for classifiers of audio (https://onnx.ai/onnx/operators)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from staanet.victims import onnx_layers as layers
from staanet.victims import onnx_shapes as shapes
from staanet.victims.onnx_node import Node, axes_of, ints, together
from staanet.victims.onnx_recurrent import gru, lstm, rnn


def elementwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator of tensors alone."""
    return lambda _node, *values: function(*together(*values))


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator that reduces axes; ``function`` takes the tensor, the axes and ``keepdim``."""

    def reduce(node: Node, x: Tensor, value: Tensor | None = None) -> Tensor:
        axes = axes_of(node, value)
        if not axes:
            if node.get("noop_with_empty_axes", 0):
                return x
            axes = [*range(x.dim())]
        return function(x, axes, bool(node.get("keepdims", 1)))

    return reduce


def product(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """The product over axes."""
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim)
    return x


def arg(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator that gives the index of an extreme."""

    def operator(node: Node, x: Tensor) -> Tensor:
        return function(x, node.get("axis", 0), bool(node.get("keepdims", 1)))

    return operator


def softmax(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator along an axis, by default the last."""
    return lambda node, x: function(x, node.get("axis", -1))


def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Limited from below and above."""
    least = node.get("min") if low is None else low.item()
    most = node.get("max") if high is None else high.item()
    return x if least is None and most is None else x.clamp(least, most)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Quotient; of whole numbers the whole part."""
    if a.is_floating_point() or b.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def many(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An operator of any number of tensors, by one of two."""

    def operator(_node: Node, *values: Tensor) -> Tensor:
        first, *rest = together(*values)
        for value in rest:
            first = function(first, value)
        answer: Tensor = first
        return answer

    return operator


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": elementwise(torch.abs),
    "Add": many(torch.add),
    "And": elementwise(torch.logical_and),
    "ArgMax": arg(torch.argmax),
    "ArgMin": arg(torch.argmin),
    "AveragePool": layers.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": shapes.cast,
    "CastLike": shapes.cast,
    "Ceil": elementwise(torch.ceil),
    "Clip": clip,
    "Concat": lambda node, *values: torch.cat(together(*values), node.get("axis")),
    "ConstantOfShape": shapes.constant_of_shape,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Cos": elementwise(torch.cos),
    "CumSum": shapes.cumulative_sum,
    "Div": many(divide),
    "Dropout": lambda node, x, *rest: x,
    "Einsum": lambda node, *values: torch.einsum(node.get("equation"), *values),
    "Elu": lambda node, x: F.elu(x, node.get("alpha", 1.0)),
    "Equal": elementwise(torch.eq),
    "Erf": elementwise(torch.erf),
    "Exp": elementwise(torch.exp),
    "Expand": shapes.expand,
    "Flatten": lambda node, x: x.reshape(math.prod(x.shape[: node.get("axis", 1)]), -1),
    "Floor": elementwise(torch.floor),
    "GRU": gru,
    "Gather": shapes.gather,
    "GatherElements": shapes.gather_elements,
    "GatherND": shapes.gather_nd,
    "Gelu": lambda node, x: F.gelu(x, approximate=node.get("approximate", "none")),
    "Gemm": layers.gemm,
    "GlobalAveragePool": lambda node, x: x.mean([*range(2, x.dim())], keepdim=True),
    "GlobalMaxPool": lambda node, x: x.amax([*range(2, x.dim())], keepdim=True),
    "Greater": elementwise(torch.gt),
    "GreaterOrEqual": elementwise(torch.ge),
    "GroupNormalization": lambda node, x, scale, bias: F.group_norm(
        x, node.get("num_groups"), scale, bias, node.get("epsilon", 1e-5)
    ),
    "HardSigmoid": lambda node, x: (node.get("alpha", 0.2) * x + node.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": elementwise(F.hardswish),
    "Identity": lambda node, x: x,
    "InstanceNormalization": lambda node, x, scale, bias: F.instance_norm(
        x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5)
    ),
    "IsInf": elementwise(torch.isinf),
    "IsNaN": elementwise(torch.isnan),
    "LSTM": lstm,
    "LayerNormalization": layers.layer_norm,
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "Less": elementwise(torch.lt),
    "LessOrEqual": elementwise(torch.le),
    "Log": elementwise(torch.log),
    "LogSoftmax": softmax(F.log_softmax),
    "MatMul": many(torch.matmul),
    "Max": many(torch.maximum),
    "MaxPool": layers.max_pool,
    "Mean": lambda node, *values: sum(values) / len(values),
    "Min": many(torch.minimum),
    "Mish": elementwise(F.mish),
    "Mod": lambda node, a, b: torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b),
    "Mul": many(torch.mul),
    "Neg": elementwise(torch.neg),
    "NonZero": lambda node, x: x.nonzero().T,
    "Not": elementwise(torch.logical_not),
    "Or": elementwise(torch.logical_or),
    "PRelu": elementwise(lambda x, slope: torch.where(x < 0, slope * x, x)),
    "Pad": shapes.pad,
    "Pow": many(lambda a, b: a.pow(b).to(a.dtype)),
    "RNN": rnn,
    "Range": lambda node, first, last, step: torch.arange(first.item(), last.item(), step.item()),
    "Reciprocal": elementwise(torch.reciprocal),
    "ReduceL1": reduction(lambda x, axes, keepdim: x.abs().sum(axes, keepdim)),
    "ReduceL2": reduction(lambda x, axes, keepdim: x.norm(dim=axes, keepdim=keepdim)),
    "ReduceLogSumExp": reduction(torch.logsumexp),
    "ReduceMax": reduction(torch.amax),
    "ReduceMean": reduction(torch.mean),
    "ReduceMin": reduction(torch.amin),
    "ReduceProd": reduction(product),
    "ReduceSum": reduction(torch.sum),
    "ReduceSumSquare": reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim)),
    "Relu": elementwise(torch.relu),
    "Reshape": shapes.reshape,
    "Round": elementwise(torch.round),
    "STFT": layers.stft,
    "ScatterND": shapes.scatter_nd,
    "Selu": elementwise(F.selu),
    "Shape": lambda node, x: torch.tensor(
        [*x.shape][slice(node.get("start", 0), node.get("end"))], dtype=torch.long
    ),
    "Sigmoid": elementwise(torch.sigmoid),
    "Sign": elementwise(torch.sign),
    "Sin": elementwise(torch.sin),
    "Size": lambda node, x: torch.tensor(x.numel()),
    "Slice": shapes.slice_tensor,
    "Softmax": softmax(F.softmax),
    "Softplus": elementwise(F.softplus),
    "Softsign": elementwise(F.softsign),
    "Split": shapes.split,
    "Sqrt": elementwise(torch.sqrt),
    "Squeeze": shapes.squeeze,
    "Sub": many(torch.sub),
    "Sum": many(torch.add),
    "Tanh": elementwise(torch.tanh),
    "Tile": lambda node, x, repeats: x.repeat(ints(repeats)),
    "TopK": shapes.top_k,
    "Transpose": lambda node, x: x.permute(node.get("perm") or [*reversed(range(x.dim()))]),
    "Trilu": shapes.triangle,
    "Unsqueeze": shapes.unsqueeze,
    "Where": lambda node, test, a, b: torch.where(*together(test, a, b)),
    "Xor": elementwise(torch.logical_xor),
}
"""Each operator by its name, from a node and its inputs to its output or outputs. ``Constant`` and ``If``
are in ``onnx_graph.py``."""
