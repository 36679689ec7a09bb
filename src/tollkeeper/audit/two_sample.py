"""Are scores of one side larger than those of the other: tests, effect sizes and their intervals.

Every alternative here is one-sided: a's scores are larger than b's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tollkeeper.errors import AuditRefused
from tollkeeper.types import Scores

PERMUTATIONS = 9999
"""Relabelings at least: the least p-value is 1/10,000 or lower."""

Z_99 = 2.5758293035489004
"""Half width of a 99% interval in standard errors."""

SMALLEST = 1e-300
"""The least p-value that is ever stated: below it floating point says nothing."""

RESAMPLES = 2000
"""Of the bootstrap; its 99% interval then rests on ten resamples at each end."""

_TIE = 1e-9
"""Differences of sums below this share of their spread are rounding, and count as ties."""


@dataclass(frozen=True, slots=True)
class TwoSample:
    """How far apart two sides are.

    Attributes:
        t: Welch's statistic, positive where a's mean is larger.
        df: its degrees of freedom (Welch-Satterthwaite).
        p_welch: in (0, 1]; P(T >= t).
        p_perm: in (0, 1]; share of relabelings with as large a difference, the actual one counted.
        d: difference of means over the pooled standard deviation.
        ci: 99% interval of d.
        auc: P(a > b) + P(a = b) / 2.
    """

    t: float
    df: float
    p_welch: float
    p_perm: float
    d: float
    ci: tuple[float, float]
    auc: float


def two_sample(
    a: ArrayLike, b: ArrayLike, *, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> TwoSample:
    """Compare the scores of two sides.

    Args:
        a: (n1,) scores, n1 >= 2.
        b: (n2,) scores, n2 >= 2.
        rng: draws the relabelings.
        permutations: how many at least.

    Raises:
        AuditRefused: too few scores, NaN, or all of them equal.

    References:
        Welch, "The generalization of Student's problem when several different population variances
        are involved", Biometrika 1947; method spec, sections 10.5 and 12.
    """
    one, two = checked_scores(a, "a"), checked_scores(b, "b")
    t, df = welch(one, two)
    d = effect_size(one, two)
    return TwoSample(
        t=t,
        df=df,
        p_welch=t_tail(t, df),
        p_perm=permutation_p(one, two, rng=rng, permutations=permutations),
        d=d,
        ci=effect_interval(d, one.size, two.size),
        auc=auc(one, two),
    )


def checked_scores(scores: ArrayLike, name: str) -> Scores:
    """Return scores as (n,) float64.

    Raises:
        AuditRefused: fewer than two, not a list of numbers, or not finite.
    """
    array = np.asarray(scores, np.float64)
    if array.ndim != 1 or array.size < 2:
        raise AuditRefused(f"expected two or more scores of side {name}, got shape {array.shape}")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise AuditRefused(f"{bad} of {array.size} scores of side {name} are NaN or infinite")
    return array


def welch(a: Scores, b: Scores) -> tuple[float, float]:
    """Return Welch's t of mean(a) - mean(b), and its degrees of freedom.

    Raises:
        AuditRefused: neither side varies.
    """
    first, second = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    total = first + second
    if not total > 0:
        raise AuditRefused("all scores of a side are the same; the suspect answers with constants")
    df = total**2 / (first**2 / (a.size - 1) + second**2 / (b.size - 1))
    return float((a.mean() - b.mean()) / math.sqrt(total)), float(df)


def t_tail(t: float, df: float) -> float:
    """Return P(T >= t) of Student's distribution, not below `SMALLEST`."""
    return max(float(special.stdtr(df, -t)), SMALLEST)


def effect_size(a: Scores, b: Scores) -> float:
    """Return Cohen's d: the difference of means over the pooled standard deviation."""
    weighted = a.var(ddof=1) * (a.size - 1) + b.var(ddof=1) * (b.size - 1)
    return float((a.mean() - b.mean()) / math.sqrt(weighted / (a.size + b.size - 2)))


def effect_interval(d: float, n1: int, n2: int) -> tuple[float, float]:
    """Return the 99% interval of d (method spec, section 10.5; Hedges and Olkin, 1985)."""
    half = Z_99 * math.sqrt((n1 + n2) / (n1 * n2) + d**2 / (2 * (n1 + n2)))
    return d - half, d + half


def auc(a: Scores, b: Scores) -> float:
    """Return P(a > b) + P(a = b) / 2 of two drawn scores."""
    ordered = np.sort(b)
    below = np.searchsorted(ordered, a, side="left").sum(dtype=np.float64)
    upto = np.searchsorted(ordered, a, side="right").sum(dtype=np.float64)
    return float((below + upto) / (2 * a.size * b.size))


def permutation_p(
    a: Scores, b: Scores, *, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> float:
    """Return the permutation p-value of mean(a) - mean(b), exact where the sides are exchangeable.

    Scores are laid in random order on two circles, and the labels turn round each of them: turns
    are a group of relabelings, so a test over all of them is exact, and two Fourier transforms give
    all n^2 / 4 sums. Samples that have less than `permutations` turns are relabeled at random.

    Args:
        a: (n1,) scores.
        b: (n2,) scores.
        rng: draws the order or the relabelings.
        permutations: how many at least.

    References:
        Hoeffding, "The large-sample power of tests based on permutations of observations", Annals
        of Mathematical Statistics 1952 (any fixed group of relabelings gives an exact test).
    """
    pooled = np.concatenate([a, b])
    pooled = pooled - pooled.mean()
    slack = _TIE * math.sqrt(float(pooled @ pooled))
    half = pooled.size // 2
    if half * (pooled.size - half) < permutations:
        sums = _drawn_sums(pooled, a.size, rng, permutations)
        as_large = np.count_nonzero(sums >= pooled[: a.size].sum() - slack)
        return float((1 + as_large) / (1 + permutations))
    place = rng.permutation(pooled.size)
    one, two = (_turned_sums(pooled[at], at < a.size) for at in (place[:half], place[half:]))
    # The first entries are the actual labels; they count themselves among the turns.
    least = one[0] + two[0] - slack - one
    below = np.searchsorted(np.sort(two), least, side="left")
    return float((two.size - below).sum(dtype=np.float64)) / (one.size * two.size)


def _turned_sums(values: Scores, labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (n,) sums of what the labels mark, turned by 0, 1, ..., n - 1 places."""
    product = np.fft.rfft(values) * np.conj(np.fft.rfft(labels.astype(np.float64)))
    found: NDArray[np.float64] = np.fft.irfft(product, n=values.size)
    return found


def _drawn_sums(
    pooled: Scores, n1: int, rng: np.random.Generator, permutations: int
) -> NDArray[np.float64]:
    rows = np.tile(pooled, (permutations, 1))
    rng.permuted(rows, axis=1, out=rows)
    found: NDArray[np.float64] = rows[:, :n1].sum(axis=1)
    return found


def bayes_bound(p: float) -> float:
    """Return the most that a p-value can multiply the odds of the alternative by.

    References:
        Sellke, Bayarri and Berger, "Calibration of p values for testing precise null hypotheses",
        The American Statistician 2001.
    """
    if not 0 < p <= 1:
        raise AuditRefused(f"expected a p-value in (0, 1], got {p}")
    return 1 / (-math.e * p * math.log(p)) if p < 1 / math.e else 1.0


def relative_transfer(
    suspect: tuple[ArrayLike, ArrayLike],
    victim: tuple[ArrayLike, ArrayLike],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> tuple[float, tuple[float, float]]:
    """Return rho, the suspect's d over the victim's, with its 99% bootstrap interval.

    Args:
        suspect: (n1,) and (n2,) scores of the two sides.
        victim: the same items' scores; an item is resampled in both at once.
        rng: draws the resamples.
        resamples: how many.

    Raises:
        AuditRefused: other items, bad scores, or a victim that shows no effect.
    """
    sides = [_paired(suspect[side], victim[side], name) for side, name in enumerate("ab")]
    moments = [_resampled(side, rng, resamples) for side in sides]
    drawn = _effects(moments[0], moments[1], sides[0].shape[1], sides[1].shape[1])
    actual = [effect_size(sides[0][of], sides[1][of]) for of in range(2)]
    if actual[1] <= 0:
        raise AuditRefused(f"the victim's own effect is {actual[1]:.3f}; nothing can be passed on")
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.005, 0.995))
    return actual[0] / actual[1], (float(low), float(high))


def _paired(suspect: ArrayLike, victim: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return (2, n) scores of suspect and victim."""
    if np.shape(suspect) != np.shape(victim):
        raise AuditRefused(
            f"side {name}: expected scores of the same items, got {np.shape(suspect)} of the "
            f"suspect and {np.shape(victim)} of the victim"
        )
    return np.stack([checked_scores(of, name) for of in (suspect, victim)])


def _resampled(scores: NDArray[np.float64], rng: np.random.Generator, resamples: int) -> Scores:
    """Return (resamples, 2, 2) means and variances of resampled items, by encoder."""
    n = scores.shape[1]
    found = np.empty((resamples, 2, 2))
    for row in range(resamples):
        drawn = scores[:, rng.integers(0, n, n)]
        found[row, :, 0], found[row, :, 1] = drawn.mean(axis=1), drawn.var(axis=1, ddof=1)
    return found


def _effects(a: Scores, b: Scores, n1: int, n2: int) -> NDArray[np.float64]:
    pooled = (a[..., 1] * (n1 - 1) + b[..., 1] * (n2 - 1)) / (n1 + n2 - 2)
    effects: NDArray[np.float64] = (a[..., 0] - b[..., 0]) / np.sqrt(pooled)
    return effects
