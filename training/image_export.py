"""Export of the trained image backbone as a small ONNX graph, written node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from ssl_image import PIXEL_MEAN, PIXEL_STD, ConvUnit, Residual

OPSET = 17
IR_VERSION = 8


class _Graph:
    """A growing list of nodes and float16 weights."""

    def __init__(self) -> None:
        """Start an empty graph."""
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray[Any, Any]) -> str:
        """Store an array in its own type and return its name."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def half(self, value: np.ndarray[Any, Any]) -> str:
        """Store an array as float16 and return the name of its float32 cast."""
        stored = self.constant(value.astype(np.float16))
        return self.add("Cast", [stored], to=TensorProto.FLOAT)

    def convolution(self, source: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
        """Append a convolution with its batch normalization folded in."""
        weight, bias = fold(conv, norm)
        names = [source, self.half(weight), self.constant(bias)]
        kernel, pad, stride = conv.kernel_size[0], int(conv.padding[0]), conv.stride[0]
        return self.add(
            "Conv", names, kernel_shape=[kernel] * 2, pads=[pad] * 4, strides=[stride] * 2
        )

    def unit(self, source: str, module: ConvUnit) -> str:
        """Append a convolution and its ReLU."""
        conv, norm = module[0], module[1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return self.add("Relu", [self.convolution(source, conv, norm)])


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Any, Any]:
    """Return the float32 weight and bias of a convolution followed by its normalization."""
    with torch.no_grad():
        running_var, running_mean = norm.running_var, norm.running_mean
        assert running_var is not None
        assert running_mean is not None
        scale = norm.weight.double() / torch.sqrt(running_var.double() + norm.eps)
        weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
        bias = norm.bias.double() - running_mean.double() * scale
    return weight.float().contiguous().numpy(), bias.float().numpy()


def _normalized_pixels(graph: _Graph) -> str:
    """Append the change from uint8 (n, 32, 32, 3) to normalized float32 (n, 3, 32, 32)."""
    pixels = graph.add("Cast", ["images"], to=TensorProto.FLOAT)
    pixels = graph.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    mean = graph.constant(np.array(PIXEL_MEAN, np.float32).reshape(1, 3, 1, 1))
    std = graph.constant(np.array(PIXEL_STD, np.float32).reshape(1, 3, 1, 1))
    return graph.add("Div", [graph.add("Sub", [pixels, mean]), std])


def export_onnx(backbone: nn.Sequential, dim: int, path: Path, producer: str) -> None:
    """Write a backbone as ONNX: `images` uint8 (n, 32, 32, 3) to `embeddings` float32 (n, dim).

    Args:
        backbone: Trained stages in evaluation mode.
        dim: Width of the embedding.
        path: File to write.
        producer: Short text on where the weights come from, kept in the file.
    """
    graph = _Graph()
    x = _normalized_pixels(graph)
    for stage in backbone:
        if isinstance(stage, Residual):
            inner = graph.convolution(graph.unit(x, stage.first), stage.conv, stage.norm)
            x = graph.add("Relu", [graph.add("Add", [x, inner])])
        else:
            assert isinstance(stage, ConvUnit)
            x = graph.unit(x, stage)
    pooled = graph.add("GlobalAveragePool", [x])
    graph.nodes.append(helper.make_node("Flatten", [pooled], ["embeddings"], name="output", axis=1))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "tollkeeper-image",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 32, 32, 3])],
            [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", dim])],
            graph.weights,
            doc_string=producer,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tollkeeper",
    )
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
