"""Tests of adaptive misinformation, without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import ConfigurationError, EncoderError
from tollkeeper.graphs import Graph
from tollkeeper.responses.misinformation import AdaptiveMisinformation
from tollkeeper.responses.simplex import softmax
from tollkeeper.types import Probabilities

KEY = b"unused"
MakeGraph = Callable[..., Graph]


def _sure(confidence: float, classes: int = 3) -> Probabilities:
    rest = (1 - confidence) / (classes - 1)
    exact: Any = np.array([[confidence, *[rest] * (classes - 1)]])
    found: Probabilities = exact  # float32 would move it across the gate
    return found


@pytest.mark.parametrize(("surplus", "share"), [(0.0, 0.5), (0.01, 4.5e-5), (-0.01, 0.99995)])
def test_the_gate_is_a_step_at_the_threshold(
    linear_graph: MakeGraph, surplus: float, share: float
) -> None:
    """Half of the answer is wrong at the threshold, all or nothing a hundredth away."""
    response = AdaptiveMisinformation(linear_graph(3), threshold=0.9)
    assert response.share(_sure(0.9 + surplus))[0] == pytest.approx(share, rel=0.01)


def test_far_from_the_threshold_nothing_overflows(linear_graph: MakeGraph) -> None:
    """A steeper gate is still between 0 and 1, without a warning."""
    response = AdaptiveMisinformation(linear_graph(3), threshold=0.5, steepness=1e6)
    assert response.share(_sure(1.0))[0] == 0
    assert response.share(_sure(0.34))[0] == 1


@settings(deadline=None)
@given(seed=st.integers(0, 2**31))
def test_sure_answers_pass_and_unsure_ones_are_the_misinformers(
    linear_graph: MakeGraph, seed: int
) -> None:
    """Answers are probabilities, from one network or the other, alone as in a batch."""
    graph = linear_graph(3)
    response = AdaptiveMisinformation(graph, threshold=0.7)
    images = np.random.default_rng(seed).random((2, 1, 2, 4), np.float32)
    answers = np.array([[0.9, 0.06, 0.04], [0.4, 0.35, 0.25]], np.float32)
    found = response(images, answers, key=KEY)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], answers[0], atol=1e-6)
    np.testing.assert_allclose(found[1], softmax(graph.run(images)["logits"])[1], atol=1e-6)
    alone = [response(images[i : i + 1], answers[i : i + 1], key=KEY) for i in range(2)]
    np.testing.assert_allclose(np.concatenate(alone), found, atol=1e-6)


def test_nothing_asked_is_nothing_answered(linear_graph: MakeGraph) -> None:
    """An empty batch passes."""
    empty = np.empty((0, 3), np.float32)
    images = np.empty((0, 1, 2, 4), np.float32)
    assert AdaptiveMisinformation(linear_graph(3))(images, empty, key=KEY).shape == (0, 3)


def test_bad_parts_are_refused_by_name(linear_graph: MakeGraph) -> None:
    """A gate that is none, and another victim's misinformer, each get their own line."""
    with pytest.raises(ConfigurationError, match=r"threshold from 0 to 1 .* got 1\.5"):
        AdaptiveMisinformation(linear_graph(3), threshold=1.5)
    images = np.zeros((1, 1, 2, 4), np.float32)
    answers = np.full((1, 10), 0.1, np.float32)
    with pytest.raises(EncoderError, match="fitted for another victim"):
        AdaptiveMisinformation(linear_graph(3))(images, answers, key=KEY)
