"""The Shapiro-Wilk statistic."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.detectors.shapiro import shapiro_w
from tollkeeper.errors import DetectorError

SIZES = (3, 4, 5, 6, 7, 8, 10, 11, 12, 25, 50, 101, 102, 500, 1001, 4999)


@pytest.mark.parametrize("size", SIZES)
def test_it_is_scipys(size: int) -> None:
    """W agrees with scipy to 1e-6 for normal, skewed, heavy and tied samples."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(size)
    for sample in (
        rng.normal(5, 2, size),
        rng.exponential(1e-3, size),
        rng.standard_cauchy(size),
        np.append(rng.integers(0, 3, size - 2), [0, 3]).astype(float),
        rng.uniform(1e6, 1e6 + 1, size),
    ):
        assert shapiro_w(sample) == pytest.approx(stats.shapiro(sample).statistic, abs=1e-6)


def test_order_place_and_scale_do_not_matter() -> None:
    """W is of the sample's shape only."""
    sample = np.random.default_rng(0).gamma(2, size=200)
    assert shapiro_w(sample[::-1]) == shapiro_w(sample)
    assert shapiro_w(3 * sample + 7) == pytest.approx(shapiro_w(sample), abs=1e-12)


def test_normal_is_near_one_and_two_heaps_are_not() -> None:
    """The statistic says what it is for."""
    rng = np.random.default_rng(0)
    assert shapiro_w(rng.normal(size=500)) > 0.99
    assert shapiro_w(np.repeat([0.0, 1.0], 100) + rng.normal(0, 0.01, 200)) < 0.7
    assert shapiro_w(np.full(10, 3.0)) == 1


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2.0, np.nan]])
def test_too_little_is_refused(values: list[float]) -> None:
    """Two values and missing ones have no W."""
    with pytest.raises(DetectorError, match="at least 3 finite"):
        shapiro_w(np.array(values))
