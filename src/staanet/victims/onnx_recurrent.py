"""The recurrent operators of ONNX by torch's own kernels, whose gates stand in another order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from staanet.victims.onnx_node import UnsupportedGraph

LSTM_GATES, GRU_GATES = (0, 2, 3, 1), (1, 0, 2)
"""Where torch's gates are among those of ONNX: LSTM i, o, f, c and i, f, g, o; GRU z, r, h and r, z, n."""


def lstm(node: Any, x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> list[Tensor]:
    """``x [T, B, I]`` -> the states ``[T, D, B, H]``, the last states and cells ``[D, B, H]``."""
    bias, lengths, hidden, cell, peephole = (*rest, *[None] * 5)[:5]
    _require_plain(node, x, lengths, ["Sigmoid", "Tanh", "Tanh"])
    if peephole is not None or node.get("input_forget", 0):
        raise UnsupportedGraph("LSTM with peepholes or coupled gates")
    weights = _weights(w, r, bias, LSTM_GATES)
    start = [_start(x, w, r, state) for state in (hidden, cell)]
    x, is_reverse = _directed(node, x)
    y, *last = torch.lstm(x, start, weights, bias is not None, 1, 0.0, False, len(w) == 2, False)
    return [_states(y, len(w), is_reverse), *last]


def gru(node: Any, x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> list[Tensor]:
    """``x [T, B, I]`` -> the states ``[T, D, B, H]`` and the last ones ``[D, B, H]``."""
    bias, lengths, hidden = (*rest, *[None] * 3)[:3]
    _require_plain(node, x, lengths, ["Sigmoid", "Tanh"])
    if not node.get("linear_before_reset", 0):
        raise UnsupportedGraph("GRU with linear_before_reset = 0")
    weights = _weights(w, r, bias, GRU_GATES)
    start = _start(x, w, r, hidden)
    x, is_reverse = _directed(node, x)
    y, last = torch.gru(x, start, weights, bias is not None, 1, 0.0, False, len(w) == 2, False)
    return [_states(y, len(w), is_reverse), last]


def rnn(node: Any, x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> list[Tensor]:
    """``x [T, B, I]`` -> the states ``[T, D, B, H]`` and the last ones ``[D, B, H]``."""
    bias, lengths, hidden = (*rest, *[None] * 3)[:3]
    _require_plain(node, x, lengths, ["Tanh"])
    weights, start = _weights(w, r, bias, (0,)), _start(x, w, r, hidden)
    x, is_reverse = _directed(node, x)
    y, last = torch.rnn_tanh(x, start, weights, bias is not None, 1, 0.0, False, len(w) == 2, False)
    return [_states(y, len(w), is_reverse), last]


def _require_plain(node: Any, x: Tensor, lengths: Tensor | None, kinds: list[str]) -> None:
    names = node.get("activations", [])
    names = [name.decode() if isinstance(name, bytes) else name for name in names]
    is_whole = lengths is None or bool((lengths == x.shape[0]).all())
    if not is_whole or node.get("layout", 0) or names not in ([], kinds, kinds * 2):
        raise UnsupportedGraph(f"{node.kind} with lengths, layout or other activations")
    if node.get("clip") is not None:
        raise UnsupportedGraph(f"{node.kind} with clip")


def _weights(w: Tensor, r: Tensor, bias: Tensor | None, gates: tuple[int, ...]) -> list[Tensor]:
    """The weights of each direction as torch has them: input, hidden, and their biases."""
    weights = []
    for d in range(len(w)):
        parts = [w[d], r[d]] if bias is None else [w[d], r[d], *bias[d].chunk(2)]
        for part in parts:
            blocks = part.chunk(len(gates))
            weights.append(torch.cat([blocks[gate] for gate in gates]))
    return weights


def _start(x: Tensor, w: Tensor, r: Tensor, state: Tensor | None) -> Tensor:
    return x.new_zeros(len(w), x.shape[1], r.shape[2]) if state is None else state.contiguous()


def _directed(node: Any, x: Tensor) -> tuple[Tensor, bool]:
    is_reverse = node.get("direction", "forward") == "reverse"
    return (x.flip(0) if is_reverse else x), is_reverse


def _states(y: Tensor, directions: int, is_reverse: bool) -> Tensor:
    time, batch, width = y.shape
    states = y.reshape(time, batch, directions, width // directions).transpose(1, 2)
    return states.flip(0) if is_reverse else states
