"""Runs an ONNX graph with torch operations, so that gradients pass through it.

``OPERATORS`` (``onnx_operators.py``) has those that audio classifiers use. A graph with another operator
is refused: then onnxruntime alone runs it. Whoever uses a graph compares its answers with onnxruntime's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from staanet.victims.onnx_node import Node, UnsupportedGraph
from staanet.victims.onnx_operators import OPERATORS


class OnnxGraph(nn.Module):
    """An ONNX graph as a torch module, with its weights as buffers.

    Raises ``UnsupportedGraph`` where it has an operator that is not in ``OPERATORS``, or the package
    ``onnx`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnx
        except ImportError as problem:
            raise UnsupportedGraph("the package onnx is not installed (extra onnx)") from problem
        try:
            graph = onnx.load(str(path)).graph
        except Exception as problem:  # of protobuf, or of files beside it
            raise UnsupportedGraph(f"{type(problem).__name__}: {problem}") from problem
        self.names: dict[str, str] = {}
        for number, tensor in enumerate(graph.initializer):
            self._add_constant(tensor.name, onnx.numpy_helper.to_array(tensor), f"weight_{number}")
        self.nodes = [self._node(node, f"node_{index}") for index, node in enumerate(graph.node)]

    def forward(self, feeds: Mapping[str, Any], output: str) -> Tensor:
        """The output of that name for inputs by name, tensors or NumPy arrays."""
        values: dict[str, Any] = {"": None}
        values |= {name: getattr(self, attribute) for name, attribute in self.names.items()}
        values |= {name: torch.as_tensor(value) for name, value in feeds.items()}
        run_nodes(self.nodes, values)
        answer: Tensor = values[output]
        return answer

    def _add_constant(self, name: str, array: Any, attribute: str) -> None:
        """Weights follow the module to a device; whole numbers, such as shapes, stay on the CPU."""
        array = np.array(array)
        if array.dtype.kind == "f":
            self.register_buffer(attribute, torch.from_numpy(array), persistent=False)
        elif array.dtype.kind in "iub":
            setattr(self, attribute, torch.from_numpy(array))
        else:
            raise UnsupportedGraph(f"a constant of {array.dtype}")
        self.names[name] = attribute

    def _node(self, node: Any, attribute: str) -> Node:
        import onnx

        key = node.op_type
        if node.domain not in ("", "ai.onnx") or key not in {*OPERATORS, "Constant", "If"}:
            raise UnsupportedGraph(f"the operator {node.domain or 'ai.onnx'}.{key}")
        attributes: dict[str, Any] = {}
        for entry in node.attribute:
            value = onnx.helper.get_attribute_value(entry)
            if isinstance(value, onnx.TensorProto):
                value = torch.from_numpy(np.array(onnx.numpy_helper.to_array(value)))
            elif isinstance(value, onnx.GraphProto):
                value = self._branch(value, f"{attribute}_{entry.name}")
            attributes[entry.name] = value.decode() if isinstance(value, bytes) else value
        if key == "Constant":
            self._add_constant(node.output[0], _constant(attributes), attribute)
        return Node(key, list(node.input), list(node.output), attributes)

    def _branch(self, graph: Any, attribute: str) -> tuple[list[Node], list[str]]:
        """The nodes of a branch of ``If``, and the names of its outputs."""
        import onnx

        for number, tensor in enumerate(graph.initializer):
            array = onnx.numpy_helper.to_array(tensor)
            self._add_constant(tensor.name, array, f"{attribute}_weight_{number}")
        nodes = [self._node(n, f"{attribute}_{index}") for index, n in enumerate(graph.node)]
        return nodes, [entry.name for entry in graph.output]


def _constant(attributes: Mapping[str, Any]) -> Any:
    ((kind, value),) = attributes.items()
    if kind == "value":
        return value.numpy()
    if kind not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise UnsupportedGraph(f"a constant as {kind}")
    return np.array(value, np.float32 if "float" in kind else np.int64)


def run_nodes(nodes: list[Node], values: dict[str, Any]) -> None:
    """Run nodes in their order; ``values`` holds what is computed so far and receives their outputs."""
    for node in nodes:
        if node.kind == "Constant":
            continue
        if node.kind == "If":
            branch = "then_branch" if bool(values[node.inputs[0]]) else "else_branch"
            inner, names = node.attributes[branch]
            run_nodes(inner, values)
            values.update(zip(node.outputs, [values[name] for name in names], strict=True))
            continue
        answer = OPERATORS[node.kind](node, *[values[name] for name in node.inputs])
        answers = answer if isinstance(answer, list | tuple) else [answer]
        values.update(zip(node.outputs, answers, strict=False))
