"""ONNX files for tests."""

from __future__ import annotations

from pathlib import Path


def make_black_box(path: Path) -> None:
    """Sends the outputs of an ONNX file through a sequence, which torch does not convert; they stay the same."""
    import onnx
    from onnx import helper

    model = onnx.load(path)
    graph = model.graph
    for output in graph.output:
        inner = f"{output.name}_inner"
        for node in graph.node:
            node.output[:] = [inner if name == output.name else name for name in node.output]
        first = helper.make_tensor(f"{inner}_first", onnx.TensorProto.INT64, [], [0])
        graph.initializer.append(first)
        graph.node.extend(
            [
                helper.make_node("SequenceConstruct", [inner], [f"{inner}_sequence"]),
                helper.make_node("SequenceAt", [f"{inner}_sequence", first.name], [output.name]),
            ]
        )
    onnx.save(model, path)
