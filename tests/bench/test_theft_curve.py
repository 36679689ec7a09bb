"""Points of a curve: means, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.bench.experiment import Metric
from tollkeeper.bench.theft.curve import Point, curve, mean_interval
from tollkeeper.errors import ConfigurationError


def rng(seed: int = 0) -> np.random.Generator:
    """Return a fresh generator."""
    return np.random.default_rng(seed)


def test_pairs_gather_into_rising_points() -> None:
    """Values of one budget keep their order, whatever the order of budgets."""
    found = curve([(1000, 0.5), (100, 0.1), (1000, 0.7), (100, 0.2)])
    assert found == (Point(100, (0.1, 0.2)), Point(1000, (0.5, 0.7)))
    assert found[1].mean == pytest.approx(0.6)


def test_one_or_two_seeds_claim_no_interval() -> None:
    """A metric of one or two seeds has none."""
    assert Point(10, (0.5,)).interval(rng=rng()) is None
    assert Point(10, (0.5, 0.6)).metric("share", "higher", rng=rng()).interval is None


def test_three_and_four_seeds_show_their_range() -> None:
    """The interval is the smallest and the largest value."""
    assert Point(10, (0.5, 0.1, 0.9)).interval(rng=rng()) == (0.1, 0.9)
    assert mean_interval([4, 1, 2, 2], rng=rng()) == (1, 4)


def test_five_seeds_are_bootstrapped() -> None:
    """The interval holds 95% of the means of resamples, all of which are enumerated here."""
    values = (0.1, 0.2, 0.4, 0.4, 0.9)
    means = np.array([np.mean([values[i] for i in at]) for at in np.ndindex(5, 5, 5, 5, 5)])
    low, high = np.quantile(means, (0.025, 0.975))
    found = mean_interval(values, rng=rng())
    assert found == pytest.approx((low, high), abs=0.02)
    assert found == mean_interval(values, rng=rng())


@pytest.mark.parametrize(("seeds", "promised"), [(3, 0.75), (4, 0.875), (5, 0.83), (10, 0.90)])
def test_intervals_hold_the_mean_as_often_as_stated(seeds: int, promised: float) -> None:
    """Over many experiments with normal errors the documented level is right to 5 points."""
    draw, runs = rng(1), 500
    hits = 0
    for _ in range(runs):
        found = mean_interval(draw.standard_normal(seeds).tolist(), rng=draw)
        assert found is not None
        hits += found[0] <= 0 <= found[1]
    # The standard error of a share of 500 is below 2 points.
    assert hits / runs == pytest.approx(promised, abs=0.05)


def test_a_point_becomes_a_metric() -> None:
    """Mean, unit, direction, interval and tolerance arrive."""
    metric = Point(10, (1.0, 2.0, 6.0)).metric("share", "lower", rng=rng(), tolerance=0.1)
    assert metric == Metric(3.0, "share", "lower", (1.0, 6.0), 0.1)


def test_a_point_of_nothing_is_refused() -> None:
    """No seed, no point."""
    with pytest.raises(ConfigurationError, match=r"budget 1,000, got none"):
        Point(1000, ())
