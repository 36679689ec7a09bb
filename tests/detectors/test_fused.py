"""Promises of the fused score, on drawn pictures and a graph that averages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.bundle import Bundle, load_bundle, probe_for, save_bundle
from tollkeeper.detectors.fused import SIGNALS, Fused
from tollkeeper.detectors.history import History
from tollkeeper.detectors.packing import array_bytes, read_array
from tollkeeper.detectors.same import Same
from tollkeeper.errors import ConfigurationError, DetectorError
from tollkeeper.graphs import Graph
from tollkeeper.types import Images, Probabilities

onnx = pytest.importorskip("onnx")

SHAPE, CLASSES = (1, 8, 8), 3


def same(shape: tuple[int, int, int] = SHAPE) -> Same:
    """Make SAME-X of a graph that restores half of each pixel; the latent is the row means."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT

    def info(name: str, *shape: int) -> object:
        return helper.make_tensor_value_info(name, kind, ["n", *shape])

    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["rows", "half"], ["restored"]),
            helper.make_node("ReduceMean", ["rows"], ["latent"], axes=[1, 3], keepdims=0),
        ],
        "test",
        [info("rows", *shape)],
        [info("restored", *shape), info("latent", 8)],
        [onnx.numpy_helper.from_array(np.float32(0.5), "half")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Same(Graph(model.SerializeToString()), None, classes=CLASSES, alpha=1)


def honest(n: int, seed: int) -> tuple[Images, Probabilities]:
    """Draw n pictures with ink in one third of their rows, and the victim's answers."""
    rng = np.random.default_rng(seed)
    named = rng.integers(0, CLASSES, n)
    ink = (np.arange(8)[None] * 3 // 8 == named[:, None])[:, None, :, None] & (
        rng.random((n, *SHAPE)) < 0.6
    )
    pictures = (ink * rng.integers(150, 256, ink.shape) / 255).astype(np.float32)
    answers = rng.dirichlet([0.05, 0.05, 3], n)
    answers = np.take_along_axis(answers, (np.arange(CLASSES)[None] + 2 - named[:, None]) % 3, 1)
    return pictures, answers.astype(np.float32)


@pytest.fixture(scope="module")
def fused() -> Fused:
    """Return a detector fitted on drawn pictures."""
    images, answers = honest(2000, 1)
    further, theirs = honest(2000, 2)
    return Fused.fitted(
        same(), images, answers, calibration_images=further, calibration_answers=theirs
    )


def test_a_score_is_an_honest_rank(fused: Fused) -> None:
    """Of fresh honest queries about a tenth score above 1, and a hundredth above 2."""
    assert isinstance(fused, Detector)
    scores = fused.score(*honest(6000, 3))

    assert (scores >= 1).mean() == pytest.approx(0.1, abs=0.02)
    assert (scores >= 2).mean() == pytest.approx(0.01, abs=0.006)
    assert scores.min() >= 0


def test_no_class_is_taxed_more_than_another() -> None:
    """Where honest queries of one class are odder, they score above 1 as often as others."""

    def mixed(n: int, seed: int) -> tuple[Images, Probabilities]:
        pictures, answers = honest(n, seed)
        unsure = answers.argmax(axis=1) == 2
        answers[unsure] = 0.7 * answers[unsure] + 0.1
        return pictures, answers

    images, answers = mixed(2000, 1)
    further, theirs = mixed(3000, 2)
    found = Fused.fitted(
        same(), images, answers, calibration_images=further, calibration_answers=theirs
    )
    fresh, given = mixed(4000, 3)
    above = found.score(fresh, given) >= 1
    for each in range(CLASSES):
        assert above[given.argmax(axis=1) == each].mean() == pytest.approx(0.1, abs=0.03)


def test_each_oddity_is_seen(fused: Fused) -> None:
    """An unsure answer, a background slightly off, and ink in the wrong rows all raise the score."""
    pictures, answers = honest(200, 4)
    usual = np.median(fused.score(pictures, answers))
    unsure = np.full_like(answers, 1 / CLASSES)
    off = np.clip(pictures + np.float32(0.05), 0, 1)
    moved = pictures[:, :, ::-1].copy()

    assert np.median(fused.score(pictures, unsure)) > usual + 1
    assert np.median(fused.score(off, answers)) > usual + 1
    assert np.median(
        fused.score(moved[answers.argmax(1) != 1], answers[answers.argmax(1) != 1])
    ) > (usual + 1)
    assert set(fused.signals(pictures, answers)) == set(SIGNALS)


def test_channels_that_do_not_belong_together_are_seen() -> None:
    """Channels of different pictures have honest levels, but not the honest gray detail.

    A file of a version that looked at fewer features is refused by name.
    """
    rng = np.random.default_rng(7)

    def photographs(n: int) -> tuple[Images, Probabilities]:
        grain = rng.normal(0.5, 0.1, (n, 1, 8, 8)) + rng.normal(0, 0.03, (n, 3, 8, 8))
        answers = rng.dirichlet([0.05, 0.05, 3], n).astype(np.float32)
        return np.clip(grain, 0, 1).astype(np.float32), answers

    images, answers = photographs(2000)
    further, theirs = photographs(2000)
    shape = (3, 8, 8)
    found = Fused.fitted(
        same(shape), images, answers, calibration_images=further, calibration_answers=theirs
    )
    fresh, given = photographs(300)
    mixed = np.stack([np.roll(fresh[:, at], at, axis=0) for at in range(3)], axis=1)
    usual = np.median(found.signals(fresh, given)["pixels"])
    assert np.median(found.signals(mixed, given)["pixels"]) > usual + 1

    parameters, blobs = found.pack()
    back = Fused.unpack(parameters, blobs, threads=1)
    np.testing.assert_allclose(back.score(fresh, given), found.score(fresh, given))
    centers = array_bytes(read_array(blobs["pixels.centers"], dimensions=2)[:, :-3])
    with pytest.raises(ConfigurationError, match="fit it again"):
        Fused.unpack(parameters, blobs | {"pixels.centers": centers}, threads=1)


def test_no_query_changes_the_score_of_another(fused: Fused) -> None:
    """Alone, together and in another order, a query scores the same."""
    pictures, answers = honest(70, 5)
    together = fused.score(pictures, answers)
    alone = [fused.score(pictures[i : i + 1], answers[i : i + 1])[0] for i in range(70)]

    assert together == pytest.approx(alone, abs=1e-9)
    assert fused.score(pictures[::-1].copy(), answers[::-1])[::-1] == pytest.approx(together)
    assert fused.score(pictures[:0], answers[:0]).shape == (0,)


def test_a_stored_detector_scores_the_same(fused: Fused, tmp_path: Path) -> None:
    """Through a bundle, with a history over it, nothing changes."""
    pictures, answers = honest(800, 6)
    scores = fused.score(pictures, answers)
    probe = probe_for(SHAPE)
    bundle = Bundle(
        victim="v",
        input_shape=SHAPE,
        classes=CLASSES,
        detectors={"fused": fused},
        recommended="fused",
        honest={"fused": np.sort(scores)},
        account=History(fused, scores),
        graphs={},
        probe=probe,
        probe_answers=np.full((len(probe), CLASSES), 1 / 3, np.float32),
    )
    save_bundle(tmp_path / "x.tkd", bundle)
    found = load_bundle(tmp_path / "x.tkd")

    assert np.array_equal(found.detectors["fused"].score(pictures, answers), scores)
    assert found.account is not None
    assert bundle.account is not None
    state = bundle.account.empty()
    suspicion, _ = found.account.update(state, pictures[:20], answers[:20])
    assert np.array_equal(suspicion, bundle.account.update(state, pictures[:20], answers[:20])[0])


def test_queries_it_was_not_fitted_for_are_refused(fused: Fused) -> None:
    """Another shape, values out of range or answers of other classes are named."""
    pictures, answers = honest(2, 7)
    with pytest.raises(DetectorError, match="fused was fitted for float32"):
        fused.score(pictures[:, :, :4], answers)
    with pytest.raises(DetectorError, match="from 0 to 1"):
        fused.score(pictures * 2, answers)
    with pytest.raises(DetectorError, match="3 classes"):
        fused.score(pictures, answers[:, :2])


def test_too_little_honest_traffic_is_refused() -> None:
    """Fewer queries than features, or than a tail needs, are one clear error."""
    few, many = honest(20, 8), honest(400, 9)
    with pytest.raises(ConfigurationError, match="honest queries"):
        Fused.fitted(same(), *few, calibration_images=many[0], calibration_answers=many[1])
    with pytest.raises(ConfigurationError, match="finite honest scores"):
        Fused.fitted(same(), *many, calibration_images=few[0], calibration_answers=few[1])
