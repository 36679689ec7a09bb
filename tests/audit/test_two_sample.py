"""Tests of two samples, against oracles and by calibration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from tollkeeper.audit.two_sample import (
    SMALLEST,
    auc,
    bayes_bound,
    effect_interval,
    permutation_p,
    relative_transfer,
    t_tail,
    two_sample,
)
from tollkeeper.errors import AuditRefused


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of this test's own."""
    return np.random.default_rng(7)


def test_agrees_with_oracles(rng: np.random.Generator) -> None:
    """Welch's t, its tail, the area under the curve and d are those of other implementations."""
    a, b = rng.normal(0.3, 1, 90), rng.normal(0, 2, 150)
    found = two_sample(a, b, rng=rng)
    oracle = stats.ttest_ind(a, b, equal_var=False, alternative="greater")
    pooled = np.sqrt((89 * a.var(ddof=1) + 149 * b.var(ddof=1)) / 238)

    assert found.t == pytest.approx(oracle.statistic)
    assert found.df == pytest.approx(oracle.df)
    assert found.p_welch == pytest.approx(oracle.pvalue)
    assert found.auc == pytest.approx(stats.mannwhitneyu(a, b).statistic / (90 * 150))
    assert found.d == pytest.approx((a.mean() - b.mean()) / pooled)
    assert found.p_perm == pytest.approx(found.p_welch, abs=0.03)


def test_negative_effects_and_swapped_sides(rng: np.random.Generator) -> None:
    """A negative effect has p above one half, and swapping the sides maps p to 1 - p."""
    a, b = rng.normal(0, 1, 400), rng.normal(0.1, 1, 300)
    one, other = two_sample(a, b, rng=rng), two_sample(b, a, rng=rng)

    assert one.t < 0 < other.t
    assert min(one.p_welch, one.p_perm) > 0.5
    assert one.p_welch + other.p_welch == pytest.approx(1)
    assert one.p_perm + other.p_perm == pytest.approx(1, abs=0.02)
    assert one.auc + other.auc == pytest.approx(1)
    assert one.ci == pytest.approx((-other.ci[1], -other.ci[0]))


def test_few_samples_come_close_to_all_relabelings(rng: np.random.Generator) -> None:
    """Drawn relabelings estimate the share among all of them."""
    a, b = np.array([3.1, 2.2, 4.0, 1.9]), np.array([1.0, 2.5, 0.3, 1.1, 1.8])
    both = np.concatenate([a, b])
    sums = [both[list(rows)].sum() for rows in itertools.combinations(range(9), 4)]
    exact = np.mean(np.asarray(sums) >= a.sum() - 1e-9)

    found = permutation_p(a, b, rng=rng, permutations=5000)

    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact / 5000))


def test_turns_of_two_circles_are_counted_exactly() -> None:
    """The p-value is the share of all pairs of turns, counted one by one."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.4, 1, 11), rng.normal(0, 1, 12)
    pooled = np.concatenate([a, b])
    place = np.random.default_rng(5).permutation(23)
    circles = [(pooled[at], at < 11) for at in (place[:11], place[11:])]
    sums = [
        [values[np.roll(labels, turn)].sum() for turn in range(len(values))]
        for values, labels in circles
    ]
    every = np.add.outer(*map(np.asarray, sums))

    found = permutation_p(a, b, rng=np.random.default_rng(5), permutations=100)

    assert found == pytest.approx(np.mean(every >= a.sum() - 1e-9))


@pytest.mark.parametrize("size", [8, 80])
def test_permutation_p_is_uniform_where_nothing_differs(
    size: int, rng: np.random.Generator
) -> None:
    """Under the null the p-value is at most x with probability x, drawn or turned, ties or not."""
    rounded = rng.normal(size=(600, 2 * size)).round(1)
    p = np.asarray(
        [permutation_p(row[:size], row[size:], rng=rng, permutations=199) for row in rounded]
    )

    for level in (0.05, 0.2, 0.5):
        slack = 3.5 * np.sqrt(level * (1 - level) / 600)
        assert (p <= level).mean() <= level + slack
    assert abs(p.mean() - 0.5) < 0.06


def test_interval_covers_the_effect(rng: np.random.Generator) -> None:
    """In 99 of 100 draws the interval holds the true effect."""
    held = 0
    for _ in range(600):
        a, b = rng.normal(0.3, 1, 60), rng.normal(0, 1, 80)
        low, high = two_sample(a, b, rng=rng, permutations=1).ci
        held += low <= 0.3 <= high

    assert held / 600 >= 0.99 - 3.5 * np.sqrt(0.99 * 0.01 / 600)


def test_interval_is_the_specified_one() -> None:
    """The half width is 2.576 standard errors of d."""
    low, high = effect_interval(0.2, 100, 300)
    half = 2.5758 * np.sqrt(400 / 30000 + 0.04 / 800)

    assert (low, high) == pytest.approx((0.2 - half, 0.2 + half), rel=1e-4)


def test_ties_count_half() -> None:
    """Equal scores are neither above nor below."""
    assert auc(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == 3.5 / 4


@pytest.mark.parametrize(("p", "odds"), [(0.01, 7.99), (0.001, 53.3), (1e-6, 26627), (0.5, 1)])
def test_bayes_bound_is_the_published_one(p: float, odds: float) -> None:
    """The odds that a p-value can bear are those of Sellke, Bayarri and Berger."""
    assert bayes_bound(p) == pytest.approx(odds, rel=2e-3)


def test_tiny_p_values_are_not_zero() -> None:
    """Below floating point a p-value stays positive, so that it can be corrected and reported."""
    assert t_tail(500, 1e6) == SMALLEST


def test_relative_transfer_of_a_half(rng: np.random.Generator) -> None:
    """A suspect with half the victim's effect has rho of about one half, inside its interval."""
    noise = rng.normal(size=(2, 1500))
    victim = noise[0] + 0.8, noise[1]
    suspect = noise[0] + 0.4, noise[1]
    rho, (low, high) = relative_transfer(suspect, victim, rng=rng, resamples=400)
    own, interval = relative_transfer(victim, victim, rng=rng, resamples=10)

    assert low < 0.5 < high
    assert low < rho < high
    assert high - low < 0.4
    assert (own, *interval) == (1, 1, 1)


def test_what_no_test_can_carry_is_refused(rng: np.random.Generator) -> None:
    """NaN, too few scores, constants, other items and a victim without effect are refused."""
    good = rng.normal(size=10)
    with pytest.raises(AuditRefused, match="1 of 10 scores of side b are NaN"):
        two_sample(good, np.append(good[:9], np.nan), rng=rng)
    with pytest.raises(AuditRefused, match="two or more scores of side a"):
        two_sample(good[:1], good, rng=rng)
    with pytest.raises(AuditRefused, match="constants"):
        two_sample(np.ones(5), np.ones(5), rng=rng)
    with pytest.raises(AuditRefused, match="same items"):
        relative_transfer((good, good), (good[:5], good), rng=rng)
    with pytest.raises(AuditRefused, match="the victim's own effect"):
        relative_transfer((good, good + 1), (good, good + 1), rng=rng)
    with pytest.raises(AuditRefused, match="p-value"):
        bayes_bound(0)
