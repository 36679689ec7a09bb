"""Medians, ratios and bootstrap intervals."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.bench.stats import bootstrap_median, paired_ratios, ratio_metric, spread

positive = st.floats(1e-3, 1e3)


def test_ratios_are_pairwise() -> None:
    """Each repetition gives its own ratio."""
    assert paired_ratios([2.0, 9.0], [1.0, 3.0]).tolist() == [2.0, 3.0]


@pytest.mark.parametrize(("top", "bottom"), [([1.0], [1.0, 2.0]), ([], []), ([1.0], [0.0])])
def test_ratios_refuse_what_has_no_answer(top: list[float], bottom: list[float]) -> None:
    """Unequal lengths, nothing at all and a zero denominator are refused."""
    with pytest.raises(ValueError, match="expected"):
        paired_ratios(top, bottom)


@given(st.lists(positive, min_size=1, max_size=30), st.integers(0, 9))
def test_interval_holds_the_median_and_stays_in_range(samples: list[float], seed: int) -> None:
    """The interval contains the median and lies within the samples."""
    low, high = bootstrap_median(samples, rng=np.random.default_rng(seed))
    assert min(samples) <= low <= statistics.median(samples) <= high <= max(samples)


def test_interval_covers_the_true_median() -> None:
    """Of 200 intervals over 25 log-normal samples, about 95% hold the true median."""
    rng = np.random.default_rng(0)
    intervals = [bootstrap_median(rng.lognormal(size=25), rng=rng) for _ in range(200)]
    covering = sum(low <= 1.0 <= high for low, high in intervals)
    # Three standard errors of a 95% interval over 200 trials are 4.6 points.
    assert 180 <= covering <= 200


def test_interval_agrees_with_a_slow_oracle() -> None:
    """The vectorized bootstrap equals resampling one by one with the same draws."""
    samples = np.random.default_rng(1).standard_normal(7)
    low, high = bootstrap_median(samples, rng=np.random.default_rng(2))
    picks = np.random.default_rng(2).integers(0, 7, size=(2000, 7))
    medians = sorted(statistics.median(samples[i] for i in row) for row in picks)
    assert (low, high) == pytest.approx((np.quantile(medians, 0.025), np.quantile(medians, 0.975)))


def test_ratio_metric_reports_the_median_ratio() -> None:
    """One slow pair does not move the value, only the interval."""
    rng = np.random.default_rng(3)
    metric = ratio_metric([2, 2, 20], [1, 1, 1], direction="lower", tolerance=0.1, rng=rng)
    assert (metric.value, metric.unit, metric.direction) == (2.0, "ratio", "lower")
    assert metric.interval == (2.0, 20.0)


def test_spread_names_percentiles() -> None:
    """The spread of 0..100 is its own percentiles."""
    assert spread(range(101)) == {"p5": 5.0, "p50": 50.0, "p95": 95.0}
