"""How hard a puzzle is: from a detector's score, or from what an account has learned.

A price is in seconds of a machine whose hash rate was measured; `work_for` turns it into the
expected number of hash evaluations, which is what a puzzle states. Whoever hashes faster pays
less time for the same work.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import InitVar, dataclass, field

from tollkeeper.errors import CalibrationError, ConfigurationError

_FEWEST_ABOVE = 10
"""Honest scores above the free quantile; with fewer, steps of difficulty are steps of luck."""

REFERENCE_SLOPE, REFERENCE_INTERCEPT, REFERENCE_FLOOR_BITS = 3.514, 18.53, 16.0
"""Line through the reference's 32 timed runs of SHA-1 in Python (Dziedzic et al., "Increasing the
Cost of Model Extraction with Calibrated Proof of Work", ICLR 2022, released code): bits against
log10 of seconds. Of one unnamed machine; ten times the work is really 3.322 bits."""


def work_for(seconds: float, *, hash_rate: float) -> int:
    """Return the expected hash evaluations that take `seconds`, at least 1.

    Args:
        seconds: that the puzzle should take.
        hash_rate: hashes per second of the machine that should take so long, measured.

    Raises:
        ValueError: negative or non-finite seconds, or no positive finite rate.
    """
    if not (0 <= seconds < math.inf and 0 < hash_rate < math.inf):
        raise ValueError(
            f"expected finite seconds from 0 up and a positive hash rate, got {seconds} seconds at "
            f"{hash_rate} hashes per second"
        )
    return max(1, round(seconds * hash_rate))


def bits(work: float) -> float:
    """Return the leading zero bits that take `work` expected evaluations: log2(work).

    Raises:
        ValueError: less than one evaluation.
    """
    if not 1 <= work < math.inf:
        raise ValueError(f"expected at least one hash evaluation, got {work}")
    return math.log2(work)


def reference_bits(seconds: float) -> float:
    """Return the reference's bits for a time, for comparison; its server rounds them down.

    Raises:
        ValueError: no positive finite seconds.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"expected positive finite seconds, got {seconds}")
    fitted = REFERENCE_SLOPE * math.log10(seconds) + REFERENCE_INTERCEPT
    return max(REFERENCE_FLOOR_BITS, fitted)


@dataclass(frozen=True, slots=True)
class RankPrice:
    """Bits from the rank of a detector's score in honest traffic.

    bits = floor + round((ceiling - floor) · max(0, (F(s) - q) / (1 - q))), with F(s) the share of
    honest scores below s. A score that ties with honest ones ranks below all of them, so a
    detector with few distinct scores errs for the honest.

    Attributes:
        floor_bits: where a charge begins.
        ceiling_bits: for a score above every honest one.
        free_quantile: q; the share of honest traffic that is not charged.
        free_below: ask no puzzle (0 bits) up to q, rather than one of `floor_bits`: the few hundred
            hashes of 8 bits deter nobody, and fetching them is a round trip for the honest.
    """

    reference_scores: InitVar[Iterable[float]]
    floor_bits: int = 8
    ceiling_bits: int = 20
    free_quantile: float = 0.95
    free_below: bool = True
    _sorted: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self, reference_scores: Iterable[float]) -> None:
        """Sort the honest scores.

        Raises:
            ConfigurationError: bits or a quantile out of range.
            CalibrationError: too few scores, NaN among them, or all the same.
        """
        if not (0 <= self.floor_bits <= self.ceiling_bits <= 256 and 0 <= self.free_quantile < 1):
            raise ConfigurationError(
                "expected 0 <= floor_bits <= ceiling_bits <= 256 and a free_quantile in [0, 1), "
                f"got {self.floor_bits}, {self.ceiling_bits}, {self.free_quantile}"
            )
        scores = sorted(_numbers(reference_scores, "honest score"))
        fewest = math.ceil(_FEWEST_ABOVE / (1 - self.free_quantile) - 1e-9)
        if len(scores) < fewest:
            raise CalibrationError(
                f"expected at least {fewest} honest scores for the quantile {self.free_quantile}, "
                f"got {len(scores)}; record more honest traffic"
            )
        if scores[0] == scores[-1]:
            raise CalibrationError(
                f"expected honest scores that differ, got {scores[0]} {len(scores)} times; the "
                "detector tells nothing apart"
            )
        object.__setattr__(self, "_sorted", tuple(scores))

    def rank(self, score: float) -> float:
        """Return the share of honest scores below `score`, in [0, 1].

        Raises:
            ValueError: the score is NaN.
        """
        if math.isnan(score):
            raise ValueError("expected a score, got nan; the detector failed")
        return bisect_left(self._sorted, score) / len(self._sorted)

    def __call__(self, score: float) -> int:
        """Return the bits to ask for one input; 0 is no puzzle.

        Raises:
            ValueError: the score is NaN.
        """
        above = (self.rank(score) - self.free_quantile) / (1 - self.free_quantile)
        if above <= 0:
            return 0 if self.free_below else self.floor_bits
        return self.floor_bits + round((self.ceiling_bits - self.floor_bits) * above)


@dataclass(frozen=True, slots=True)
class HonestFit:
    """What honest users cost: the line cost = slope · queries + intercept.

    Attributes:
        slope: cost per query.
        intercept: cost at no query.
        r2: share of the points' variance that the line explains.
    """

    slope: float
    intercept: float
    r2: float = 1.0

    @classmethod
    def fit(cls, points: Iterable[tuple[float, float]]) -> HonestFit:
        """Return the least-squares line of honest users.

        Args:
            points: (queries so far, cumulative cost) of any number of users.

        Raises:
            CalibrationError: fewer than two counts of queries, a non-finite number, or costs that
                fall.
        """
        pairs = list(points)
        queries = _numbers((pair[0] for pair in pairs), "count of queries", finite=True)
        costs = _numbers((pair[1] for pair in pairs), "cost", finite=True)
        if len(set(queries)) < 2:
            raise CalibrationError(
                f"expected costs at two counts of queries or more, got {len(set(queries))}"
            )
        x, y = math.fsum(queries) / len(pairs), math.fsum(costs) / len(pairs)
        spread = math.fsum((one - x) ** 2 for one in queries)
        slope = math.fsum((a - x) * (b - y) for a, b in pairs) / spread
        if slope < 0:
            raise CalibrationError(
                f"expected costs that grow with queries, got {slope:.3g} per query; are the "
                "points (queries, cumulative cost)?"
            )
        total = math.fsum((one - y) ** 2 for one in costs)
        r2 = slope * slope * spread / total if total else 1.0
        return cls(slope, y - slope * x, min(1.0, r2))

    def expected(self, queries: float) -> float:
        """Return what an honest user has cost after so many queries."""
        return self.slope * queries + self.intercept


@dataclass(frozen=True, slots=True)
class HonestCurve:
    """What honest users cost: straight between knots, and as between the last two beyond them.

    A composed cost is concave in queries, so a line is far above it at the first ones, and whoever
    opens many accounts asks only first ones.

    Attributes:
        knots: (queries, cost), both ascending; two or more.
    """

    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        """Refuse knots through which there is no curve.

        Raises:
            CalibrationError: fewer than two, or not in ascending order.
        """
        steps = list(zip(self.knots, self.knots[1:], strict=False))
        if not steps or not all(a[0] < b[0] and a[1] <= b[1] for a, b in steps):
            raise CalibrationError(
                "expected two counts of queries or more with costs that grow with them, got "
                f"{len(self.knots)}; are the points (queries, cumulative cost)?"
            )

    @classmethod
    def fit(cls, points: Iterable[tuple[float, float]], *, quantile: float = 0.9) -> HonestCurve:
        """Return a quantile of honest users' costs at each count of queries.

        Args:
            points: (queries so far, cumulative cost) of users, all at the same counts; powers of
                two follow a square root well.
            quantile: of the users at each count, the nearest from above.

        Raises:
            CalibrationError: fewer than two counts, a non-finite number, or costs that fall.
            ConfigurationError: no quantile in (0, 1].
        """
        if not 0 < quantile <= 1:
            raise ConfigurationError(f"expected a quantile in (0, 1], got {quantile}")
        users: dict[float, list[float]] = {}
        for queries, cost in points:
            count, paid = _numbers((queries, cost), "count of queries or cost", finite=True)
            users.setdefault(count, []).append(paid)
        place = {n: math.ceil(quantile * len(costs) - 1e-9) - 1 for n, costs in users.items()}
        return cls(tuple((n, sorted(users[n])[place[n]]) for n in sorted(users)))

    def expected(self, queries: float) -> float:
        """Return what an honest user has cost after so many queries."""
        right = bisect_left(self.knots, queries, key=lambda knot: knot[0])
        right = min(max(1, right), len(self.knots) - 1)
        (low, before), (high, after) = self.knots[right - 1 : right + 1]
        return before + (after - before) * (queries - low) / (high - low)


@dataclass(frozen=True, slots=True)
class ExcessPrice:
    """Seconds for the next request, growing with what an account leaked above honest users.

    seconds = clip(unit_s · base ** max(0, cost - expected), floor_s, ceiling_s).
    Source: Dziedzic et al., "Increasing the Cost of Model Extraction with Calibrated Proof of
    Work", ICLR 2022; constants of its code for MNIST, SVHN and CIFAR-10.
    Notes: the reference takes the absolute difference, which punishes who costs less than the
    average, and its unit is always 1 s.

    Attributes:
        fit: what honest users cost.
        base: factor per unit of excess.
        floor_s: least seconds; binds only where the unit is smaller.
        ceiling_s: most seconds; the reference's slowest timed puzzle, of 32 bits.
        one_sided: charge only what is above the fit; False is the reference.
        unit_s: seconds without excess.
    """

    fit: HonestFit | HonestCurve
    base: float = 1.0075
    floor_s: float = 0.1
    ceiling_s: float = 2948.0
    one_sided: bool = True
    unit_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse constants for which this is no price."""
        if not (
            1 < self.base < math.inf
            and 0 <= self.floor_s <= self.ceiling_s < math.inf
            and 0 < self.unit_s <= self.ceiling_s
        ):
            raise ConfigurationError(
                "expected a base above 1, 0 <= floor_s <= ceiling_s and a unit_s in "
                f"(0, ceiling_s], got {self.base}, {self.floor_s}, {self.ceiling_s}, {self.unit_s}"
            )

    def __call__(self, queries: float, cost: float) -> float:
        """Return the seconds to ask of an account.

        Args:
            queries: that it has asked, those of this request included.
            cost: what they leaked, in the unit of the fit.

        Raises:
            ValueError: no finite numbers.
        """
        excess = cost - self.fit.expected(queries)
        if not math.isfinite(excess):
            raise ValueError(f"expected finite queries and cost, got {queries} and {cost}")
        excess = max(0.0, excess) if self.one_sided else abs(excess)
        # In logarithms, since the power overflows long after the ceiling is reached.
        most = math.log(self.ceiling_s)
        seconds = math.exp(min(most, math.log(self.unit_s) + excess * math.log(self.base)))
        return min(self.ceiling_s, max(self.floor_s, seconds))


def base_reaching(ceiling: float, *, excess: float) -> float:
    """Return the base for which an `excess` costs `ceiling` times the unit.

    Raises:
        ConfigurationError: no ceiling above 1, or no positive excess.
    """
    if not (1 < ceiling < math.inf and 0 < excess < math.inf):
        raise ConfigurationError(
            f"expected a ceiling above 1 and a positive excess, got {ceiling} and {excess}"
        )
    return math.exp(math.log(ceiling) / excess)


def _numbers(values: Iterable[float], what: str, *, finite: bool = False) -> list[float]:
    """Return values as floats.

    Raises:
        CalibrationError: one is NaN, or infinite where it must be `finite`.
    """
    numbers = [float(value) for value in values]
    for place, number in enumerate(numbers):
        if math.isnan(number) or (finite and math.isinf(number)):
            raise CalibrationError(f"expected a {what}, got {number} at position {place}")
    return numbers
