"""The floors are the one-line scores that they say they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.floors import ColorDetail, Energy, MaxSoftmax, PixelShare
from tollkeeper.errors import ConfigurationError, DetectorError
from tollkeeper.graphs import Graph
from tollkeeper.types import Images, Probabilities

onnx = pytest.importorskip("onnx")

SHAPE, CLASSES = (1, 2, 2), 4


def victim(output: str = "logits") -> Graph:
    """Make a graph whose logits are a hundred times the pixels."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    hundred = onnx.numpy_helper.from_array(np.float32(100), "hundred")
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Flatten", ["rows"], ["flat"]),
                helper.make_node("Mul", ["flat", "hundred"], [output]),
            ],
            "test",
            [helper.make_tensor_value_info("rows", kind, ["n", *SHAPE])],
            [helper.make_tensor_value_info(output, kind, ["n", CLASSES])],
            [hundred],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return Graph(model.SerializeToString(), name="victim")


def queries(n: int = 300) -> tuple[Images, Probabilities]:
    """Draw n queries and answers."""
    rng = np.random.default_rng(3)
    answers = rng.dirichlet(np.ones(CLASSES), n).astype(np.float32)
    return rng.random((n, *SHAPE), dtype=np.float32), answers


def floors() -> list[MaxSoftmax | Energy | PixelShare]:
    """Make one of each."""
    return [
        MaxSoftmax(SHAPE, CLASSES),
        Energy(victim(), classes=CLASSES),
        PixelShare(SHAPE, CLASSES, 0.2, 0.7),
    ]


def test_scores_are_their_formulas() -> None:
    """Each against slow Python."""
    inputs, answers = queries()
    softmax, energy, share = (one.score(inputs, answers) for one in floors())
    for i, (row, given) in enumerate(zip(inputs.tolist(), answers.tolist(), strict=True)):
        pixels = [value for line in row[0] for value in line]
        assert softmax[i] == pytest.approx(1 - max(given))
        top = max(pixels)
        rest = math.log(sum(math.exp(100 * (value - top)) for value in pixels))
        assert energy[i] == pytest.approx(-100 * top - rest, rel=1e-5)
        assert share[i] == sum(0.2 < value < 0.7 for value in pixels) / 4


@pytest.mark.parametrize("place", range(3))
def test_what_is_packed_scores_the_same(place: int) -> None:
    """Parameters and blobs are all there is; no queries are no scores."""
    one = floors()[place]
    assert isinstance(one, Detector)
    inputs, answers = queries()
    parameters, blobs = one.pack()
    back = type(one).unpack(parameters, blobs, threads=1)
    np.testing.assert_array_equal(back.score(inputs, answers), one.score(inputs, answers))
    assert back.score(inputs[:0], answers[:0]).shape == (0,)
    with pytest.raises(DetectorError, match=f"{one.name} was fitted for 4 classes"):
        one.score(inputs, answers[:, :3])


@pytest.mark.parametrize(
    ("background", "band"), [(0.0, (0.015, 0.125)), (1.0, (0.875, 0.985)), (0.2, (0.215, 0.325))]
)
def test_the_band_is_beside_the_background(background: float, band: tuple[float, float]) -> None:
    """It is found in honest pictures alone, and perturbed ones then stand out."""
    rng = np.random.default_rng(0)
    images = np.full((50, 1, 6, 6), background, np.float32)
    images[:, :, 2:4] = rng.random((50, 1, 2, 6), dtype=np.float32)
    found = PixelShare.fitted(images, classes=CLASSES)
    np.testing.assert_allclose((found.low, found.high), band, atol=1e-9)
    sign = 1 if background < 0.5 else -1
    perturbed = np.clip(images + np.float32(0.05 * sign), 0, 1)
    answers = np.full((50, CLASSES), 0.25, np.float32)
    assert found.score(perturbed, answers).min() > found.score(images, answers).max()


def test_color_detail_is_minus_the_cosine_of_fine_detail() -> None:
    """Gray grain scores lowest, grain of independent colors highest, and packing changes nothing."""
    rng = np.random.default_rng(0)
    shape, answers = (3, 9, 8), np.full((20, CLASSES), 0.25, np.float32)
    gray = np.repeat(rng.random((20, 1, 9, 8), dtype=np.float32), 3, axis=1)
    color = rng.random((20, *shape), dtype=np.float32)
    detector = ColorDetail(shape, CLASSES)
    assert detector.score(gray, answers) == pytest.approx(-1, abs=0.01)
    assert abs(detector.score(color, answers).mean()) < 0.1
    levels = np.rint(color[0] * 255)
    down = levels[:, :-2] - 2 * levels[:, 1:-1] + levels[:, 2:]
    both = (down[..., :-2] - 2 * down[..., 1:-1] + down[..., 2:]).reshape(3, -1)
    length = np.sqrt((both**2).mean(axis=1)) + 1
    cosines = [
        (both[i] * both[j]).mean() / length[i] / length[j] for i, j in [(1, 0), (2, 0), (2, 1)]
    ]
    assert detector.score(color, answers)[0] == pytest.approx(-np.mean(cosines), rel=1e-5)
    back = ColorDetail.unpack(*detector.pack(), threads=1)
    np.testing.assert_array_equal(back.score(color, answers), detector.score(color, answers))


def test_what_makes_no_detector_is_refused() -> None:
    """Each refusal says what was expected."""
    for shape in ((1, 8, 8), (3, 2, 8)):
        with pytest.raises(ConfigurationError, match="no color to compare"):
            ColorDetail(shape, CLASSES)
    with pytest.raises(ConfigurationError, match="probabilities do not tell the energy"):
        Energy(victim("probabilities"), classes=CLASSES)
    with pytest.raises(ConfigurationError, match="low < high"):
        PixelShare(SHAPE, CLASSES, 0.5, 0.5)
    with pytest.raises(ConfigurationError, match=r"\(n, c, h, w\) pictures"):
        PixelShare.fitted(np.empty((0, 1, 2, 2), np.float32), classes=CLASSES)
