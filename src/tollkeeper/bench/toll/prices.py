"""What a stream of queries pays, by the reference's rule and by ours.

Both compare time with puzzles to time without: (service + puzzles) / service, over the whole
stream. The reference's prices are seconds, beside the 0.46 s that a batch took in its own logs;
ours are in units of what a batch takes to serve, so the ratio is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.challenge.difficulty import ExcessPrice, HonestFit, base_reaching
from tollkeeper.challenge.leakage import Leakage, converted_each

BATCH = 64
ROW = 1000
"""Queries of one row of the reference's logs; its evaluation asks one puzzle a row."""

REFERENCE_SERVICE_S = 0.46
"""Seconds of a batch of 64 in the reference's MNIST log: 7.36 s for 16 batches."""

CEILING = 2948.0
"""Most that a batch pays: in seconds by the reference's rule, in batches of service by ours."""

_HONEST = 5
"""Orders of the honest queries."""

_POINTS = 100
"""Points of a user that a line is fitted to; those of the reference are one a row."""


@dataclass(frozen=True, slots=True)
class Meter:
    """How votes become a cost.

    Attributes:
        sigma: noise of the vote.
        delta: δ of the conversion.
    """

    sigma: float
    delta: float

    def each(self, votes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n,) the cost of each query by itself, whose sum is the reference's meter."""
        return converted_each(votes, sigma=self.sigma, delta=self.delta)

    def composed(self, votes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n,) what the account has leaked after each query."""
        return Leakage(self.sigma).walk(votes, delta=self.delta)


@dataclass(frozen=True, slots=True)
class Rules:
    """Both rules, calibrated on honest users.

    Attributes:
        meter: of votes.
        reference: price in seconds by the sum of converted costs, two-sided.
        ours: price in batches of service by the composed cost, one-sided.
        honest_excess: the most that an honest user of the calibration was above its line.
    """

    meter: Meter
    reference: ExcessPrice
    ours: ExcessPrice
    honest_excess: float

    def reference_ratio(self, votes: NDArray[np.int64], *, unit: int) -> float:
        """Return how much longer a stream takes with one puzzle after every `unit` queries."""
        costs = np.cumsum(self.meter.each(votes))
        ends = range(unit, len(costs) + 1, unit)
        paid = [self.reference(end, costs[end - 1]) for end in ends]
        return 1 + float(np.mean(paid)) / (REFERENCE_SERVICE_S * unit / BATCH)

    def ratio(self, votes: NDArray[np.int64]) -> float:
        """Return how much longer a stream takes where each input pays its part of a batch."""
        spent = self.meter.composed(votes)
        return 1 + float(np.mean([self.ours(n, cost) for n, cost in enumerate(spent, start=1)]))


def calibrate(
    honest: NDArray[np.int64], meter: Meter, *, unit: float, rng: np.random.Generator
) -> Rules:
    """Fit both rules to what honest users ask.

    Honest users are the same queries in several orders. The base of ours follows from them alone:
    the most that any of them is above the line costs it twice the unit.

    Args:
        honest: (n, 10) votes on honest queries.
        meter: of votes.
        unit: batches of service that a batch pays without excess.
        rng: draws the orders.
    """
    users = [honest[rng.permutation(len(honest))] for _ in range(_HONEST)]
    composed = [meter.composed(votes) for votes in users]
    line = _fit(composed)
    expected = line.slope * np.arange(1, len(honest) + 1) + line.intercept
    excess = float(np.max([(spent - expected).max() for spent in composed]))
    base = base_reaching(2, excess=excess)
    ours = ExcessPrice(line, base=base, floor_s=0.0, ceiling_s=CEILING, unit_s=unit)
    summed = _fit([np.cumsum(meter.each(votes)) for votes in users])
    reference = ExcessPrice(summed, one_sided=False, ceiling_s=CEILING)
    return Rules(meter, reference, ours, excess)


def _fit(users: list[NDArray[np.float64]]) -> HonestFit:
    """Fit a line to users' cumulative costs at equal steps."""
    counts = np.unique(np.linspace(1, len(users[0]), _POINTS).astype(int))
    return HonestFit.fit((float(n), float(costs[n - 1])) for costs in users for n in counts)
