"""Pools and figures of copied classifiers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tollkeeper.bench.predict.theft import Exam, Marks, figure_names, load_pool, own_pool, tensors
from tollkeeper.bench.theft.orders import Order
from tollkeeper.bench.theft.pools import Pool
from tollkeeper.errors import ConfigurationError
from tollkeeper.testing.predictions import ToyClassifier, pictures


def test_pictures_become_what_the_victim_takes() -> None:
    """Gray and color, of any size, become tensors; of the right size they are only divided."""
    gray = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 17
    exact = tensors([gray], (1, 4, 4))
    np.testing.assert_array_equal(exact[0, 0], gray[:, :, 0] / np.float32(255))
    assert tensors([gray], (3, 4, 4)).shape == (1, 3, 4, 4)
    color = np.full((9, 5, 3), 51, np.uint8)
    np.testing.assert_allclose(tensors([color, gray], (1, 3, 3))[0], 0.2, rtol=1e-6)


def test_fidelity_is_mean_agreement() -> None:
    """Agreement is with the victim, accuracy with the labels; the victim agrees with itself."""
    toy, inputs = ToyClassifier(), pictures(20)
    answers = toy.embed(inputs).argmax(axis=1)
    labels = np.where(np.arange(20) < 5, (answers + 1) % 3, answers).astype(np.int64)
    marks = Marks((Exam("a", inputs, labels, answers), Exam("b", inputs[:4], None, answers[:4])))
    assert marks.asked == 24
    assert marks.victim() == marks.figures(toy)
    assert marks.victim() == {
        "fidelity": 1.0,
        "agreement.a": 1.0,
        "accuracy.a": 0.75,
        "agreement.b": 1.0,
    }
    wrong = Marks((Exam("a", inputs, labels, (answers + 1) % 3),)).figures(toy)
    assert (wrong["fidelity"], wrong["accuracy.a"]) == (0.0, 0.75)


def test_every_figure_has_its_name() -> None:
    """Conditions can be put on what is going to be measured, and on nothing else."""
    assert set(figure_names(("mnist",))) == {"fidelity", "accuracy.mnist", "agreement.mnist"}
    assert set(figure_names(())) == {"fidelity", "agreement.held out"}


def test_own_images_keep_their_sizes() -> None:
    """A user's images are shuffled and scaled later, when it is known to what."""
    images = [np.full((2 + i, 3, 3), i, np.uint8) for i in range(5)]
    pool = own_pool("mine", images, np.random.default_rng(0))
    assert sorted(len(image) for image in pool.inputs) == [2, 3, 4, 5, 6]


def test_an_unknown_set_is_refused() -> None:
    """The message lists what there is."""
    with pytest.raises(ConfigurationError, match="emnist_letters"):
        load_pool("words", most=10, rng=np.random.default_rng(0), data={})


def test_orders_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """Guard profiles, texts and unknown test sets are refused before anything is loaded."""
    pytest.importorskip("torch")
    from tollkeeper.bench.predict.theft import opened

    images = Pool("p", [np.zeros((4, 4, 3), np.uint8)] * 9, None)
    texts = Pool("t", ["a"] * 9, None)
    for options, message in (
        ({"pool": images, "profile": "recommended"}, "guards encoders"),
        ({"pool": texts}, "asks pictures, got texts"),
        ({"pool": images, "tasks": ("sst2",)}, "no pictures 'sst2'"),
        ({"pool": images, "target": "onnx:/none.onnx"}, "found no file"),
    ):
        order = Order(
            attack="knockoff",
            budgets=(5,),
            folder=tmp_path,
            **{"target": "python:tollkeeper.testing.predictions:ToyClassifier", **options},  # type: ignore[arg-type]
        )
        with (
            pytest.raises(ConfigurationError, match=message),
            opened(order, clock=lambda: 0.0, told=lambda *_: None),
        ):
            pass
