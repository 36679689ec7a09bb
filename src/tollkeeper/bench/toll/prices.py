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

CEILING_AT = 2500
"""Queries after which split votes pay the ceiling, as by the reference's MNIST constants: there
they cost 0.6886 each, honest users 0.2587, and 1.0075 ** 1069 is 2,948."""

_POINTS = 100
"""Points that a line is fitted to; those of the reference are one a row."""


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
    """Both rules, calibrated on one honest user.

    Attributes:
        meter: of votes.
        reference: price in seconds by the sum of converted costs, two-sided.
        ours: price in batches of service by the composed cost, one-sided.
    """

    meter: Meter
    reference: ExcessPrice
    ours: ExcessPrice

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
    honest: NDArray[np.int64], meter: Meter, *, unit: float, ceiling_at: int = CEILING_AT
) -> Rules:
    """Fit both rules to an honest user's votes.

    The base of ours follows from the meter and the honest line, not from what thieves do.

    Args:
        honest: (n, 10) votes on an honest user's queries.
        meter: of votes.
        unit: batches of service that a batch pays without excess.
        ceiling_at: queries after which an account whose votes are all split pays the ceiling.
    """
    split = np.full((ceiling_at, honest.shape[1]), honest[0].sum() // honest.shape[1])
    line = _fit(meter.composed(honest))
    excess = float(meter.composed(split)[-1]) - line.expected(ceiling_at)
    base = base_reaching(CEILING / unit, excess=excess)
    ours = ExcessPrice(line, base=base, floor_s=0.0, ceiling_s=CEILING, unit_s=unit)
    costs = _fit(np.cumsum(meter.each(honest)))
    return Rules(meter, ExcessPrice(costs, one_sided=False, ceiling_s=CEILING), ours)


def _fit(costs: NDArray[np.float64]) -> HonestFit:
    """Fit a line to a cumulative cost at equal steps."""
    counts = np.unique(np.linspace(1, len(costs), _POINTS).astype(int))
    return HonestFit.fit((float(n), float(costs[n - 1])) for n in counts)
