"""Scores: against slow oracles, and what they say of victims, copies and strangers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.theft import scoring
from tollkeeper.bench.theft.probes import knn200, linear_probe
from tollkeeper.bench.theft.scoring import (
    Reference,
    Scores,
    agreement,
    centered_cosine,
    fidelity,
    input_reference,
    recall_at_10,
    score,
    task_reference,
)
from tollkeeper.bench.theft.tasks import Task
from tollkeeper.encoders.base import Modality
from tollkeeper.errors import ConfigurationError, EncoderError
from tollkeeper.types import Batch, Embeddings


def rows(n: int, dim: int = 8, seed: int = 0) -> Embeddings:
    """Return (n, dim) standard normal rows."""
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


class Linear:
    """An encoder of images: a fixed linear map of their first 48 values."""

    name = "linear"
    accepts: frozenset[Modality] = frozenset({"image"})

    def __init__(self, seed: int, dim: int = 8) -> None:
        self.dim = dim
        self._matrix = rows(48, dim, seed) * np.float32(1 / 255)

    def embed(self, inputs: Batch) -> Embeddings:
        pixels = np.asarray(inputs).reshape(len(inputs), 48).astype(np.float32)
        embeddings: Embeddings = pixels @ self._matrix
        return embeddings


def images(labels: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """Return 4x4 images that are brighter in a quarter of their values for each label."""
    found = np.random.default_rng(seed).integers(0, 160, (len(labels), 48), np.uint8)
    for image, label in zip(found, labels, strict=True):
        image[12 * label : 12 * label + 12] += 60
    return found.reshape(-1, 4, 4, 3)


def task(name: str = "toy") -> Task:
    """A task of four classes."""
    train, test = np.arange(240) % 4, np.arange(120) % 4
    return Task(name, images(train, 1), train, images(test, 2), test)


VICTIM = Linear(5)


def test_recall_equals_a_full_sort() -> None:
    """The share of ten nearest others by cosine that both sides agree on."""
    one, other = rows(30), rows(30, 5, 1)
    shared = 0
    for at in range(30):
        sides = []
        for side in (one, other):
            near = {
                j: float(side[at] @ side[j] / np.linalg.norm(side[at]) / np.linalg.norm(side[j]))
                for j in range(30)
                if j != at
            }
            sides.append(set(sorted(near, key=lambda j: -near[j])[:10]))
        shared += len(sides[0] & sides[1])
    assert recall_at_10(one, other) == pytest.approx(shared / 300)


def test_recall_is_blind_to_turns_and_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotated, scaled copy has every neighbor; taking rows in pieces changes nothing."""
    one = rows(50)
    turn = np.linalg.qr(rows(8, 8, 2))[0]
    assert recall_at_10(one, 3 * one @ turn) == 1
    whole = recall_at_10(one, rows(50, 8, 3))
    monkeypatch.setattr(scoring, "_CHUNK", 7)
    assert recall_at_10(one, rows(50, 8, 3)) == whole < 0.5


def test_centered_cosine_equals_its_definition() -> None:
    """Mean cosine of corresponding rows after each side lost its own mean."""
    one, other = rows(20) + 5, rows(20, seed=1) - 9
    total = 0.0
    for a, b in zip(one - one.mean(axis=0), other - other.mean(axis=0), strict=True):
        total += float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert centered_cosine(one, other) == pytest.approx(total / 20, abs=1e-6)
    assert centered_cosine(one, 2 * one + 3) == pytest.approx(1)


def test_a_collapsed_copy_scores_nothing() -> None:
    """The same answer to everything is at cosine 0, and no warning comes of it."""
    assert centered_cosine(rows(20), np.zeros((20, 8), np.float32)) == 0
    assert recall_at_10(rows(60), np.zeros((60, 8), np.float32)) < 0.5


def test_agreement_counts_equal_places() -> None:
    """Three equal of four."""
    assert agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 0.75


def test_the_victim_agrees_with_itself() -> None:
    """Its own scores are the accuracy of its probe, and 1 everywhere else."""
    one = task()
    train, test = VICTIM.embed(one.train_inputs), VICTIM.embed(one.test_inputs)
    found = score(VICTIM, [task_reference(VICTIM, one)])
    right = linear_probe(train, one.train_labels, test) == one.test_labels
    near = knn200(train, one.train_labels, test) == one.test_labels
    assert found.accuracy == {"toy": pytest.approx(right.mean())}
    assert found.knn == {"toy": pytest.approx(near.mean())}
    assert (found.agreement, found.recall10) == ({"toy": 1.0}, 1.0)
    assert found.centered_cosine == pytest.approx(1)
    assert found.accuracy["toy"] > 0.6


def test_scores_are_means_over_references_and_named() -> None:
    """Recall and cosine average over tasks and unlabeled inputs; each figure has a name."""
    stranger = Linear(7)
    references = [
        task_reference(VICTIM, task("one")),
        input_reference(VICTIM, "held", images(np.arange(40) % 4, 3)),
    ]
    found = score(stranger, references)
    recalls = [recall_at_10(r.embeddings, stranger.embed(r.inputs)) for r in references]
    assert found.recall10 == pytest.approx(np.mean(recalls))
    assert set(found.named()) == {
        "accuracy.one",
        "knn.one",
        "agreement.one",
        "recall10",
        "centered_cosine",
    }
    assert found.named()["agreement.one"] == found.agreement["one"] < 1


def test_other_widths_have_no_cosine() -> None:
    """A copy of another width is scored all the same, without a cosine."""
    found = score(Linear(5, dim=6), [task_reference(VICTIM, task())])
    assert found.centered_cosine is None
    assert "centered_cosine" not in found.named()
    assert found.accuracy["toy"] > 0.5


def test_only_unlabeled_inputs_are_enough() -> None:
    """Without tasks there is recall, and fidelity is that."""
    found = score(Linear(7), [input_reference(VICTIM, "held", images(np.arange(40) % 4, 3))])
    assert found.accuracy == {}
    assert fidelity(found) == found.recall10


def test_fidelity_lies_between_untrained_and_victim() -> None:
    """Gains over the untrained network, summed over tasks, in parts of the victim's."""
    victim = Scores(accuracy={"a": 0.9, "b": 0.8})
    floor = Scores(accuracy={"a": 0.5, "b": 0.7})
    copy = Scores(accuracy={"b": 0.8, "a": 0.75})
    expected = ((0.75 - 0.5) + (0.8 - 0.7)) / ((0.9 - 0.5) + (0.8 - 0.7))
    assert fidelity(copy, victim=victim, untrained=floor) == pytest.approx(expected)
    assert fidelity(victim, victim=victim, untrained=floor) == pytest.approx(1)
    assert fidelity(floor, victim=victim, untrained=floor) == 0
    worse = Scores(accuracy={"a": 0.4, "b": 0.7})
    assert fidelity(worse, victim=victim, untrained=floor) == pytest.approx(-0.2)


def test_fidelity_needs_room_and_the_same_tasks() -> None:
    """A victim that is not better than the floor, or other tasks, is an error."""
    victim, copy = Scores(accuracy={"a": 0.5}), Scores(accuracy={"a": 0.4})
    with pytest.raises(BenchError, match="on a the victim is no better than an untrained"):
        fidelity(copy, victim=victim, untrained=victim)
    with pytest.raises(ConfigurationError, match="same tasks"):
        fidelity(copy, victim=Scores(accuracy={"b": 0.5}), untrained=copy)
    with pytest.raises(ConfigurationError, match="victim and of an untrained"):
        fidelity(copy, victim=victim)


def test_misfits_are_refused() -> None:
    """Too few inputs, different inputs, no reference and garbage end in one line."""
    with pytest.raises(ConfigurationError, match="more than 10 inputs"):
        recall_at_10(rows(10), rows(10))
    with pytest.raises(ConfigurationError, match="same inputs"):
        recall_at_10(rows(20), rows(21))
    with pytest.raises(ConfigurationError, match="one shape"):
        centered_cosine(rows(20), rows(20, 5))
    with pytest.raises(ConfigurationError, match="equal numbers of predictions"):
        agreement(np.zeros(3, np.int64), np.zeros(4, np.int64))
    with pytest.raises(ConfigurationError, match="at least one task"):
        score(VICTIM, [])


def test_a_copy_that_returns_nan_is_an_encoder_error() -> None:
    """NaN is refused before it can become an accuracy."""

    class Broken(Linear):
        def embed(self, inputs: Batch) -> Embeddings:
            return super().embed(inputs) * np.float32("nan")

    with pytest.raises(EncoderError, match="NaN"):
        score(Broken(1), [task_reference(VICTIM, task())])


def test_references_can_be_cut_down() -> None:
    """A reference without its task is scored as unlabeled inputs."""
    reference: Reference = task_reference(VICTIM, task())
    found = score(VICTIM, [replace(reference, task=None)])
    assert (found.accuracy, found.recall10) == ({}, 1.0)
