"""SAME scores what two small graphs say, by the formula, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.same import Same, divergence
from tollkeeper.errors import ConfigurationError, DetectorError
from tollkeeper.graphs import Graph
from tollkeeper.types import Images, Probabilities

onnx = pytest.importorskip("onnx")

SHAPE, CLASSES = (1, 2, 2), 3


def reconstruction() -> Graph:
    """Make a graph that restores half of each pixel; its latent is the rows' mean."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Mul", ["rows", "half"], ["restored"]),
        helper.make_node("ReduceMean", ["rows"], ["latent"], axes=[2, 3], keepdims=0),
    ]
    return _graph(nodes, {"half": np.float32(0.5)}, {"restored": SHAPE, "latent": (1,)})


def auxiliary() -> Graph:
    """Make a graph whose logits are the first three pixels."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Flatten", ["rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "pick"], ["logits"]),
    ]
    return _graph(nodes, {"pick": np.eye(4, 3, dtype=np.float32)}, {"logits": (CLASSES,)})


def _graph(nodes: list, constants: dict, outputs: dict[str, tuple[int, ...]]) -> Graph:  # type: ignore[type-arg]
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT

    def info(name: str, shape: tuple[int, ...]) -> object:
        return helper.make_tensor_value_info(name, kind, ["n", *shape])

    model = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [info("rows", SHAPE)],
            [info(name, shape) for name, shape in outputs.items()],
            [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return Graph(model.SerializeToString(), name="test")


def queries(n: int = 150) -> tuple[Images, Probabilities]:
    """Draw n queries and answers, some of which are certain."""
    rng = np.random.default_rng(5)
    answers = rng.dirichlet(np.full(CLASSES, 0.3), n).astype(np.float32)
    answers[0] = [0, 1, 0]
    return rng.random((n, *SHAPE), dtype=np.float32), answers


def same(alpha: float = 0.99) -> Same:
    """Make a detector of the two graphs."""
    return Same(reconstruction(), auxiliary(), classes=CLASSES, alpha=alpha)


def test_score_is_the_formula_of_the_paper() -> None:
    """Alpha times the error in [-1, 1] units plus the rest times KL / k, in slow Python."""
    inputs, answers = queries()
    found = same(0.7).score(inputs, answers)
    for row, given, score in zip(inputs.astype(float), answers.astype(float), found, strict=True):
        error = np.mean(((2 * 0.5 * row - 1) - (2 * row - 1)) ** 2)
        logits = 0.5 * row.ravel()[:3]
        other = np.exp(logits) / np.exp(logits).sum()
        kl = sum(p * np.log(p / q) for p, q in zip(given, other, strict=True) if p > 0)
        assert score == pytest.approx(0.7 * error + 0.3 * kl / 3, rel=1e-5)


def test_names_and_weights_of_the_two_halves() -> None:
    """SAME-X is the error alone and SAME-Y the deviation alone; SAME is their weighted sum."""
    inputs, answers = queries()
    both = same()
    x, y = both.weighted(1), both.weighted(0)
    assert [one.name for one in (both, x, y)] == ["same", "same-x", "same-y"]
    signs = both.signs(inputs, answers)
    assert signs.deviation is not None
    np.testing.assert_array_equal(x.score(inputs, answers), signs.error)
    np.testing.assert_array_equal(y.score(inputs, answers), signs.deviation)
    np.testing.assert_allclose(
        both.score(inputs, answers), 0.99 * signs.error + 0.01 * signs.deviation
    )
    np.testing.assert_allclose(signs.latent[:, 0], inputs.mean(axis=(1, 2, 3)), rtol=1e-5)


def test_a_row_keeps_its_score_in_any_company() -> None:
    """Alone, in another order or among others: the score is that of the query."""
    inputs, answers = queries()
    order = np.random.default_rng(1).permutation(len(inputs))
    whole = same().score(inputs, answers)
    np.testing.assert_allclose(
        same().score(inputs[order], answers[order]), whole[order], atol=1e-6, rtol=0
    )
    alone = same().score(inputs[7:8], answers[7:8])
    np.testing.assert_allclose(alone, whole[7:8], atol=1e-6, rtol=0)


def test_no_queries_no_scores() -> None:
    """An empty batch is scored."""
    inputs, answers = queries()
    assert same().score(inputs[:0], answers[:0]).shape == (0,)
    assert isinstance(same(), Detector)


def test_what_is_packed_scores_the_same() -> None:
    """Parameters and blobs are all there is to a detector."""
    inputs, answers = queries()
    for one in (same(0.5), Same(reconstruction(), None, classes=CLASSES, alpha=1)):
        parameters, blobs = one.pack()
        back = Same.unpack(parameters, blobs, threads=1)
        assert back.name == one.name
        np.testing.assert_array_equal(back.score(inputs, answers), one.score(inputs, answers))


def test_divergence_survives_certainty() -> None:
    """Answers of 0 and logits far apart give finite numbers; equal answers give 0."""
    certain = np.array([[1, 0], [0.5, 0.5]], np.float32)
    found = divergence(certain, np.array([[-3000, 3000], [2, 2]], np.float32))
    np.testing.assert_allclose(found, [6000, 0], atol=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    """Each refusal says what was expected."""
    inputs, answers = queries()
    with pytest.raises(ConfigurationError, match="alpha from 0 to 1, got 2"):
        same(2)
    with pytest.raises(ConfigurationError, match="needs an auxiliary network"):
        Same(reconstruction(), None, classes=CLASSES)
    with pytest.raises(ConfigurationError, match="restored and latent"):
        Same(auxiliary(), None, classes=CLASSES, alpha=1)
    with pytest.raises(ConfigurationError, match="to logits"):
        Same(reconstruction(), reconstruction(), classes=CLASSES)
    with pytest.raises(DetectorError, match="same was fitted for 3 classes"):
        same().score(inputs, answers[:, :2])
    with pytest.raises(DetectorError, match="without an auxiliary network"):
        Same(reconstruction(), None, classes=CLASSES, alpha=1).signs(inputs, answers)
