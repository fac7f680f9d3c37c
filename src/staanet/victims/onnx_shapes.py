"""The operators of ONNX that shape, cut and pick, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from staanet.victims.onnx_layers import pad_last_axes
from staanet.victims.onnx_node import Node, UnsupportedGraph, axes_of, ints, together


def reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """New axes; 0 keeps an axis as it is."""
    sizes = ints(shape)
    if not node.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def squeeze(node: Node, x: Tensor, value: Tensor | None = None) -> Tensor:
    """Without axes of length 1."""
    axes = axes_of(node, value)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(node: Node, x: Tensor, value: Tensor | None = None) -> Tensor:
    """With new axes of length 1."""
    axes = axes_of(node, value) or []
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def slice_tensor(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """A part of some axes, also backwards."""
    first = ints(node.get("starts") if starts is None else starts)
    last = ints(node.get("ends") if ends is None else ends)
    which = axes_of(node, axes) or [*range(len(first))]
    strides = [1] * len(first) if steps is None else ints(steps)
    for start, end, axis, step in zip(first, last, which, strides, strict=True):
        size = x.shape[axis]
        rows = range(size)[slice(start, None if step < 0 and end < -size else end, step)]
        if step == 1:
            x = x.narrow(axis, rows.start, len(rows))
        else:
            x = x.index_select(axis, torch.tensor([*rows], dtype=torch.long, device=x.device))
    return x


def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Parts along an axis."""
    axis, parts = node.get("axis", 0), node.get("split") if sizes is None else sizes
    if parts is not None:
        return torch.split(x, ints(parts), axis)
    return torch.split(x, -(-x.shape[axis] // len(node.outputs)), axis)


def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Rows along an axis, for indices of any shape."""
    axis, rows = node.get("axis", 0) % x.dim(), indices.to(x.device).long()
    rows = torch.where(rows < 0, rows + x.shape[axis], rows)
    taken = x.index_select(axis, rows.reshape(-1))
    return taken.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Single elements along an axis."""
    axis, rows = node.get("axis", 0), indices.to(x.device).long()
    return x.gather(axis, torch.where(rows < 0, rows + x.shape[axis], rows))


def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """What indices of several axes point at."""
    if node.get("batch_dims", 0):
        raise UnsupportedGraph("GatherND with batch_dims")
    return x[tuple(indices.to(x.device).long().unbind(-1))]


def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy with other values where indices point."""
    if node.get("reduction", "none") != "none":
        raise UnsupportedGraph("ScatterND with a reduction")
    x, updates = together(x, updates)
    return x.index_put(tuple(indices.to(x.device).long().unbind(-1)), updates)


def expand(_node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast to a shape."""
    return x.expand(torch.broadcast_shapes(x.shape, ints(shape)))  # type: ignore[no-untyped-call]


def pad(
    node: Node,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Constant, reflected, wrapped or repeated samples around."""
    sizes = ints(node.get("pads") if pads is None else pads)
    which = [*range(x.dim())] if axes is None else [axis % x.dim() for axis in ints(axes)]
    mode, half = node.get("mode", "constant"), len(sizes) // 2
    pairs = {axis: (sizes[i], sizes[half + i]) for i, axis in enumerate(which)}
    if mode == "constant":
        flat = [p for axis in range(x.dim()) for p in pairs.get(axis, (0, 0))]
        return pad_last_axes(x, flat, node.get("value", 0.0) if value is None else float(value))
    for axis, (before, after) in pairs.items():
        if before or after:
            x = _pad_by_index(x, axis, before, after, mode)
    return x


def _pad_by_index(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    size = x.shape[axis]
    rows = torch.arange(-before, size + after, device=x.device)
    if mode == "reflect":
        rows = (rows.abs() - (rows - (size - 1)).clamp_min(0) * 2).clamp(0, size - 1)
    elif mode == "wrap":
        rows = rows % size
    else:  # edge
        rows = rows.clamp(0, size - 1)
    return x.index_select(axis, rows)


def constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    """One number everywhere."""
    value: Tensor = node.get("value", torch.zeros(1))
    return value.reshape(()).expand(ints(shape))


def top_k(node: Node, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The largest or smallest values and their indices."""
    count = int(node.get("k") if k is None else k.item())
    values, rows = x.topk(count, node.get("axis", -1), bool(node.get("largest", 1)))
    return values, rows


def triangle(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    """The upper or lower triangle."""
    diagonal = 0 if k is None else int(k.item())
    return x.triu(diagonal) if node.get("upper", 1) else x.tril(diagonal)


def cumulative_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    """Running sums."""
    if node.get("reverse", 0) or node.get("exclusive", 0):
        raise UnsupportedGraph("CumSum in reverse")
    return x.cumsum(int(axis.item()))


def cast(node: Node, x: Tensor, like: Tensor | None = None) -> Tensor:
    """As another type."""
    kinds = {
        1: torch.float32,
        2: torch.uint8,
        3: torch.int8,
        5: torch.int16,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float64,
    }  # numbers of onnx.TensorProto
    return x.to(kinds[node.get("to")] if like is None else like.dtype)
