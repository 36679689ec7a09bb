"""Tasks: shares of classes, sizes, what they leave in the manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tollkeeper.bench.theft import tasks
from tollkeeper.bench.theft.tasks import IMAGE_TASKS, TEXT_TASKS, load_task, select, stratified
from tollkeeper.data import load_images
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError


@pytest.mark.parametrize("count", [1, 7, 50, 173, 299, 300, 10_000])
def test_every_class_keeps_its_share(count: int) -> None:
    """Of unequal classes as many are chosen as their share says, rounded up or down."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1, 2, 4], [200, 80, 19, 1]))
    chosen = stratified(labels, count, rng=rng)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, 300)
    for label in (0, 1, 2, 4):
        share = min(count, 300) * np.count_nonzero(labels == label) / 300
        assert abs(np.count_nonzero(labels[chosen] == label) - share) < 1


def test_choice_is_random_and_repeatable() -> None:
    """One seed always chooses the same, in an order that is not sorted; another one does not."""
    labels = np.repeat([0, 1], 50)
    one, same, other = (stratified(labels, 30, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one.tolist() != other.tolist()
    assert (np.diff(labels[one]) < 0).sum() > 3


def test_texts_and_arrays_are_selected_alike() -> None:
    """The chosen inputs come in the chosen order, whatever holds them."""
    at = np.array([2, 0])
    assert select(["a", "b", "c"], at) == ["c", "a"]
    np.testing.assert_array_equal(select(np.arange(6).reshape(3, 2), at), [[4, 5], [0, 1]])


@pytest.mark.parametrize("name", IMAGE_TASKS)
def test_image_tasks_fit_encoders(name: str, data_dir: Path) -> None:
    """Every image task is uint8 RGB of 32 pixels with labels, and is in the manifest."""
    data: dict[str, str] = {}
    task = load_task(name, train=90, test=60, rng=np.random.default_rng(0), data=data)
    for inputs, labels, size in (
        (task.train_inputs, task.train_labels, 90),
        (task.test_inputs, task.test_labels, 60),
    ):
        assert isinstance(inputs, np.ndarray)
        assert inputs.shape == (size, 32, 32, 3)
        assert inputs.dtype == np.uint8
        assert labels.shape == (size,)
        assert len(set(labels.tolist())) > 5
    assert len(data) == 2
    assert {key.rpartition("/")[2] for key in data} == {"train", "test"}


@pytest.mark.parametrize("name", TEXT_TASKS)
def test_text_tasks_fit_encoders(name: str, data_dir: Path) -> None:
    """Every text task is lists of strings with labels; a set that is too small is whole."""
    task = load_task(name, train=10**6, test=50, rng=np.random.default_rng(0), data={})
    assert 6_000 < len(task.train_inputs) == len(task.train_labels) < 11_000
    assert len(task.test_inputs) == len(task.test_labels) == 50
    assert all(isinstance(text, str) for text in task.train_inputs)


def test_labels_follow_their_inputs(data_dir: Path) -> None:
    """A chosen image keeps the label that it has in the data set."""
    whole = load_images("gtsrb32", "test")
    assert whole.labels is not None
    known = {
        image.tobytes(): int(label) for image, label in zip(whole.inputs, whole.labels, strict=True)
    }
    task = load_task("gtsrb", train=1, test=200, rng=np.random.default_rng(0), data={})
    for image, label in zip(task.test_inputs, task.test_labels, strict=True):
        assert known[image.tobytes()] == label


def test_scaling_is_the_encoders_own() -> None:
    """The built-in image encoder answers to a scaled image as to the original."""
    gray = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    images = np.broadcast_to(gray, (3, 28, 28, 3))
    encoder = load_encoder("builtin:image")
    np.testing.assert_array_equal(encoder.embed(tasks.scaled(images)), encoder.embed(images))


def test_bad_wishes_are_named() -> None:
    """Unknown tasks and empty parts are refused in one line."""
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigurationError, match="no task 'svhn'; choose cifar10"):
        load_task("svhn", train=1, test=1, rng=rng, data={})
    with pytest.raises(ConfigurationError, match="at least 1 training and 1 test input"):
        load_task("cifar10", train=5, test=0, rng=rng, data={})
