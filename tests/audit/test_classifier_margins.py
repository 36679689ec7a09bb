"""Blind walks: lengths, what they ask, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.audit.classifiers.margins import BlindWalk, Side, lengths, named
from tollkeeper.encoders.classifiers.python import CallableClassifier
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch, Images, Probabilities


def _bright(limit: float = 0.5) -> CallableClassifier:
    """Return a classifier that says whether a picture's mean is above a limit."""

    def function(rows: Images) -> Probabilities:
        above = rows.reshape(len(rows), -1).mean(axis=1) > limit
        return np.stack([~above, above], axis=1).astype(np.float32)

    return CallableClassifier(function, classes=("dark", "bright"), input_shape=(1, 4, 4))


def _side(*means: float) -> Side:
    images = np.stack([np.full((1, 4, 4), mean, np.float32) for mean in means])
    return Side(images, (images.mean(axis=(1, 2, 3)) > 0.5).astype(np.int64))


def _slow(suspect: CallableClassifier, side: Side, walk: BlindWalk, seed: int) -> list[float]:
    """Return the lengths of the first uniform walk of each picture, one step at a time."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(-walk.uniform, walk.uniform, side.images.shape).astype(np.float32)
    found = []
    for image, label, step in zip(side.images, side.labels, steps, strict=True):
        for count in range(1, walk.steps + 1):
            moved = np.clip(image + np.float32(count) * step, 0, 1)
            if suspect.embed(moved[None])[0].argmax() != label:
                break
        found.append(float(np.abs(moved - image).max()))
    return found


def test_a_walk_ends_where_the_label_changes() -> None:
    """Lengths are those of a walk that is made step by step, picture by picture."""
    suspect, side = _bright(), _side(0.499, 0.501, 0.48, 0.9)
    walk = BlindWalk(uniform=0.02, starts=2, steps=30)
    found = walk.measure(suspect, side, rng=np.random.default_rng(3))
    np.testing.assert_allclose(found.distances[:, 0, 0], _slow(suspect, side, walk, 3), rtol=1e-6)
    assert found.distances.shape == (4, 2, 3)
    assert found.features.shape == (4, 6)


def test_what_is_far_is_said_to_be_a_lower_bound() -> None:
    """A border that no walk reaches is marked, and the walk has its full length."""
    walk = BlindWalk(starts=1, steps=3)
    found = walk.measure(_bright(), _side(0.9, 0.5001), rng=np.random.default_rng(0))
    assert not found.flipped[0].any()
    assert found.distances[0, 0, 0] <= 3 * walk.uniform * (1 + 1e-5)
    assert found.distances[0, 0, 0] > 2 * walk.uniform


def test_a_wrong_answer_has_one_step() -> None:
    """What the suspect names wrongly from the start is as near to the border as can be."""
    side = Side(np.full((1, 1, 4, 4), 0.9, np.float32), np.array([0]))
    found = BlindWalk(starts=1).measure(_bright(), side, rng=np.random.default_rng(0))
    assert found.queries == 3
    assert found.flipped.all()
    assert found.distances[0, 0, 0] <= 0.005


def test_no_picture_is_asked_after_its_label_changed() -> None:
    """Queries are those of the steps that were needed, each once."""
    asked: list[int] = []

    def function(rows: Images) -> Probabilities:
        asked.append(len(rows))
        return np.tile(np.array([1, 0], np.float32), (len(rows), 1))

    suspect = CallableClassifier(function, classes=("a", "b"), input_shape=(1, 4, 4))
    side = Side(np.full((3, 1, 4, 4), 0.5, np.float32), np.array([0, 1, 1]))
    found = BlindWalk(starts=2, steps=5).measure(suspect, side, rng=np.random.default_rng(0))
    # In each of six walks two pictures are wrong at once, and one never is.
    assert found.queries == sum(asked) == 6 * (3 + 4 * 1)


def test_one_generator_gives_all_suspects_the_same_walks() -> None:
    """Suspects can be compared picture by picture."""
    side, walk = _side(0.49, 0.51), BlindWalk(uniform=0.02, starts=2, steps=20)
    first, again, other = (
        walk.measure(_bright(), side, rng=np.random.default_rng(seed)).distances
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_suspect_of_eight_bits_is_asked_rounded_pictures() -> None:
    """A service that takes pictures and no tensors can be audited."""

    class Service:
        name, dim, accepts = "service", 2, frozenset({"image"})

        def embed(self, inputs: Batch) -> Probabilities:
            rows = np.asarray(inputs)
            assert rows.dtype == np.uint8
            assert rows.shape[1:] == (4, 4, 3)
            above = rows.reshape(len(rows), -1).mean(axis=1) > 127
            return np.stack([~above, above], axis=1).astype(np.float32)

    side = _side(0.2, 0.9)
    np.testing.assert_array_equal(named(Service(), side.images), [0, 1])
    assert BlindWalk(starts=1, steps=2).measure(Service(), side, rng=np.random.default_rng(0))


def test_lengths_are_norms() -> None:
    """They are numpy's norms of the flattened moves."""
    moves = np.random.default_rng(0).normal(size=(5, 2, 3, 3)).astype(np.float32)
    for norm, order in enumerate((np.inf, 2, 1)):
        wanted = [np.linalg.norm(move.ravel(), ord=order) for move in moves]
        np.testing.assert_allclose(lengths(moves, norm), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4), np.float32), np.zeros(2, np.int64), "expected .n, c, h, w. float32"),
        (np.zeros((0, 1, 4, 4), np.float32), np.zeros(0, np.int64), "n at least 1"),
        (np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, np.int64), "float32"),
        (np.full((2, 1, 4, 4), np.nan, np.float32), np.zeros(2, np.int64), "no NaN"),
        (np.full((2, 1, 4, 4), 1.5, np.float32), np.zeros(2, np.int64), "from 0 to 1"),
        (np.zeros((2, 1, 4, 4), np.float32), np.zeros(3, np.int64), "each of 2 pictures"),
    ],
)
def test_what_cannot_be_walked_from_is_refused(
    images: Images, labels: np.ndarray, message: str
) -> None:
    """The message says what was expected."""
    with pytest.raises(AuditRefused, match=message):
        Side(images, labels)


def test_suspects_that_cannot_answer_are_refused() -> None:
    """Too few classes, no pictures, or walks that go nowhere are told in one line."""
    rng = np.random.default_rng(0)
    side = Side(np.zeros((1, 1, 4, 4), np.float32), np.array([5]))
    with pytest.raises(AuditRefused, match="at least 6 classes"):
        BlindWalk().measure(_bright(), side, rng=rng)
    texts = CallableClassifier(lambda rows: rows, classes=("a", "b"), input_shape=None)
    with pytest.raises(AuditRefused, match="takes no pictures"):
        BlindWalk().measure(texts, side, rng=rng)
    with pytest.raises(AuditRefused, match="positive scales"):
        BlindWalk(uniform=0)
