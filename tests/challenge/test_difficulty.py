"""Difficulty: seconds to work, ranks to bits, and what is above honest users."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tollkeeper.challenge.difficulty import (
    ExcessPrice,
    HonestCurve,
    HonestFit,
    RankPrice,
    base_reaching,
    bits,
    reference_bits,
    work_for,
)
from tollkeeper.errors import CalibrationError, ConfigurationError

HONEST = [number / 1000 for number in range(1000)]
LINE = HonestFit(slope=0.25, intercept=-10.0)


def test_work_is_seconds_at_the_measured_rate() -> None:
    """Twice the seconds or twice the rate is twice the work, and no puzzle is below one hash."""
    assert work_for(0.5, hash_rate=2e6) == 1_000_000
    assert work_for(0.0, hash_rate=2e6) == 1
    assert bits(work_for(1.0, hash_rate=2**20)) == 20.0


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [(-1.0, 1e6), (math.nan, 1e6), (math.inf, 1e6), (1.0, 0.0), (1.0, math.nan), (1.0, -1e6)],
)
def test_work_of_nonsense_is_refused(seconds: float, rate: float) -> None:
    """Seconds below zero, a rate of nothing and NaN never become a difficulty."""
    with pytest.raises(ValueError, match="expected finite seconds"):
        work_for(seconds, hash_rate=rate)


def test_bits_of_less_than_one_hash_are_refused() -> None:
    """There is no puzzle below one evaluation."""
    with pytest.raises(ValueError, match="at least one hash"):
        bits(0.5)


@pytest.mark.parametrize(("seconds", "expected"), [(1, 18.5), (10, 22.0), (100, 25.6), (0.1, 16.0)])
def test_the_reference_line_gives_its_bits(seconds: float, expected: float) -> None:
    """1, 10 and 100 s are 18.5, 22.0 and 25.6 bits in the reference, and 0.1 s its floor."""
    assert reference_bits(seconds) == pytest.approx(expected, abs=0.06)


def test_the_reference_line_needs_seconds() -> None:
    """No time has no logarithm."""
    with pytest.raises(ValueError, match="positive finite seconds"):
        reference_bits(0.0)


def test_rank_price_is_the_stated_mapping() -> None:
    """Bits rise from the floor at the free quantile to the ceiling above all honest scores."""
    price = RankPrice(HONEST, floor_bits=8, ceiling_bits=20, free_quantile=0.95)
    for score in (0.9501, 0.96, 0.975, 0.99, 0.9999):
        rank = sum(one < score for one in HONEST) / len(HONEST)
        assert price.rank(score) == rank
        assert price(score) == 8 + round(12 * max(0.0, (rank - 0.95) / 0.05))
    assert price(1e9) == price(math.inf) == 20


def test_nothing_is_charged_below_the_free_quantile() -> None:
    """Up to the quantile there is no puzzle, or one of the floor where that is asked for."""
    assert {RankPrice(HONEST)(score) for score in HONEST[:951]} == {0}
    assert {RankPrice(HONEST, free_below=False)(score) for score in HONEST[:951]} == {8}
    assert RankPrice(HONEST)(-math.inf) == 0


def test_bits_never_fall_with_the_score() -> None:
    """A more suspicious input is never cheaper."""
    price = RankPrice([*HONEST, *[0.97] * 300, -3.0, 1.5])
    charged = [price(score / 500) for score in range(-1000, 1000)]
    assert charged == sorted(charged)


def test_a_tie_with_honest_scores_ranks_below_them() -> None:
    """A detector that gives half of the honest its highest score charges none of them."""
    assert RankPrice([0.0] * 150 + [1.0] * 150)(1.0) == 0


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (HONEST[:199], "at least 200 honest scores for the quantile 0.95, got 199"),
        ([*HONEST, math.nan], "got nan at position 1000"),
        ([0.5] * 500, "scores that differ"),
        ([], "got 0"),
    ],
)
def test_unusable_honest_scores_are_refused(scores: list[float], said: str) -> None:
    """Too few, NaN and a detector that says one thing are named before anything is charged."""
    with pytest.raises(CalibrationError, match=said):
        RankPrice(scores)


def test_rank_price_refuses_settings_and_scores_out_of_range() -> None:
    """Bits that fall, a quantile of one and a NaN score are refused."""
    with pytest.raises(ConfigurationError, match="floor_bits <= ceiling_bits"):
        RankPrice(HONEST, floor_bits=21)
    with pytest.raises(ConfigurationError, match="free_quantile"):
        RankPrice(HONEST, free_quantile=1.0)
    with pytest.raises(ValueError, match="the detector failed"):
        RankPrice(HONEST)(math.nan)


def test_the_fit_is_least_squares() -> None:
    """Slope, intercept and r2 are those of the textbook, and no nearby line has smaller squares."""
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (3.0, 4.0)]
    fit = HonestFit.fit(points)
    assert (fit.slope, fit.intercept) == pytest.approx((1.1, 1.1))
    assert fit.r2 == pytest.approx(0.8962963)

    def squares(slope: float, intercept: float) -> float:
        return sum((cost - slope * queries - intercept) ** 2 for queries, cost in points)

    for slope, intercept in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert squares(fit.slope + slope, fit.intercept + intercept) > squares(
            fit.slope, fit.intercept
        )


def test_a_line_is_fitted_exactly() -> None:
    """Points of a line give it back with r2 1, a flat one too."""
    fit = HonestFit.fit((n, 0.25 * n - 10) for n in range(0, 10_000, 1000))
    assert (fit.slope, fit.intercept, fit.r2) == pytest.approx((0.25, -10.0, 1.0))
    assert fit.expected(4000) == pytest.approx(990)
    assert HonestFit.fit([(0, 2.0), (5, 2.0)]) == HonestFit(0.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([], "two counts of queries or more, got 0"),
        ([(5, 1.0), (5, 2.0)], "got 1"),
        ([(1, 1.0), (2, math.nan)], "expected a cost, got nan"),
        ([(1, 1.0), (math.inf, 2.0)], "expected a count of queries, got inf"),
        ([(1, 3.0), (2, 1.0)], "grow with queries"),
    ],
)
def test_points_without_a_line_are_refused(points: list[tuple[float, float]], said: str) -> None:
    """One point, NaN and costs that fall are no calibration."""
    with pytest.raises(CalibrationError, match=said):
        HonestFit.fit(points)


def test_a_curve_follows_a_square_root_where_a_line_does_not() -> None:
    """At knots it is the quantile, between them straight, beyond the last it goes on."""
    counts = [2.0**n for n in range(11)]
    points = [(n, share * math.sqrt(n)) for n in counts for share in (1, 2, 3, 4)]
    curve, line = HonestCurve.fit(points, quantile=0.75), HonestFit.fit(points)
    assert curve.expected(256) == pytest.approx(48)
    assert curve.expected(384) == pytest.approx((48 + 3 * math.sqrt(512)) / 2)
    last = 3 * (math.sqrt(1024) - math.sqrt(512)) / 512
    assert curve.expected(2048) == pytest.approx(96 + 1024 * last)
    assert curve.expected(1) == pytest.approx(3)
    assert line.expected(1) > 9
    assert HonestCurve.fit(points, quantile=1.0).expected(256) == pytest.approx(64)


@pytest.mark.parametrize(
    "points", [[], [(1, 1.0)], [(1, 3.0), (2, 1.0)], [(1, 0.0), (2, math.nan)]]
)
def test_points_without_a_curve_are_refused(points: list[tuple[float, float]]) -> None:
    """One point, NaN and costs that fall are no calibration."""
    with pytest.raises(CalibrationError, match="expected"):
        HonestCurve.fit(points)
    with pytest.raises(ConfigurationError, match="quantile"):
        HonestCurve.fit(points, quantile=0.0)


def test_only_what_is_above_honest_users_is_charged() -> None:
    """Who costs less than the average pays the unit; the reference's difference punishes it."""
    price, reference = ExcessPrice(LINE), ExcessPrice(LINE, one_sided=False)
    cheap, dear = LINE.expected(1000) - 200, LINE.expected(1000) + 200
    assert price(1000, cheap) == price(1000, LINE.expected(1000)) == 1.0
    assert reference(1000, cheap) == pytest.approx(1.0075**200)
    assert price(1000, dear) == reference(1000, dear) == pytest.approx(1.0075**200)


def test_seconds_stay_between_floor_and_ceiling() -> None:
    """However large the excess, the price is the ceiling; a small unit is raised to the floor."""
    assert ExcessPrice(LINE)(1000, 1e300) == pytest.approx(2948.0)
    assert ExcessPrice(LINE, unit_s=0.001)(0, -10.0) == 0.1
    assert ExcessPrice(LINE, unit_s=0.001, floor_s=0)(0, -10.0) == pytest.approx(0.001)


def test_a_base_reaches_the_ceiling_at_the_stated_excess() -> None:
    """The price is at its ceiling there, and at the square root of it half way."""
    price = ExcessPrice(HonestFit(0, 0), base=base_reaching(2948, excess=60))
    assert price(1, 60) == pytest.approx(2948)
    assert price(1, 30) == pytest.approx(math.sqrt(2948))
    with pytest.raises(ConfigurationError, match="positive excess"):
        base_reaching(2948, excess=0)


def test_excess_price_refuses_what_is_no_price() -> None:
    """A base that does not grow, a floor above the ceiling, and a cost of NaN are refused."""
    wrong: tuple[dict[str, Any], ...] = (
        {"base": 1.0},
        {"floor_s": 3000.0},
        {"unit_s": 0.0},
        {"ceiling_s": math.inf},
    )
    for bad in wrong:
        with pytest.raises(ConfigurationError, match="expected a base above 1"):
            ExcessPrice(LINE, **bad)
    with pytest.raises(ValueError, match="finite queries and cost"):
        ExcessPrice(LINE)(1, math.nan)
