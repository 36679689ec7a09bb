"""A graph small enough to reason about."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tollkeeper.graphs import Graph

SHAPE = (1, 2, 4)


@cache
def _linear_graph(classes: int, *, output: str = "logits", seed: int = 0) -> Graph:
    """Return a graph of logits that are linear in the pixels."""
    weight = np.random.default_rng(seed).normal(size=(8, classes)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["rows"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], [output]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", *SHAPE])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", classes])],
            [numpy_helper.from_array(weight, "weight")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return Graph(model.SerializeToString(), name="linear")


@pytest.fixture(scope="session")
def linear_graph() -> Callable[..., Graph]:
    """Return the maker of graphs from (n, 1, 2, 4) to logits of that many classes."""
    return _linear_graph
