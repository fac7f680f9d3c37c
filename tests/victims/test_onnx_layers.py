"""Layers of ONNX in torch answer as in onnxruntime, with the gradient of a plain convolution."""

from __future__ import annotations

import pytest
import torch

from staanet.victims.onnx_layers import conv
from staanet.victims.onnx_node import Node

SHAPES = {1: ((2, 4, 11), (6, 2, 3)), 2: ((2, 4, 11, 9), (6, 2, 3, 2))}
"""The input and the kernel of a convolution in two groups, by its number of axes."""
SETTINGS = {
    "no pads": lambda axes: {},
    "even pads": lambda axes: {"pads": [1, 2][:axes] * 2},
    "uneven pads": lambda axes: {"pads": [1, 0][:axes] + [2, 1][:axes]},
    "same, more at the end": lambda axes: {"auto_pad": "SAME_UPPER", "strides": [2] * axes},
    "same, more at the start": lambda axes: {"auto_pad": "SAME_LOWER", "strides": [2] * axes},
    "spread": lambda axes: {"pads": [2] * 2 * axes, "dilations": [2] * axes},
}


def answer_of_onnxruntime(x, weight, bias, settings):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    names, helper = ["x", "weight", "bias"], onnx.helper
    given = zip(names, (x, weight, bias), strict=True)
    inputs = [helper.make_tensor_value_info(name, 1, [*value.shape]) for name, value in given]
    node = helper.make_node("Conv", names, ["y"], group=2, **settings)
    y = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([node], "one", inputs, [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString())
    feeds = {"x": x.numpy(), "weight": weight.numpy(), "bias": bias.numpy()}
    return torch.from_numpy(session.run(None, feeds)[0])


@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_convolution_pads_as_onnx_says(name, axes):
    torch.manual_seed(0)
    settings = SETTINGS[name](axes)
    x, weight = (torch.randn(shape) for shape in SHAPES[axes])
    bias = torch.randn(6)
    answer = conv(Node("Conv", [], [], {**settings, "group": 2}), x, weight, bias)
    assert torch.allclose(answer, answer_of_onnxruntime(x, weight, bias, settings), atol=1e-5)
