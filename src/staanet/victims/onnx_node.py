"""One node of an ONNX graph, and what its operators read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


class UnsupportedGraph(Exception):
    """The graph cannot be run by torch; the text says why."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a graph."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(name, default)


def ints(value: Any) -> list[int]:
    """Whole numbers of a tensor or of an attribute."""
    return [int(x) for x in (value.reshape(-1).tolist() if isinstance(value, Tensor) else value)]


def axes_of(node: Node, value: Tensor | None) -> list[int] | None:
    """Axes, which are an attribute in old graphs and an input in new ones."""
    axes = node.get("axes") if value is None else value
    return None if axes is None else ints(axes)


def together(*values: Any) -> list[Any]:
    """Tensors on one device: that of the first which is not on the CPU."""
    device = next((v.device for v in values if v is not None and v.device.type != "cpu"), None)
    return [v if v is None or device is None else v.to(device) for v in values]
