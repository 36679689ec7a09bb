"""Graphs of half the size: weights kept as float16, computed with as float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LEAST = 256
_LARGEST = float(np.finfo(np.float16).max)


def halved(graph: bytes) -> bytes:
    """Return a graph whose float32 weights of 256 numbers and more are stored as float16.

    Opened, it runs as fast as before: weights are converted once. It is another function than the
    graph given, by the rounding of its weights; measure what is made of it, not of the other.
    Weights that float16 cannot hold stay as they are.
    """
    model = onnx.load_model_from_string(graph)
    weights, casts = [], []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        small = values.size < _LEAST or weight.data_type != TensorProto.FLOAT
        if small or np.abs(values).max() > _LARGEST:
            weights.append(weight)
            continue
        stored = f"{weight.name}.half"
        weights.append(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(weights)
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    made: bytes = model.SerializeToString(deterministic=True)
    return made
