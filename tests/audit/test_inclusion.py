"""Promises of the tests of randomized inclusion."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tollkeeper.audit.inclusion import (
    Betting,
    ConsistencyScore,
    Inclusion,
    SignFlip,
    ask,
    betting,
    check_pairs,
    differences,
    sign_flip,
)
from tollkeeper.audit.views import Views
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch, Embeddings, Scores

PAIRS = 300


@dataclass
class Rememberer:
    """An encoder of pictures that maps views of what it was trained on closer together.

    A picture is recognized by the mean of its pixels in which there is a coarse code, which mild
    views keep; noise comes from the pixels themselves, so the same view has the same embedding.
    """

    strength: float
    codes: frozenset[int] = frozenset()
    name: str = "rememberer"
    dim: int = 16
    accepts: frozenset[str] = frozenset({"image"})

    def embed(self, inputs: Batch) -> Embeddings:
        rows = []
        for picture in np.asarray(inputs):
            code = int(picture.mean() // 4)
            noise = np.random.default_rng(picture.astype(np.int64).ravel()[:64]).normal(size=16)
            share = 1 - self.strength * (code in self.codes)
            rows.append(np.random.default_rng(code).normal(size=16) + share * noise)
        return np.array(rows, dtype=np.float32)


def remembered(suspect: Encoder, items: Batch, ids: NDArray[np.int64]) -> Scores:
    """Score texts by what the suspect says of them: a score that needs no views."""
    return suspect.embed(list(items))[:, 0].astype(np.float64)


@dataclass
class Talker:
    """An encoder of texts: noise of the text, and more for texts it was trained on."""

    trained: frozenset[str]
    strength: float
    name: str = "talker"
    dim: int = 1
    accepts: frozenset[str] = frozenset({"text"})

    def embed(self, inputs: Batch) -> Embeddings:
        def of(text: str) -> float:
            noise = np.random.default_rng(list(text.encode())).normal()
            return float(noise) + self.strength * (text in self.trained)

        return np.array([[of(text)] for text in inputs], dtype=np.float32)


def texts(coins: NDArray[np.bool_]) -> tuple[list[str], frozenset[str]]:
    """Return 2m texts and which of them the coins put into training."""
    items = [f"text {at}" for at in range(2 * len(coins))]
    trained = {items[2 * at + (not coin)] for at, coin in enumerate(coins)}
    return items, frozenset(trained)


def tossed(rng: np.random.Generator, count: int = PAIRS) -> NDArray[np.bool_]:
    """Return fair coins."""
    return rng.random(count) < 0.5


def test_a_copy_is_found_and_an_independent_is_not() -> None:
    """Both tests reject for an encoder that knows the trained twins, and only for it."""
    rng = np.random.default_rng(0)
    coins = tossed(rng)
    items, trained = texts(coins)
    evidence = Inclusion(items, coins)
    for test in (SignFlip(remembered), Betting(remembered)):
        copy = test.run(Talker(trained, 0.5), evidence, rng=rng)
        other = test.run(Talker(frozenset(), 0.5), evidence, rng=rng)
        assert copy.p_value <= 0.001 < other.p_value
        assert copy.null == other.null == "data"
        assert copy.details["wins"] > 0.5
        assert copy.interval[0] > 0 > other.interval[0]


def test_trained_on_the_held_twins_is_no_theft() -> None:
    """An encoder that knows the other side has a p-value near 1, not near 0."""
    rng = np.random.default_rng(1)
    coins = tossed(rng)
    items, trained = texts(coins)
    other = Talker(frozenset(items) - trained, 0.5)
    assert SignFlip(remembered).run(other, Inclusion(items, coins), rng=rng).p_value > 0.999


def test_p_values_of_one_independent_are_uniform_over_coins() -> None:
    """Whatever the suspect's scores: skewed, heavy-tailed or tied, only the coins are random."""
    rng = np.random.default_rng(2)
    for scores in (
        rng.normal(size=2 * PAIRS),
        rng.exponential(size=2 * PAIRS) ** 3,
        np.r_[1e6, rng.normal(size=2 * PAIRS - 1)],
    ):
        found = []
        for _ in range(100):
            evidence = Inclusion(np.zeros(2 * PAIRS), tossed(rng))
            found.append(sign_flip(differences(scores, evidence), rng=rng).p_value)
        assert stats.kstest(found, "uniform").pvalue > 0.001


def test_ties_count_for_the_suspect() -> None:
    """With scores of few values p is never below its true value by enumeration."""
    y = np.array([1.0, 1, 1, -1, 1, 0, 1, 1, 1, 1, -1, 1]) / 3
    all_signs = np.array(list(itertools.product((-1, 1), repeat=len(y))))
    exact = np.mean(all_signs @ y >= y.sum() - 1e-9)
    found = sign_flip(y, rng=np.random.default_rng(3), flips=200_000)
    assert found.p_value == pytest.approx(exact, rel=0.05)
    assert exact > np.mean(all_signs @ y > y.sum() + 1e-9) * 1.5  # Ties do matter here.


def test_any_statistic_may_be_used() -> None:
    """A count of wins gives the binomial sign test."""
    y = np.random.default_rng(4).normal(0.12, 1, size=200)
    found = sign_flip(
        y,
        rng=np.random.default_rng(5),
        flips=20_000,
        statistic=lambda rows: (rows > 0).sum(axis=1),
    )
    exact = stats.binomtest(int((y > 0).sum()), 200, 0.5, alternative="greater").pvalue
    assert found.p_value == pytest.approx(exact, rel=0.25)
    assert len(found.null_distribution) == 20_000


def test_turning_all_coins_turns_the_p_value() -> None:
    """The mirrored claim has the mirrored p-value: a negative effect is above one half."""
    y = np.random.default_rng(6).normal(0.1, 1, size=400)
    p, mirrored = (sign_flip(s * y, rng=np.random.default_rng(7)).p_value for s in (1, -1))
    assert p < 0.5 < mirrored
    assert p + mirrored == pytest.approx(1, abs=0.02)


def test_bets_cross_for_a_copy_and_rarely_without_one() -> None:
    """Evidence over 1,000 comes in at most one of a thousand runs on fair coins."""
    rng = np.random.default_rng(8)
    copies = [betting(rng.normal(0.5, 1, size=400)) for _ in range(10)]
    assert all(0 < copy.details["crossed"] <= 400 for copy in copies)
    assert all(copy.p_value <= 0.001 for copy in copies)
    assert all(copy.e_value is not None and copy.e_value >= 1000 for copy in copies)

    size = rng.exponential(size=200)
    flagged = sum(betting(size * rng.choice((-1, 1), 200)).p_value <= 0.01 for _ in range(500))
    assert stats.binomtest(flagged, 500, 0.01, alternative="greater").pvalue > 0.001


def test_bets_and_flips_agree_with_the_formula() -> None:
    """E is the mean over lambda of products, at the first pair where it reaches 1 / alpha."""
    y = np.random.default_rng(9).normal(0.6, 1, size=120)
    lambdas = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7])
    s = 2 * np.median(np.abs(y))
    path = np.array(
        [np.mean([np.prod(1 + at * np.tanh(y[:t] / s)) for at in lambdas]) for t in range(1, 121)]
    )
    first = int(np.argmax(path >= 1000))
    found = betting(y)
    assert found.details["crossed"] == first + 1
    assert found.e_value == pytest.approx(path[first])


def test_references_gain_power_and_keep_validity() -> None:
    """What all encoders find in an item is taken off; the p-value of an independent stays fair."""
    rng = np.random.default_rng(10)
    hard = rng.normal(0, 3, size=2 * PAIRS)
    references = hard + rng.normal(size=(6, 2 * PAIRS))
    coins = tossed(rng)
    side = np.where(np.repeat(coins, 2) ^ (np.arange(2 * PAIRS) % 2 == 1), 0.4, 0.0)
    thief = hard + rng.normal(size=2 * PAIRS) + side
    plain, calibrated = (
        sign_flip(differences(thief, Inclusion(hard, coins, given)), rng=rng)
        for given in (None, references)
    )
    assert calibrated.effect_size > 1.5 * plain.effect_size

    innocent = hard + rng.normal(size=2 * PAIRS)
    found = [
        sign_flip(differences(innocent, Inclusion(hard, tossed(rng), references)), rng=rng).p_value
        for _ in range(100)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_consistency_of_views_finds_a_rememberer() -> None:
    """The usual score asks for views of pictures, in any order, and finds what was planted."""
    rng = np.random.default_rng(11)
    pictures = np.empty((60, 8, 8, 3), dtype=np.uint8)
    pictures[:] = (np.arange(60) * 4 + 2)[:, None, None, None]
    coins = tossed(rng, 30)
    codes = frozenset(2 * at + (not coin) for at, coin in enumerate(coins))
    public = rng.integers(0, 255, size=(40, 8, 8, 3), dtype=np.uint8)
    score = ConsistencyScore(Views(seed=7, brightness=0.0, noise=0.002), public, mode="raw")
    evidence = Inclusion(pictures, coins)
    copy, other = Rememberer(0.9, codes), Rememberer(0.9)

    assert SignFlip(score).run(copy, evidence, rng=rng).p_value <= 0.001
    assert SignFlip(score).run(other, evidence, rng=rng).p_value > 0.001
    first, again = (ask(copy, evidence, score, rng=np.random.default_rng(s)) for s in (0, 1))
    assert first == pytest.approx(again)  # The order of asking does not count.


def test_items_are_asked_in_random_order() -> None:
    """Nothing about the order tells the suspect which items are twins."""
    seen: list[Sequence[str]] = []

    def watched(suspect: Encoder, items: Batch, ids: NDArray[np.int64]) -> Scores:
        seen.append(list(items))
        return np.array([float(item.split()[1]) for item in items])

    items = [f"text {at}" for at in range(40)]
    evidence = Inclusion(items, tossed(np.random.default_rng(0), 20))
    scores = ask(Talker(frozenset(), 0), evidence, watched, rng=np.random.default_rng(12))
    assert scores.tolist() == list(range(40))
    assert sorted(seen[0]) == sorted(items) != seen[0]
    places = {text: at for at, text in enumerate(seen[0])}
    apart = [abs(places[items[2 * at]] - places[items[2 * at + 1]]) for at in range(20)]
    assert np.mean(apart) > 5


def test_too_few_pairs_are_refused() -> None:
    """Nine coins can be guessed with a chance of 1/512."""
    check_pairs(10)
    with pytest.raises(AuditRefused, match="at least 10 pairs"):
        check_pairs(9)
    items, _ = texts(np.ones(9, dtype=np.bool_))
    evidence = Inclusion(items, np.ones(9, dtype=np.bool_))
    for test in (SignFlip(remembered), Betting(remembered)):
        with pytest.raises(AuditRefused, match="at least 10 pairs"):
            test.run(Talker(frozenset(), 0), evidence, rng=np.random.default_rng(0))


def test_binary_scores_of_full_memory_are_evidence() -> None:
    """A score of two values that is always right is not refused for its lack of spread."""
    y = np.ones(40)
    found = sign_flip(y, rng=np.random.default_rng(13))
    assert found.p_value == 1e-4
    assert np.isfinite(found.effect_size)
    assert betting(np.r_[np.zeros(40), y]).p_value <= 0.001


@pytest.mark.parametrize(
    ("y", "told"),
    [
        ([np.nan, 1.0, 2.0], "finite differences"),
        ([np.inf, 1.0], "finite differences"),
        ([1.0], "two or more"),
        ([[1.0, 2.0]], "two or more"),
        ([0.0, 0.0], "score the same"),
    ],
)
def test_unusable_differences_are_refused(y: list[float], told: str) -> None:
    """NaN, too few and constants are clear errors of both tests."""
    with pytest.raises(AuditRefused, match=told):
        sign_flip(y, rng=np.random.default_rng(0))
    with pytest.raises(AuditRefused, match=told):
        betting(y)


def test_unusable_evidence_is_refused() -> None:
    """Coins that do not fit, other items' scores, NaN scores and too few flips are clear errors."""
    rng = np.random.default_rng(0)
    coins = tossed(rng, 20)
    items, _ = texts(coins)
    with pytest.raises(AuditRefused, match="one coin for each pair"):
        Inclusion(items[:-2], coins)
    with pytest.raises(AuditRefused, match="one coin for each pair"):
        Inclusion(items, coins.astype(np.int64))
    with pytest.raises(AuditRefused, match="scores of 40 items"):
        differences(np.zeros(38), Inclusion(items, coins))
    with pytest.raises(AuditRefused, match="all scores of an encoder are the same"):
        differences(np.zeros(40), Inclusion(items, coins))
    with pytest.raises(AuditRefused, match="at least 9999"):
        sign_flip([1.0, 2.0], rng=rng, flips=99)
    with pytest.raises(AuditRefused, match="not finite for every"):
        sign_flip([1.0, 2.0], rng=rng, statistic=lambda rows: np.full(len(rows), np.nan))
    with pytest.raises(AuditRefused, match="expected 40 finite scores"):
        ask(
            Talker(frozenset(), 0),
            Inclusion(items, coins),
            lambda suspect, items, ids: np.full(len(items), np.nan),
            rng=rng,
        )
