"""The linear probe and the nearest neighbors, against slow oracles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from tollkeeper.bench.theft import probes
from tollkeeper.bench.theft.probes import knn200, linear_probe, standardized, unit
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Embeddings

Labels = probes.Labels


def blobs(
    n: int, *, classes: int = 3, dim: int = 6, spread: float = 1.5
) -> tuple[Embeddings, Labels]:
    """Return rows around one center a class, and their classes."""
    rng = np.random.default_rng(n)
    centers = np.random.default_rng(99).standard_normal((classes, dim))
    labels = rng.integers(0, classes, n)
    rows = centers[labels] + spread * rng.standard_normal((n, dim))
    return (5 * rows + 40).astype(np.float32), labels


def oracle_regression(
    train: Embeddings, labels: Labels, test: Embeddings, strength: float
) -> Labels:
    """Multinomial logistic regression by a general minimizer, written out in loops."""
    classes = sorted(set(labels.tolist()))
    dim = train.shape[1]

    def loss(flat: np.ndarray) -> float:
        weights = flat.reshape(len(classes), dim + 1)
        total = 0.5 * float((weights[:, :dim] ** 2).sum())
        for row, label in zip(train, labels, strict=True):
            scores = [float(w[:dim] @ row + w[dim]) for w in weights]
            top = max(scores)
            log_sum = top + float(np.log(sum(np.exp(s - top) for s in scores)))
            total += strength * (log_sum - scores[classes.index(int(label))])
        return total

    best = minimize(loss, np.zeros(len(classes) * (dim + 1)), method="L-BFGS-B").x
    weights = best.reshape(len(classes), dim + 1)
    return np.array(
        [classes[int(np.argmax(weights[:, :dim] @ row + weights[:, dim]))] for row in test]
    )


def test_probe_is_the_regularized_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one strength to choose from, predictions equal those of a general minimizer."""
    monkeypatch.setattr(probes, "STRENGTHS", (0.1,))
    train, labels = blobs(40, dim=3)
    test, _ = blobs(200, dim=3)
    fit, held = standardized(train, test)
    expected = oracle_regression(fit.astype(np.float64), labels, held, 0.1)
    assert np.mean(linear_probe(train, labels, test) == expected) > 0.98


def test_probe_chooses_the_best_held_out_strength() -> None:
    """The strength in use is the one with the best accuracy on every fifth row of a class."""
    from sklearn.linear_model import LogisticRegression

    train, labels = blobs(300, dim=40, spread=4)
    fit, _ = standardized(train, train[:1])
    held = np.zeros(300, bool)
    for label in range(3):
        held[[at for at in range(300) if labels[at] == label][4::5]] = True
    accuracy = [
        LogisticRegression(C=strength, max_iter=2000)
        .fit(fit[~held], labels[~held])
        .score(fit[held], labels[held])
        for strength in probes.STRENGTHS
    ]
    assert probes._strength(fit, labels) == probes.STRENGTHS[int(np.argmax(accuracy))]
    assert len(set(accuracy)) > 1


def test_probe_never_sees_the_other_test_inputs() -> None:
    """A test input's prediction does not depend on the rest of the test part."""
    train, labels = blobs(100)
    test, _ = blobs(30)
    whole = linear_probe(train, labels, test)
    np.testing.assert_array_equal(linear_probe(train, labels, test[:1]), whole[:1])


def test_probe_survives_constant_and_huge_coordinates() -> None:
    """Dead coordinates count for nothing, and scale does not matter."""
    train, labels = blobs(200)
    test, truth = blobs(300)
    plain = linear_probe(train, labels, test)
    dead = np.full((len(train), 2), 7.7, np.float32)
    both = np.hstack([1e6 * train, dead]), np.hstack([1e6 * test, 9 * dead[:1].repeat(300, 0)])
    assert np.mean(linear_probe(both[0], labels, both[1]) == plain) > 0.98
    assert np.mean(plain == truth) > 0.5


def test_classes_too_small_to_hold_out_are_fitted_whole() -> None:
    """With four rows a class nothing is held out, and the probe still works."""
    train = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    labels = np.repeat([0, 5, 9], 4)
    np.testing.assert_array_equal(
        linear_probe(train, labels, np.eye(3, dtype=np.float32)), [0, 5, 9]
    )


@pytest.mark.parametrize("count", [40, 450])
def test_neighbors_vote_as_written_down(count: int) -> None:
    """Each test input gets the class with the largest sum of exp(cosine / 0.5) over 200."""
    train, labels = blobs(count)
    train -= 40
    test = blobs(60)[0] - 40
    expected = []
    for row in test:
        cosines = [float(row @ x / np.linalg.norm(row) / np.linalg.norm(x)) for x in train]
        nearest = sorted(range(count), key=lambda at: -cosines[at])[:200]
        votes = dict.fromkeys(range(3), 0.0)
        for at in nearest:
            votes[int(labels[at])] += float(np.exp(cosines[at] / 0.5))
        expected.append(max(votes, key=votes.__getitem__))
    np.testing.assert_array_equal(knn200(train, labels, test), expected)


def test_many_test_inputs_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces that bound memory do not change a prediction."""
    train, labels = blobs(300)
    test, _ = blobs(50)
    whole = knn200(train, labels, test)
    monkeypatch.setattr(probes, "_CHUNK", 7)
    np.testing.assert_array_equal(knn200(train, labels, test), whole)


def test_unit_rows_have_length_one_and_zeros_stay() -> None:
    """Only rows of zeros are not scaled."""
    rows = np.array([[3, 4], [0, 0], [1e-10, 0]], np.float32)
    expected = np.array([[0.6, 0.8], [0, 0], [1, 0]])
    np.testing.assert_allclose(unit(rows), expected, rtol=1e-6)


def test_misfits_are_refused() -> None:
    """Wrong shapes and a single class end in one line."""
    train, labels = blobs(20)
    for probe in (linear_probe, knn200):
        with pytest.raises(ConfigurationError, match=r"labels \(n,\), got \(20, 6\) and \(19,\)"):
            probe(train, labels[1:], train)
        with pytest.raises(ConfigurationError, match=r"test embeddings \(m, 6\)"):
            probe(train, labels, train[:, 1:])
    with pytest.raises(ConfigurationError, match="two classes"):
        linear_probe(train, np.zeros(20, np.int64), train)
