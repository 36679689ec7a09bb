"""Tests of the networks that responses run: made with torch, answering without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from tollkeeper.graphs import Graph  # noqa: E402
from tollkeeper.lab.conv3 import conv3  # noqa: E402
from tollkeeper.lab.fit import Schedule  # noqa: E402
from tollkeeper.responses.lab.mad import random_surrogate  # noqa: E402
from tollkeeper.responses.lab.misinformation import (  # noqa: E402
    fit_exposed,
    fit_misinformer,
    reverse_cross_entropy,
)
from tollkeeper.responses.simplex import softmax  # noqa: E402

pytestmark = pytest.mark.torch

SHAPE = (1, 14, 14)
SCHEDULE = Schedule(epochs=6, batch=32, rate=3e-3)


def _bars(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures whose class is the third of the picture that is bright."""
    labels = rng.integers(0, 3, n)
    images = 0.3 * rng.random((n, *SHAPE), np.float32)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * label : 4 * label + 5] += 0.6
    return images, labels


def test_the_closed_form_of_mad_is_torchs_gradient() -> None:
    """Row k of G, by a backward pass on the surrogate's last layer, is (p_F - e_k) h^T."""
    graph = Graph(random_surrogate(SHAPE, 4, np.random.default_rng(0), width=4))
    twin = conv3(SHAPE, 4, np.random.default_rng(0), width=4)
    images = np.random.default_rng(1).random((2, *SHAPE), np.float32)
    found = graph.run(images)
    for row, features, logits in zip(images, found["features"], found["logits"], strict=True):
        for k in range(4):
            output = twin(torch.from_numpy(row[np.newaxis]))
            loss = functional.cross_entropy(output, torch.tensor([k]))
            (gradient,) = torch.autograd.grad(loss, twin.head.weight)
            believed = softmax(logits[np.newaxis])[0]
            ours = np.outer(believed - np.eye(4)[k], features)
            np.testing.assert_allclose(gradient.numpy(), ours, atol=1e-5)


def test_reverse_cross_entropy_is_stable() -> None:
    """It is -log(1 - p), also where p rounds to one or to zero."""
    logits = torch.tensor([[2.0, 1.0, 0.0], [60.0, 0.0, 0.0], [-60.0, 0.0, 0.0]])
    labels = torch.zeros(3, dtype=torch.int64)
    each = [float(reverse_cross_entropy(logits[i : i + 1], labels[i : i + 1])) for i in range(3)]
    expected = -np.log1p(-float(torch.softmax(logits[0], 0)[0]))
    assert each == pytest.approx([expected, 60 - np.log(2), 0.0], abs=1e-5)


def test_a_misinformer_learns_to_be_wrong() -> None:
    """On its training's kind of pictures it hardly ever gives the right class."""
    rng = np.random.default_rng(2)
    images, labels = _bars(rng, 256)
    outliers = rng.random((64, *SHAPE), np.float32)
    answers = np.tile(np.array([[0.8, 0.1, 0.1]], np.float32), (64, 1))
    graph = Graph(
        fit_misinformer(
            conv3(SHAPE, 3, rng, width=4),
            images,
            labels,
            outliers=outliers,
            answers=answers,
            schedule=SCHEDULE,
            rng=rng,
        )
    )
    fresh, wanted = _bars(rng, 100)
    given = softmax(graph.run(fresh)["logits"])
    assert given[np.arange(100), wanted].mean() < 0.05
    assert softmax(graph.run(outliers)["logits"])[:, 0].mean() < 0.05


def test_an_exposed_victim_is_unsure_of_outliers() -> None:
    """So that the gate passes honest queries and not others."""
    rng = np.random.default_rng(3)
    images, labels = _bars(rng, 256)
    outliers = rng.random((64, *SHAPE), np.float32)
    victim = conv3(SHAPE, 3, rng, width=4)
    fit_exposed(victim, images, labels, outliers, schedule=replace(SCHEDULE, epochs=16), rng=rng)
    fresh, wanted = _bars(rng, 100)
    strange = rng.random((100, *SHAPE), np.float32)
    with torch.no_grad():
        mine, other = (
            torch.softmax(victim(torch.from_numpy(some)), dim=1).numpy()
            for some in (fresh, strange)
        )
    assert (mine.argmax(axis=1) == wanted).mean() > 0.95
    assert np.median(mine.max(axis=1)) > 0.9
    assert np.median(other.max(axis=1)) < 0.6
