"""What a stream of queries pays, by the reference's rule and by ours.

All prices are in batches of service: what answering 64 inputs takes. All rules have one ceiling,
and are compared at one unit; `published` is the reference's rule at its own. A ratio is time with
puzzles over time without, over the whole stream, so it is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from tollkeeper.challenge.difficulty import ExcessPrice, HonestCurve, HonestFit, base_reaching
from tollkeeper.challenge.leakage import Leakage, converted_each

BATCH = 64
ROW = 1000
"""Queries of one row of the reference's logs; its evaluation asks one puzzle a row."""

SECOND = 1 / 0.46
"""Batches of service in a second of the reference's: a batch of 64 took 0.46 s in its MNIST log,
7.36 s for 16 batches. Its constants are seconds whatever the model."""

CEILING = 2948 * SECOND
"""Most that a batch pays by every rule: the reference's 2,948 s, 6,409 batches of service."""

_HONEST = 20
"""Honest users of a calibration."""

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

    def by_accounts(
        self, votes: NDArray[np.int64], accounts: int, *, pooled: bool
    ) -> Iterator[tuple[int, float]]:
        """Yield queries and leakage that each query is priced by, where accounts take turns.

        Args:
            votes: (n, 10) of the whole stream, in order.
            accounts: that ask a batch each in turn.
            pooled: priced by what all of them were told, and not by their own.
        """
        states = [Leakage(self.sigma)] * accounts
        for number, start in enumerate(range(0, len(votes), BATCH)):
            turn, part = number % accounts, votes[start : start + BATCH]
            known = reduce(Leakage.merge, states) if pooled else states[turn]
            spent = known.walk(part, delta=self.delta)
            yield from enumerate(map(float, spent), start=known.queries + 1)
            states[turn] = states[turn].after(part)


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules, calibrated on the same honest users; prices in batches of service.

    Attributes:
        meter: of votes.
        ours: by the composed cost above the curve of honest users.
        line: as ours, above their line.
        reference: by the sum of converted costs, two-sided, at our unit.
        published: likewise, at 1 s of its own.
        excess: the most that an honest user of the calibration was above the curve.
    """

    meter: Meter
    ours: ExcessPrice
    line: ExcessPrice
    reference: ExcessPrice
    published: ExcessPrice
    excess: float

    def inputs(
        self,
        votes: NDArray[np.int64],
        *,
        rule: ExcessPrice | None = None,
        accounts: int = 1,
        pooled: bool = False,
    ) -> NDArray[np.float64]:
        """Return (n,) what a batch like each input pays by a rule on composed cost, ours if none."""
        price = rule or self.ours
        walked = self.meter.by_accounts(votes, accounts, pooled=pooled)
        return np.array([price(queries, cost) for queries, cost in walked])

    def batches(
        self,
        votes: NDArray[np.int64],
        *,
        rule: ExcessPrice | None = None,
        accounts: int = 1,
        unit: int = BATCH,
    ) -> NDArray[np.float64]:
        """Return what each puzzle costs by a rule on summed cost, the reference's if none.

        Args:
            votes: (n, 10) of the stream.
            rule: of a price.
            accounts: that share the stream, each counted by itself.
            unit: queries after which there is one puzzle.
        """
        price, paid = rule or self.reference, []
        for mine in np.array_split(self.meter.each(votes), accounts):
            costs = np.cumsum(mine)
            ends = range(unit, len(costs) + 1, unit)
            paid += [price(end, costs[end - 1]) for end in ends]
        return np.array(paid)


def ratio(paid: NDArray[np.float64], *, unit: int = BATCH) -> float:
    """Return how much longer a stream takes at a mean price for every `unit` queries."""
    return 1 + float(paid.mean()) * BATCH / unit


def figures(votes: NDArray[np.int64], rules: Rules) -> dict[str, float]:
    """Return what a stream leaked, what it pays and how much longer it takes."""
    row = min(ROW, len(votes))
    ours, reference = rules.inputs(votes), rules.batches(votes)
    published = rules.batches(votes, rule=rules.published)
    by_row = rules.batches(votes, rule=rules.published, unit=row)
    return {
        "queries": len(votes),
        "cost_per_query": float(rules.meter.each(votes).mean()),
        "leakage": float(rules.meter.composed(votes)[-1]),
        "time_ratio": ratio(ours),
        "time_ratio_line": ratio(rules.inputs(votes, rule=rules.line)),
        "time_ratio_reference": ratio(reference),
        "time_ratio_published": ratio(published),
        "time_ratio_published_row": ratio(by_row, unit=row),
        "median_price": float(np.median(ours)),
        "median_price_reference": float(np.median(reference)),
        "at_ceiling": _at_ceiling(ours),
        "at_ceiling_reference": _at_ceiling(reference),
    }


def split_figures(votes: NDArray[np.int64], rules: Rules, accounts: int) -> dict[str, float]:
    """Return how much longer the stream takes over several accounts that are not pooled."""
    return {
        "time_ratio": ratio(rules.inputs(votes, accounts=accounts)),
        "time_ratio_line": ratio(rules.inputs(votes, rule=rules.line, accounts=accounts)),
        "time_ratio_reference": ratio(rules.batches(votes, accounts=accounts)),
    }


def _at_ceiling(paid: NDArray[np.float64]) -> float:
    return float((paid > CEILING * (1 - 1e-9)).mean())


def calibrate(
    honest: NDArray[np.int64], meter: Meter, *, unit: float, rng: np.random.Generator
) -> Rules:
    """Fit all rules to what honest users ask.

    Honest users are drawn from the queries with replacement, so that they differ at the end too.
    The base of ours follows from them alone: the most that any of them is above the curve costs it
    twice the unit.

    Args:
        honest: (n, 10) votes on honest queries.
        meter: of votes.
        unit: batches of service that a batch pays without excess.
        rng: draws the users.
    """
    users = [honest[rng.integers(len(honest), size=len(honest))] for _ in range(_HONEST)]
    composed = [meter.composed(votes) for votes in users]
    powers = [2**n for n in range(len(honest).bit_length())]
    counts = sorted({*powers, len(honest)})
    curve = HonestCurve.fit((float(n), float(spent[n - 1])) for spent in composed for n in counts)
    line = _fit(composed)
    summed = _fit([np.cumsum(meter.each(votes)) for votes in users])
    return Rules(
        meter,
        ours=_one_sided(curve, composed, unit),
        line=_one_sided(line, composed, unit),
        reference=ExcessPrice(summed, one_sided=False, floor_s=0.0, ceiling_s=CEILING, unit_s=unit),
        published=ExcessPrice(
            summed, one_sided=False, floor_s=0.1 * SECOND, ceiling_s=CEILING, unit_s=SECOND
        ),
        excess=_most_above(curve, composed),
    )


def _one_sided(
    fit: HonestFit | HonestCurve, users: list[NDArray[np.float64]], unit: float
) -> ExcessPrice:
    """Return the price that doubles at the most that a user is above a fit."""
    base = base_reaching(2, excess=_most_above(fit, users))
    return ExcessPrice(fit, base=base, floor_s=0.0, ceiling_s=CEILING, unit_s=unit)


def _most_above(fit: HonestFit | HonestCurve, users: list[NDArray[np.float64]]) -> float:
    expected = np.array([fit.expected(n) for n in range(1, len(users[0]) + 1)])
    return float(np.max([(spent - expected).max() for spent in users]))


def _fit(users: list[NDArray[np.float64]]) -> HonestFit:
    """Fit a line to users' cumulative costs at equal steps."""
    counts = np.unique(np.linspace(1, len(users[0]), _POINTS).astype(int))
    return HonestFit.fit((float(n), float(costs[n - 1])) for costs in users for n in counts)
