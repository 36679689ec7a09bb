"""Tests of maximizing angular deviation, without torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import ConfigurationError, EncoderError
from tollkeeper.graphs import Graph
from tollkeeper.responses import mad
from tollkeeper.responses.mad import MaximizingAngularDeviation, Rows, any_corner, label_corner
from tollkeeper.types import Images, Probabilities

KEY = b"unused"
MakeGraph = Callable[..., Graph]
SHAPE = (1, 2, 4)
CLASSES = (3, 10, 12)


def _queries(seed: int, classes: int, n: int = 6) -> tuple[Images, Probabilities]:
    rng = np.random.default_rng(seed)
    images = rng.random((n, *SHAPE), np.float32)
    return images, rng.dirichlet(np.full(classes, 0.3), n).astype(np.float32)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.sampled_from(CLASSES),
    distance=st.floats(0.01, 2),
    keep=st.booleans(),
)
def test_the_change_has_exactly_the_distance(
    linear_graph: MakeGraph, seed: int, classes: int, distance: float, keep: bool
) -> None:
    """The L1 norm is the distance, or less where the corner itself is nearer."""
    images, answers = _queries(seed, classes)
    response = MaximizingAngularDeviation(linear_graph(classes), distance=distance, keep_label=keep)
    found = response(images, answers, key=KEY)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert found.min() >= 0
    # The corner is where the largest distance leads.
    corner = MaximizingAngularDeviation(linear_graph(classes), distance=2, keep_label=keep)
    farthest = np.abs(corner(images, answers, key=KEY) - answers).sum(axis=1)
    moved = np.abs(found - answers).sum(axis=1)
    np.testing.assert_allclose(moved, np.minimum(distance, farthest), atol=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.sampled_from(CLASSES), distance=st.floats(0.01, 2))
def test_the_label_stays_where_promised(
    linear_graph: MakeGraph, seed: int, classes: int, distance: float
) -> None:
    """Even at the corner, where the label ties with others."""
    images, answers = _queries(seed, classes)
    response = MaximizingAngularDeviation(linear_graph(classes), distance=distance)
    found = response(images, answers, key=KEY)
    np.testing.assert_array_equal(found.argmax(axis=1), answers.argmax(axis=1))


@given(seed=st.integers(0, 2**31))
def test_an_answer_does_not_depend_on_its_batch(linear_graph: MakeGraph, seed: int) -> None:
    """Each query gets what it would get alone, and again."""
    images, answers = _queries(seed, 10)
    response = MaximizingAngularDeviation(linear_graph(10))
    together = response(images, answers, key=KEY)
    alone = [response(images[i : i + 1], answers[i : i + 1], key=KEY) for i in range(len(images))]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)
    np.testing.assert_array_equal(together, response(images, answers, key=KEY))


def _deviation(target: Rows, answer: Rows, gradients: Rows) -> float:
    """Return || G^T y / |G^T y| - G^T p / |G^T p| ||^2 as the paper writes it."""
    ours, true = gradients.T @ target, gradients.T @ answer
    difference = ours / np.linalg.norm(ours) - true / np.linalg.norm(true)
    return float(difference @ difference)


@given(st.integers(0, 2**31))
def test_corners_are_the_best_by_the_papers_own_formula(seed: int) -> None:
    """With G of outer products (p_F - e_k) h^T, no corner does better than the one chosen."""
    rng, classes = np.random.default_rng(seed), 4
    answer, belief = rng.dirichlet(np.ones(classes)), rng.dirichlet(np.ones(classes))
    features = rng.normal(size=5)
    gradients = np.stack([np.outer(belief - row, features).ravel() for row in np.eye(classes)])
    label = int(answer.argmax())
    sets = [set(some) for size in range(1, 5) for some in combinations(range(classes), size)]
    corners = [[float(k in some) / len(some) for k in range(classes)] for some in sets]
    true = [corner for corner, some in zip(corners, sets, strict=True) if label in some]

    for every, search in ((np.eye(classes), any_corner), (np.array(true), label_corner)):
        found = search(answer[np.newaxis], belief[np.newaxis])[0]
        best = max(_deviation(corner, answer, gradients) for corner in every)
        assert _deviation(found, answer, gradients) == pytest.approx(best, abs=1e-9)


def test_growing_sets_come_close_to_the_best_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above ten classes a set grows greedily; with ten that seldom finds less than all sets do."""
    rng = np.random.default_rng(0)
    answers, beliefs = rng.dirichlet(np.full(10, 0.3), 100), rng.dirichlet(np.ones(10), 100)
    best = label_corner(answers, beliefs)
    monkeypatch.setattr(mad, "_ALL_SUBSETS", 9)
    grown = label_corner(answers, beliefs)
    found = [
        [_deviation(corner, answer, belief - np.eye(10)) for corner in corners]
        for answer, belief, *corners in zip(answers, beliefs, best, grown, strict=True)
    ]
    full, greedy = np.transpose(found)
    assert (greedy <= full + 1e-9).all()
    assert np.mean(greedy > full - 1e-9) > 0.9
    np.testing.assert_array_equal(grown[np.arange(100), answers.argmax(axis=1)], grown.max(axis=1))


def test_a_surrogate_that_agrees_changes_nothing_it_cannot_judge() -> None:
    """Where p_F is p itself there is no direction; the answer stays finite and probable."""
    answer = np.array([[0.7, 0.2, 0.1]])
    for search in (any_corner, label_corner):
        np.testing.assert_allclose(search(answer, answer).sum(axis=1), 1)


def test_nothing_asked_is_nothing_answered(linear_graph: MakeGraph) -> None:
    """An empty batch passes."""
    images, answers = _queries(0, 10, n=0)
    assert MaximizingAngularDeviation(linear_graph(10))(images, answers, key=KEY).shape == (0, 10)


def test_bad_parts_are_refused_by_name(linear_graph: MakeGraph) -> None:
    """Another graph, another distance or another victim's surrogate each get their own line."""
    with pytest.raises(ConfigurationError, match="output 'logits', linear has scores"):
        MaximizingAngularDeviation(linear_graph(3, output="scores"))
    with pytest.raises(ConfigurationError, match=r"above 0 and up to 2, got 2\.5"):
        MaximizingAngularDeviation(linear_graph(3), distance=2.5)
    images, answers = _queries(0, 10)
    with pytest.raises(EncoderError, match="made for another victim"):
        MaximizingAngularDeviation(linear_graph(3))(images, answers, key=KEY)
