"""Tests of what detectors and copies are measured by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tollkeeper.bench.predict.metrics import (
    FIGURES,
    accuracy,
    agreement,
    divergence,
    figures,
)

interpolate = pytest.importorskip("scipy.interpolate")
metrics = pytest.importorskip("sklearn.metrics")


def _scores(seed: int, n: int, m: int, levels: int) -> tuple[NDArray[np.float64], ...]:
    """Return honest and malicious scores, with ties where there are few levels."""
    rng = np.random.default_rng(seed)
    return tuple(
        np.round(rng.normal(shift, 1, size) * levels) / levels for shift, size in ((0, n), (1, m))
    )


def _published(honest: NDArray[np.float64], malicious: NDArray[np.float64]) -> dict[str, float]:
    """Return the figures as SAME's code computes them, with scikit-learn and SciPy."""
    wanted = np.r_[np.zeros(len(honest)), np.ones(len(malicious))]
    scores = np.r_[honest, malicious]
    fpr, tpr, _ = metrics.roc_curve(wanted, scores)
    precision, recall, _ = metrics.precision_recall_curve(wanted, scores)
    crossed = interpolate.interp1d(tpr, fpr)
    return {
        "auroc": metrics.auc(fpr, tpr),
        "aupr": metrics.auc(recall, precision),
        "average_precision": metrics.average_precision_score(wanted, scores),
        "fpr95": float(crossed(0.95)),
        "fpr90": float(crossed(0.90)),
        "tpr_at_1pct": tpr[fpr <= 0.01].max(),
        "tpr_at_01pct": tpr[fpr <= 0.001].max(),
    }


@given(
    st.integers(0, 2**31),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from((1, 3, 10**6)),
)
def test_figures_are_those_of_the_published_code(seed: int, n: int, m: int, levels: int) -> None:
    """For any number of scores, with ties and without."""
    honest, malicious = _scores(seed, n, m, levels)
    expected = _published(honest, malicious)
    found = figures(honest, malicious)
    assert tuple(found) == FIGURES
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_constant_scorer_gets_what_chance_gets() -> None:
    """Except by the published AUPR, which gives it three quarters."""
    found = figures(np.ones(1000), np.ones(1000))
    assert (found["auroc"], found["aupr"], found["average_precision"]) == (0.5, 0.75, 0.5)
    assert found["fpr95"] == pytest.approx(0.95)
    assert found["tpr_at_1pct"] == 0


def test_the_same_scores_on_both_sides_are_chance() -> None:
    """Identical sets of distinct scores give 50.0, 50.0 and 95.0 percent."""
    scores = np.random.default_rng(0).permutation(1000).astype(float)
    found = figures(scores, scores)
    assert found["auroc"] == pytest.approx(0.5, abs=5e-4)
    assert found["aupr"] == pytest.approx(0.5, abs=5e-4)
    assert found["fpr95"] == pytest.approx(0.95)
    assert found["tpr_at_1pct"] == pytest.approx(0.01)


def test_perfect_scores_are_perfect() -> None:
    """And reversed ones the opposite."""
    low, high = np.arange(100.0), np.arange(100.0) + 200
    best, worst = figures(low, high), figures(high, low)
    assert list(best.values()) == [1, 1, 1, 0, 0, 1, 1]
    assert (worst["auroc"], worst["fpr95"], worst["tpr_at_1pct"]) == (0, 1, 0)


def test_fpr95_comes_in_steps_of_one_query() -> None:
    """With 1,000 honest queries and a TPR that is met exactly it is a multiple of .1 percent."""
    honest, malicious = _scores(1, 1000, 1000, 10**6)
    thousandths = 1000 * figures(honest, malicious)["fpr95"]
    assert thousandths == pytest.approx(round(thousandths), abs=1e-6)
    assert 0 < thousandths < 1000


def test_of_a_tpr_with_several_fprs_the_most_counts() -> None:
    """Honest scores between the 19th and the 20th of 20 malicious ones count, as in SciPy."""
    malicious = np.arange(20.0) + 10
    honest = np.array([10.5, 10.6, 25.0, 0.0])
    assert figures(honest, malicious)["fpr95"] == pytest.approx(0.75)


@pytest.mark.parametrize("bad", [[], [np.nan, 1.0], [[1.0]]])
def test_scores_that_are_none_are_refused(bad: list[float]) -> None:
    """Both lists must hold numbers."""
    with pytest.raises(ValueError, match="one or more malicious scores"):
        figures(np.ones(3), np.array(bad, np.float64))


def test_copies_are_measured_on_their_answers() -> None:
    """Accuracy against labels, agreement and divergence against the victim."""
    victim = np.array([[0.7, 0.3], [0.2, 0.8], [1.0, 0.0]], np.float32)
    copy = np.array([[0.6, 0.4], [0.6, 0.4], [1.0, 0.0]], np.float32)
    assert accuracy(copy, np.array([0, 0, 1])) == pytest.approx(2 / 3)
    assert agreement(victim, copy) == pytest.approx(2 / 3)
    expected = 0.7 * np.log(7 / 6) + 0.3 * np.log(3 / 4) + 0.2 * np.log(1 / 3) + 0.8 * np.log(2)
    assert divergence(victim, copy) == pytest.approx(expected / 3, rel=1e-5)
    assert divergence(victim, victim) == pytest.approx(0, abs=1e-6)
    assert divergence(victim[2:], 1 - copy[2:]) == pytest.approx(-np.log(1e-12))
