"""Write the trained text encoder as an ONNX graph of at most 8 MB, with vocabulary and calibration.

The table leaves as 4-bit integers, two to a byte: column j in the low half and column j + width/2
in the high half, each shifted by 8; each row has a whole number from 1 to 63 as its step. The graph
sums bytes and high halves separately, times the steps, which is exact in float32, so the sum of a
text does not depend on the order of its terms or on padding (up to 512 rows of it). Head
weights are 8-bit with one scale per output and are widened when the graph is loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from text_data import Vocabulary
from text_encoder import TextNetwork, levels
from tollkeeper.encoders.builtin_text import TextEncoder

SHIFT = 8
SAMPLE = 512
OPSET = 18
IR_VERSION = 9
MAX_BYTES = 8_000_000


def packed_table(network: TextNetwork) -> NDArray[np.uint8]:
    """Return the (rows, width / 2) table with two 4-bit values in each byte."""
    assert network.rounding is not None, "training fits the steps"
    step = network.rounding.row * network.rounding.column
    shifted = (levels(network.table.detach(), step).numpy() + SHIFT).astype(np.uint8)
    half = shifted.shape[1] // 2
    low: NDArray[np.uint8] = shifted[:, :half] + 16 * shifted[:, half:]
    return low


def eight_bit(name: str, weight: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
    """Return a (in, out) weight as 8-bit integers and one scale per output."""
    scale = np.abs(weight).max(0) / 127
    return {
        f"{name}_int": np.rint(weight / scale).astype(np.int8),
        f"{name}_scale": scale.astype(np.float32),
    }


def initializers(network: TextNetwork) -> dict[str, NDArray[np.generic]]:
    """Return all constants of the graph by name."""
    assert network.rounding is not None, "training fits the steps"
    values: dict[str, NDArray[np.generic]] = {
        "table": packed_table(network),
        "step": network.rounding.column.numpy().astype(np.float32),
        "row_step": network.rounding.row[:, 0].numpy().astype(np.uint8),
        "inner_bias": network.inner.bias.detach().numpy(),
        "outer_bias": network.outer.bias.detach().numpy(),
        "sixteen": np.array(16, np.float32),
        "shift": np.array(SHIFT, np.float32),
        "tiny": np.array(1e-6, np.float32),
        "floor": np.array(1e-12, np.float32),
        "axis": np.array([1], np.int64),
    }
    for name in ("inner", "outer"):
        values |= eight_bit(name, getattr(network, name).weight.detach().numpy().T)
    return values


def nodes() -> list[onnx.NodeProto]:
    """Return the graph: unpack and sum the rows, normalize, head, unit norm."""
    node = helper.make_node
    widened = [
        part
        for name in ("inner", "outer")
        for part in (
            node("Cast", [f"{name}_int"], [f"{name}_wide"], to=TensorProto.FLOAT),
            node("Mul", [f"{name}_wide", f"{name}_scale"], [f"{name}_weight"]),
        )
    ]
    pooling = [
        node("Gather", ["table", "rows"], ["bytes"]),
        node("Cast", ["bytes"], ["both"], to=TensorProto.FLOAT),
        node("Div", ["both", "sixteen"], ["sixteenth"]),
        node("Floor", ["sixteenth"], ["high"]),
        node("Gather", ["row_step", "rows"], ["row_bytes"]),
        node("Cast", ["row_bytes"], ["row_steps"], to=TensorProto.FLOAT),
        node("Mul", ["counts", "row_steps"], ["row_weights"]),
        node("Unsqueeze", ["row_weights", "axis"], ["weights"]),
        node("MatMul", ["weights", "both"], ["both_sum3"]),
        node("MatMul", ["weights", "high"], ["high_sum3"]),
        node("Squeeze", ["both_sum3", "axis"], ["both_sum"]),
        node("Squeeze", ["high_sum3", "axis"], ["high_sum"]),
        node("Mul", ["high_sum", "sixteen"], ["high_part"]),
        node("Sub", ["both_sum", "high_part"], ["low_sum"]),
        node("Concat", ["low_sum", "high_sum"], ["shifted"], axis=1),
        node("ReduceSum", ["row_weights", "axis"], ["count"], keepdims=1),
        node("Mul", ["count", "shift"], ["shift_sum"]),
        node("Sub", ["shifted", "shift_sum"], ["levels"]),
        node("Mul", ["levels", "step"], ["sum"]),
    ]
    norm = [
        node("Mul", ["sum", "sum"], ["square"]),
        node("ReduceMean", ["square", "axis"], ["mean_square"], keepdims=1),
        node("Add", ["mean_square", "tiny"], ["safe_square"]),
        node("Sqrt", ["safe_square"], ["size"]),
        node("Div", ["sum", "size"], ["pooled"]),
    ]
    head = [
        node("MatMul", ["pooled", "inner_weight"], ["inner_raw"]),
        node("Add", ["inner_raw", "inner_bias"], ["inner_sum"]),
        node("Relu", ["inner_sum"], ["hidden"]),
        node("MatMul", ["hidden", "outer_weight"], ["outer_raw"]),
        node("Add", ["outer_raw", "outer_bias"], ["mixed"]),
        node("Mul", ["mixed", "mixed"], ["mixed_square"]),
        node("ReduceSum", ["mixed_square", "axis"], ["length_square"], keepdims=1),
        node("Sqrt", ["length_square"], ["length_raw"]),
        node("Max", ["length_raw", "floor"], ["length"]),
        node("Div", ["mixed", "length"], ["embedding"]),
    ]
    return [*widened, *pooling, *norm, *head]


def build_model(network: TextNetwork) -> onnx.ModelProto:
    """Build the checked ONNX model: rows and counts (n, l) to embedding (n, dim)."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes(),
        "tollkeeper-text",
        [
            value("rows", TensorProto.INT64, ["n", "l"]),
            value("counts", TensorProto.FLOAT, ["n", "l"]),
        ],
        [value("embedding", TensorProto.FLOAT, ["n", network.outer.out_features])],
        [numpy_helper.from_array(array, name) for name, array in initializers(network).items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="tollkeeper"
    )
    onnx.checker.check_model(model)
    return model


def calibration_texts(corpora: dict[str, list[str]], seed: int) -> list[str]:
    """Draw training texts evenly over the corpora, `SAMPLE` in all."""
    rng = np.random.default_rng(seed)
    share, rest = divmod(SAMPLE, len(corpora))
    chosen: list[str] = []
    for at, texts in enumerate(corpora.values()):
        picks = rng.choice(len(texts), share + (at < rest), replace=False)
        chosen += [texts[pick] for pick in picks]
    return chosen


def write_calibration(encoder: TextEncoder, texts: list[str], path: Path) -> None:
    """Write mean, feature deviation and sample of the embeddings of the calibration texts."""
    embeddings = encoder.embed(texts)
    deviation = np.sqrt(np.mean(embeddings.std(0, dtype=np.float64) ** 2))
    np.savez(
        path,
        mean=embeddings.mean(0, dtype=np.float64).astype(np.float32),
        feature_std=np.float32(deviation),
        sample=embeddings.astype(np.float16),
        count=np.int64(len(texts)),
    )


def write_graph(network: TextNetwork, vocabulary: Vocabulary, out: Path) -> None:
    """Write `text.onnx` and `text-vocab.json.gz` into `out`."""
    content = build_model(network).SerializeToString(deterministic=True)
    assert len(content) <= MAX_BYTES, f"the graph has {len(content)} bytes, more than {MAX_BYTES}"
    (out / "text.onnx").write_bytes(content)
    vocabulary.save(out / "text-vocab.json.gz")


def export(
    network: TextNetwork,
    vocabulary: Vocabulary,
    corpora: dict[str, list[str]],
    out: Path,
    *,
    seed: int,
) -> None:
    """Write `text.onnx`, `text-vocab.json.gz` and `text-calibration.npz` into `out`."""
    write_graph(network, vocabulary, out)
    encoder = TextEncoder(weights=out)
    texts = calibration_texts(corpora, seed)
    write_calibration(encoder, texts, out / "text-calibration.npz")
