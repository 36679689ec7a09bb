"""Cost-fidelity curves: one point a budget, several seeds a point.

How an interval is stated depends on how many seeds there are:

- fewer than three: none is claimed (three is the least that our rules of evidence allow);
- three or four: the range of the values. The percentile bootstrap of so few values is
  hardly more than their range, and would pretend to a level that it does not have. For
  symmetric errors the range holds the true mean in 75% and 87.5% of experiments;
- five and more: the 95% percentile bootstrap of the mean (Efron and Tibshirani, An
  Introduction to the Bootstrap, 1993, chapter 13). It is too narrow for few values: for
  normal errors it holds the true mean in about 83% of experiments with five seeds and
  about 90% with ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tollkeeper.bench.experiment import Direction, Metric
from tollkeeper.bench.stats import RESAMPLES
from tollkeeper.errors import ConfigurationError

LEAST_SEEDS = 3
_BOOTSTRAP_FROM = 5


@dataclass(frozen=True, slots=True)
class Point:
    """What one budget bought.

    Attributes:
        budget: distinct queries, over all accounts.
        values: one a seed, at least one; equal places of two points are the same seed.
    """

    budget: int
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a point of nothing.

        Raises:
            ConfigurationError: no value.
        """
        if not self.values:
            raise ConfigurationError(f"expected a value at budget {self.budget:,}, got none")

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.values))

    def interval(self, *, rng: np.random.Generator) -> tuple[float, float] | None:
        """Return (low, high) around the mean as this module says, or None; `rng` resamples."""
        return mean_interval(self.values, rng=rng)

    def metric(
        self,
        unit: str,
        direction: Direction,
        *,
        rng: np.random.Generator,
        tolerance: float = 0.0,
    ) -> Metric:
        """Return the mean with its interval as a metric; the arguments are `Metric`'s."""
        return Metric(self.mean, unit, direction, self.interval(rng=rng), tolerance)


def curve(found: Iterable[tuple[int, float]]) -> tuple[Point, ...]:
    """Gather (budget, value) pairs into points by rising budget, values in the order given."""
    values: dict[int, list[float]] = {}
    for budget, value in found:
        values.setdefault(budget, []).append(value)
    return tuple(Point(budget, tuple(values[budget])) for budget in sorted(values))


def mean_interval(
    values: Sequence[float], *, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Return an interval for the mean of values over seeds, as this module says."""
    if len(values) < LEAST_SEEDS:
        return None
    if len(values) < _BOOTSTRAP_FROM:
        return float(min(values)), float(max(values))
    sample = np.asarray(values, np.float64)
    drawn = sample[rng.integers(0, sample.size, size=(RESAMPLES, sample.size))]
    low, high = np.quantile(drawn.mean(axis=1), (0.025, 0.975))
    return float(low), float(high)
