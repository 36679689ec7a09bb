"""Thieves against responses: what each countermeasure undoes; and `prediction-responses` itself."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from tollkeeper.attacks.classifier.copies import Conv3Copy, probabilities  # noqa: E402
from tollkeeper.attacks.classifier.knockoff import Knockoff  # noqa: E402
from tollkeeper.attacks.classifier.recorder import Recorder  # noqa: E402
from tollkeeper.bench.experiment import Context  # noqa: E402
from tollkeeper.bench.predict import scene  # noqa: E402
from tollkeeper.bench.predict.countermeasures import (  # noqa: E402
    COUNTERMEASURES,
    Average,
    Believe,
    Discard,
    Invert,
    LabelsOnly,
    Loot,
    Thief,
    Trainer,
)
from tollkeeper.bench.predict.metrics import accuracy, agreement  # noqa: E402
from tollkeeper.bench.predict.prediction_responses import EXPERIMENT  # noqa: E402
from tollkeeper.bench.predict.responding import Responding  # noqa: E402
from tollkeeper.data import Dataset  # noqa: E402
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier  # noqa: E402
from tollkeeper.errors import ConfigurationError, InputError  # noqa: E402
from tollkeeper.lab.fit import Adam, Schedule  # noqa: E402
from tollkeeper.responses.base import Perturbation  # noqa: E402
from tollkeeper.responses.chain import Chain  # noqa: E402
from tollkeeper.responses.outputs import KeyedNoise, ReverseSigmoid, Rounded, TopK  # noqa: E402
from tollkeeper.types import Images, Probabilities  # noqa: E402

pytestmark = pytest.mark.torch

KEY = b"the operator's"
BUDGET = 160


def stripes(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return (n, 28, 28) images whose class is where their bright stripe lies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2 : 2 * label + 5] += rng.integers(60, 195, dtype=np.uint8)
    return images, labels


def tensors(count: int, seed: int) -> tuple[Images, NDArray[np.int64]]:
    """Return stripes as a classifier takes them."""
    images, labels = stripes(count, seed)
    return (images[:, np.newaxis] / 255).astype(np.float32), labels


def load(name: str, split: str) -> Dataset:
    """Stand in for `load_images`."""
    images, labels = stripes(700, len(name + split))
    rgb = np.repeat(images[..., np.newaxis], 3, axis=3)
    return Dataset(name, split, rgb, labels, tuple("0123456789"))


def _knockoff(epochs: int) -> Knockoff:
    schedule = Schedule(epochs=epochs, batch=32, rate=3e-3, optimizer=Adam())
    return Knockoff(network=Conv3Copy(4), schedule=schedule)


@pytest.fixture(scope="module")
def victim() -> TorchClassifier:
    """A victim that knows its stripes and is not always sure."""
    images, labels = tensors(400, 1)
    answers = np.eye(10, dtype=np.float32)[labels] * 0.9 + 0.01
    network = _knockoff(8).trained(images, answers, rng=np.random.default_rng(0))
    return TorchClassifier(network, input_shape=(1, 28, 28), classes=tuple("0123456789"))


def _thief(response: Perturbation, epochs: int = 4) -> Thief:
    trainer = Trainer(_knockoff(epochs), BUDGET, seed=3)
    return Thief(tensors(300, 2)[0], BUDGET, trainer, (response,))


def _plain(victim: TorchClassifier, images: Images) -> Probabilities:
    return victim.embed(images)


def test_a_response_stands_before_the_victim(victim: TorchClassifier) -> None:
    """Users see what the response makes of the answer, and the victim's own refusals."""
    images, _ = tensors(20, 4)
    door = Responding(victim, Rounded(0), key=KEY)
    np.testing.assert_array_equal(door.embed(images).max(axis=1), 1)
    assert agreement(door.embed(images), _plain(victim, images)) == 1
    assert (door.dim, door.input_shape, door.classes) == (10, (1, 28, 28), tuple("0123456789"))
    with pytest.raises(InputError, match="28 x 28"):
        door.embed(np.zeros((1, 1, 5, 5), np.float32))


def test_a_response_needs_a_classifier_of_pictures(victim: TorchClassifier) -> None:
    """Text has no pixels that could decide noise."""

    class Text(TorchClassifier):
        input_shape = None  # type: ignore[assignment]  # as classifiers of text have it

        def __init__(self) -> None:
            self.name, self.classes, self.dim = "text", ("a", "b"), 2

    with pytest.raises(ConfigurationError, match="expected a classifier of pictures, text has"):
        Responding(Text(), Chain(), key=KEY)


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_no_thief_asks_more_than_its_budget(victim: TorchClassifier, name: str) -> None:
    """Distinct pictures are counted, of repeats with moved pixels each one."""
    recorder = Recorder(Responding(victim, KeyedNoise(), key=KEY))
    thief = _thief(KeyedNoise(), epochs=1)
    loot = COUNTERMEASURES[name](recorder, thief, rng=np.random.default_rng(5))
    assert len({image.tobytes() for image in recorder.images}) <= BUDGET
    assert 0 < len(loot.images) == len(loot.answers) <= BUDGET
    np.testing.assert_allclose(loot.answers.sum(axis=1), 1, atol=1e-5)


def test_labels_survive_what_leaves_the_arg_max(victim: TorchClassifier) -> None:
    """A thief of labels gets the same from a response that keeps them as from none."""
    responses: tuple[Perturbation, ...] = (Chain(), TopK(2))
    plain, cut = (
        LabelsOnly()(
            Responding(victim, response, key=KEY), _thief(response), rng=np.random.default_rng(6)
        )
        for response in responses
    )
    np.testing.assert_array_equal(plain.answers, cut.answers)
    assert set(np.unique(plain.answers)) == {0.0, 1.0}


def test_moving_pixels_averages_keyed_noise(victim: TorchClassifier) -> None:
    """Repeats alone teach nothing, since noise is the picture's; nearly equal pictures do."""
    response = KeyedNoise(0.02)
    door, thief = Responding(victim, response, key=KEY), _thief(response)

    def error(times: int) -> float:
        loot = Average(times)(door, thief, rng=np.random.default_rng(7))
        off = np.abs(loot.answers - _plain(victim, loot.images))
        return float(off[:10].sum(axis=1).mean())

    assert error(16) < 0.6 * error(1)
    images = thief.pool[:5]
    np.testing.assert_array_equal(door.embed(images), door.embed(images))


def test_an_inverse_undoes_what_a_network_can_learn(victim: TorchClassifier) -> None:
    """Answers behind reverse sigmoid come closer to the plain ones than they were."""
    response = ReverseSigmoid()
    door, thief = Responding(victim, response, key=KEY), _thief(response, epochs=20)
    believed, undone = (
        way(door, thief, rng=np.random.default_rng(8)) for way in (Believe(), Invert())
    )
    plain = _plain(victim, believed.images)
    before, after = (np.abs(one.answers - plain).sum(axis=1).mean() for one in (believed, undone))
    assert after < 0.4 * before


def test_unsure_answers_are_thrown_away(victim: TorchClassifier) -> None:
    """All below the bar go, but never more than the share says."""
    door, thief = Responding(victim, Chain(), key=KEY), _thief(Chain())
    answers = Believe()(door, thief, rng=np.random.default_rng(9)).answers
    bar = float(np.median(answers.max(axis=1)))
    kept = Discard(least=bar)(door, thief, rng=np.random.default_rng(9)).answers
    assert kept.max(axis=1).min() >= bar
    assert len(kept) == pytest.approx(BUDGET / 2, abs=1)
    few = Discard(least=1.0, share=0.25)(door, thief, rng=np.random.default_rng(9)).answers
    assert len(few) == BUDGET / 4


def test_copies_differ_by_their_loot_alone(victim: TorchClassifier) -> None:
    """The same loot is trained on once; other answers make another copy."""
    door = Responding(victim, Chain(), key=KEY)
    thief = _thief(Chain(), epochs=1)
    loot = Believe()(door, thief, rng=np.random.default_rng(10))
    first = thief.trainer(loot)
    assert thief.trainer(loot) is first
    images, _ = tensors(10, 11)
    again = Trainer(_knockoff(1), BUDGET, seed=3)(loot)
    np.testing.assert_array_equal(probabilities(first, images), probabilities(again, images))
    labels = LabelsOnly()(door, thief, rng=np.random.default_rng(10))
    assert thief.trainer(labels) is not first


def test_fewer_pictures_are_shown_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thief who keeps a quarter of its answers trains four times the epochs."""
    images, _ = tensors(BUDGET, 14)
    answers = np.full((BUDGET, 10), 0.1, np.float32)
    epochs = []

    def trained(*_: object, schedule: Schedule, **__: object) -> object:
        epochs.append(schedule.epochs)
        return torch.nn.Identity()

    monkeypatch.setattr(Knockoff, "trained", trained)
    trainer = Trainer(_knockoff(3), BUDGET, seed=3)
    for count in (BUDGET, BUDGET // 4):
        trainer(Loot(images[:count], answers[:count]))
    assert epochs == [3, 12]


def test_copies_of_the_plain_victim_are_worth_something(victim: TorchClassifier) -> None:
    """Without a response the thief ends up with most of what the victim knows."""
    door, thief = Responding(victim, Chain(), key=KEY), _thief(Chain(), epochs=16)
    copy = thief.trainer(Believe()(door, thief, rng=np.random.default_rng(12)))
    images, labels = tensors(200, 13)
    assert accuracy(probabilities(copy, images), labels) > 0.8


def test_the_experiment_measures_what_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny run gives every response its honest loss and its copies, twice the same."""
    monkeypatch.setattr(scene, "load_images", load)
    setting = replace(
        EXPERIMENT.scales["smoke"],
        train=60,
        honest=40,
        pool=120,
        outside=40,
        budget=100,
        victim_epochs=1,
        copy_epochs=1,
    )
    runs = [
        EXPERIMENT.measure(setting, Context(0, time.perf_counter, lambda *_: None)).metrics
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    metrics = runs[0]
    assert metrics["honest.none.l1_distance"].value == 0
    for response in ("top-1", "top-3", "rounded-1", "mad-argmax"):
        assert metrics[f"honest.{response}.label_kept"].value == 1
        labels = "believed" if response == "top-1" else "labels"
        copied = metrics[f"copy_accuracy.{response}.{labels}"].value
        assert copied == metrics["copy_accuracy.none.labels"].value
    assert metrics["honest.mad.l1_distance"].value == pytest.approx(0.8, abs=1e-4)


def test_a_budget_above_the_pool_is_refused() -> None:
    """The message says what there is."""
    setting = replace(EXPERIMENT.scales["smoke"], budget=400)
    with pytest.raises(ConfigurationError, match="100 to 300 pool images, got 400"):
        EXPERIMENT.measure(setting, Context(0, time.perf_counter, lambda *_: None))
