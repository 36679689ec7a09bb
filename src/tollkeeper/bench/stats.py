"""Medians of paired ratios and their bootstrap intervals; no scipy needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.bench.experiment import Direction, Metric

RESAMPLES = 2000
"""Enough for a 95% percentile interval to be stable in its second digit (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3 asks for at least 1,000)."""


def paired_ratios(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
    """Return element-wise ratios of measurements taken side by side.

    Pairing cancels what slows both down at once, such as a busy neighbor.

    Args:
        numerator: (r,) positive values of r repetitions.
        denominator: (r,) positive values of the same repetitions.

    Returns:
        (r,) float64.

    Raises:
        ValueError: the lengths differ, or a denominator is not positive.
    """
    top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if top.shape != bottom.shape or top.ndim != 1 or top.size == 0:
        raise ValueError(f"expected two equal, non-empty lists, got {top.shape}, {bottom.shape}")
    if not (bottom > 0).all():
        raise ValueError("expected positive denominators; is the clock too coarse?")
    return top / bottom


def bootstrap_median(samples: ArrayLike, *, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the median.

    Args:
        samples: (r,) values, r >= 1.
        rng: draws the resamples.

    Returns:
        (low, high), low <= median <= high.
    """
    values = np.asarray(samples, np.float64)
    drawn = values[rng.integers(0, values.size, size=(RESAMPLES, values.size))]
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    # With very few samples the percentile interval can miss the median it is about.
    middle = float(np.median(values))
    return min(float(low), middle), max(float(high), middle)


def ratio_metric(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    direction: Direction,
    tolerance: float,
    rng: np.random.Generator,
) -> Metric:
    """Return the median of paired ratios with its interval as a metric.

    Args:
        numerator: (r,) measurements.
        denominator: (r,) measurements of the same repetitions.
        direction: which way is better.
        tolerance: relative change between runs that means nothing.
        rng: draws the bootstrap.
    """
    ratios = paired_ratios(numerator, denominator)
    return Metric(
        value=float(np.median(ratios)),
        unit="ratio",
        direction=direction,
        interval=bootstrap_median(ratios, rng=rng),
        tolerance=tolerance,
    )


def spread(samples: ArrayLike) -> dict[str, float]:
    """Return the 5th, 50th and 95th percentile of repeated measurements, by name."""
    low, middle, high = np.quantile(np.asarray(samples, np.float64), (0.05, 0.5, 0.95))
    return {"p5": float(low), "p50": float(middle), "p95": float(high)}
