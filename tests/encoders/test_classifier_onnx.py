"""Promises of the ONNX classifier, on graphs small enough to compute by hand (see fixtures/)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.encoders.base import RowsIndependent
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.encoders.classifiers.onnx import OnnxClassifier
from tollkeeper.errors import ConfigurationError, EncoderError, InputError

FIXTURES = Path(__file__).parent / "fixtures"


def place(folder: Path, graph: str, /, **sidecar: object) -> Path:
    """Copy a fixture to a folder of its own, with a sidecar if fields are given."""
    path = folder / f"{graph}.onnx"
    shutil.copy(FIXTURES / path.name, path)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def pictures(n: int) -> NDArray[np.float32]:
    """Return n random (1, 2, 2) tensors."""
    return np.random.default_rng(n).random((n, 1, 2, 2), dtype=np.float32)


def expected(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax of twice the first three pixels."""
    raised = np.exp(2 * inputs.reshape(len(inputs), 4)[:, :3].astype(np.float64))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("outputs", ["probabilities", "logits"])
@pytest.mark.parametrize("graph", ["classify", "classify_batch2"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_pictures_are_classified(tmp_path: Path, graph: str, outputs: str, n: int) -> None:
    """Either output gives the probabilities computed by hand, for any number of inputs."""
    classifier = OnnxClassifier(place(tmp_path, graph, outputs=outputs))
    capable: object = classifier
    assert isinstance(capable, Classifier)
    assert isinstance(capable, RowsIndependent)
    assert (classifier.name, classifier.dim, classifier.input_shape) == (graph, 3, (1, 2, 2))
    inputs = pictures(n)
    np.testing.assert_allclose(classifier.embed(inputs), expected(inputs), rtol=1e-6)


def test_no_input_has_no_answer() -> None:
    """An empty batch gives an empty answer."""
    assert OnnxClassifier(FIXTURES / "classify.onnx").embed([]).shape == (0, 3)


def test_an_image_is_answered_like_its_tensor() -> None:
    """A picture gets the same answer as pixels and as numbers from 0 to 1."""
    classifier = OnnxClassifier(FIXTURES / "classify.onnx")
    gray = np.array([[0, 80], [160, 255]], dtype=np.uint8)
    tensor = (gray / np.float32(255))[None]
    image = np.repeat(gray[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(classifier.embed([image]), classifier.embed([tensor]))


def test_company_changes_nothing_unless_allowed(tmp_path: Path) -> None:
    """A graph whose rows depend on each other answers each alone, unless `batch` lets it not."""
    inputs = pictures(4)
    alone = OnnxClassifier(place(tmp_path, "classify_by_company", outputs="logits"))
    assert alone.rows_independent
    np.testing.assert_allclose(alone.embed(inputs), 1 / 3, rtol=1e-6)
    path = place(tmp_path, "classify_by_company", outputs="logits", batch=4)
    together = OnnxClassifier(path)
    assert not together.rows_independent
    assert np.abs(together.embed(inputs) - 1 / 3).max() > 0.01


def test_the_sidecar_names_and_scales(tmp_path: Path) -> None:
    """Name and classes come from the sidecar, and the graph sees (x - mean) / std."""
    path = place(
        tmp_path, "classify", name="digits", classes=["a", "b", "c"], mean=[0.5], std=[0.25]
    )
    classifier = OnnxClassifier(path)
    assert (classifier.name, classifier.classes) == ("digits", ("a", "b", "c"))
    inputs = pictures(2)
    scaled = ((inputs - 0.5) / 0.25).astype(np.float32)
    np.testing.assert_allclose(classifier.embed(inputs), expected(scaled), rtol=1e-5)


def test_classes_have_numbers_without_names() -> None:
    """Without a sidecar the classes are "0", "1", ..."""
    assert OnnxClassifier(FIXTURES / "classify.onnx").classes == ("0", "1", "2")


def test_an_open_size_needs_the_sidecar(tmp_path: Path) -> None:
    """A graph that leaves its size open is refused without `input_shape`."""
    with pytest.raises(ConfigurationError, match="input_shape"):
        OnnxClassifier(FIXTURES / "classify_open_size.onnx")
    path = place(tmp_path, "classify_open_size", input_shape=[2, 3, 3], outputs="logits")
    classifier = OnnxClassifier(path)
    assert (classifier.input_shape, classifier.dim) == ((2, 3, 3), 2)


@pytest.mark.parametrize(
    ("graph", "sidecar", "message"),
    [
        ("classify", {"classes": ["a", "b"]}, "3 classes, got 2 names"),
        ("classify", {"classes": ["a", "b", "a"]}, "different names"),
        ("classify", {"classes": ["a", "", "c"]}, "none empty"),
        ("classify", {"mean": [0.5, 0.5]}, "expected 1 numbers"),
        ("classify", {"std": [0]}, "std"),
        ("classify", {"outputs": "votes"}, "outputs"),
        ("classify", {"typo": 1}, "unknown field `typo`"),
        ("classify", {"input_shape": [3, 2, 2]}, "put fitting numbers"),
        ("classify_by_company", {}, '"outputs": "logits"'),
        ("image_in_image_out", {"outputs": "logits"}, r"shape \(1, d\)"),
        ("image_float_nchw_batch2", {}, "loads but fails"),
        ("image_uint8_nhwc", {}, "float32"),
        ("features", {}, r"\(n, c, h, w\)"),
        ("strings", {}, "float32"),
        ("tokens_masked", {}, "float32"),
    ],
)
def test_misfits_are_refused(
    tmp_path: Path, graph: str, sidecar: dict[str, object], message: str
) -> None:
    """A graph that is no classifier, or a sidecar that does not fit it, is refused by name."""
    with pytest.raises(ConfigurationError, match=message):
        OnnxClassifier(place(tmp_path, graph, **sidecar))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A path without a file is a mistake in the settings."""
    with pytest.raises(ConfigurationError, match="found no file"):
        OnnxClassifier(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    "item",
    [
        np.zeros((1, 3, 2), np.float32),
        np.zeros((3, 2, 2), np.float32),
        np.full((1, 2, 2), np.nan, np.float32),
        np.full((1, 2, 2), 1.01, np.float32),
        np.zeros((3, 3, 3), np.uint8),
        "text",
    ],
)
def test_unfit_inputs_are_refused(item: object) -> None:
    """Another size, NaN, values out of range and text are the caller's mistakes."""
    with pytest.raises(InputError) as caught:
        OnnxClassifier(FIXTURES / "classify.onnx").embed([item])
    assert caught.value.param == "input"


def test_rows_that_are_no_probabilities_never_leave() -> None:
    """A graph that answers a probability to its probe only is refused when it answers others."""
    classifier = OnnxClassifier(FIXTURES / "classify_only_black.onnx")
    with pytest.raises(EncoderError, match="sum to 1"):
        classifier.embed(np.ones((1, 1, 2, 2), np.float32))
