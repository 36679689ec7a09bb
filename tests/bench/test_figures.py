"""The parts of `guard-figures`: signals, disguises, walks, prices and filters."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn")

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.figures import denoise, encoders, fillers, signals, thieves, walks
from tollkeeper.bench.figures.traffic import Traffic
from tollkeeper.guard import Calibration, Guard, profiles
from tollkeeper.guard.noise import Keyed
from tollkeeper.types import Batch, Embeddings

RNG = np.random.default_rng(0)
CENTERS = RNG.standard_normal((60, 48))


def around(which: int, count: int, *, seed: int = 1) -> Embeddings:
    """Return embeddings around the first `which` centers."""
    rng = np.random.default_rng(seed)
    rows = CENTERS[rng.integers(0, which, count)] + 0.3 * rng.standard_normal((count, 48))
    return rows.astype(np.float32)


CALIBRATION = Calibration.fit(around(60, 1000, seed=2), rng=RNG)
GUARD = Guard(profiles.RECOMMENDED.with_knee(0.7), CALIBRATION, secret=bytes(32))
NARROW, BROAD = around(3, 400), around(60, 2000, seed=3)


def test_auroc_counts_pairs() -> None:
    """The share of (narrow, broad) pairs in the right order, ties at a half."""
    narrow, broad = np.array([0.1, 0.4, 0.4]), np.array([0.4, 0.9])
    pairs = [(b > n) + 0.5 * (b == n) for n in narrow for b in broad]
    assert thieves.auroc(narrow, broad) == pytest.approx(np.mean(pairs))


def test_chao1_agrees_with_counting() -> None:
    """S + f1 (f1 - 1) / (2 (f2 + 1)) of what was seen so far, mean over tables."""
    cells = np.random.default_rng(4).integers(0, 30, 80)
    curve = signals._chao1_curve(cells)
    for at in (1, 10, 79):
        counts = Counter(cells[: at + 1].tolist())
        once, twice = (sum(n == times for n in counts.values()) for times in (1, 2))
        assert curve[at] == len(counts) + once * (once - 1) / (2 * (twice + 1))


def test_the_trace_is_that_of_the_covariance() -> None:
    """After n inputs: the sum of their variances over the calibration's."""
    signal = signals.trace(CALIBRATION)(NARROW)
    whole = np.square(CALIBRATION.sample - CALIBRATION.mean).sum(axis=1).mean()
    for count in (2, 50, 400):
        expected = min(1.0, NARROW[:count].astype(float).var(axis=0).sum() / whole)
        assert signal[count - 1] == pytest.approx(expected, rel=1e-4)


def test_every_candidate_ends_where_its_prefix_does() -> None:
    """A signal after n inputs does not know of those behind them, and lies in [0, 1]."""
    for name, signal in signals.candidates(CALIBRATION, bytes(32)).items():
        whole = signal(BROAD[:300])
        assert whole.shape == (300,), name
        assert whole[:100] == pytest.approx(signal(BROAD[:100])), name
        assert ((whole >= 0) & (whole <= 1)).all(), name


def test_disguises_hold_the_whole_pool_in_order() -> None:
    """What is wanted is the pool; doubling adds near-duplicates, the others adds fillers."""
    pool = BROAD[:120]
    found = {
        name: (asked, wanted)
        for name, asked, wanted in thieves.disguises(pool, NARROW, rng=np.random.default_rng(5))
    }
    assert set(found) == {"plain", "doubling", "padding", "diluting", "slow_start"}
    for asked, wanted in found.values():
        np.testing.assert_array_equal(asked[wanted], pool)
    twins = found["doubling"][0][1::2]
    cosines = (
        (twins * pool).sum(axis=1) / np.linalg.norm(twins, axis=1) / np.linalg.norm(pool, axis=1)
    )
    assert np.abs(cosines - 0.99).max() < 0.01
    assert len(found["padding"][0]) == 480


def test_free_inputs_end_where_the_signal_is_above_the_ceiling() -> None:
    """Only wanted inputs are counted; a ceiling never reached frees all."""
    asked = np.arange(10, dtype=np.float32)[:, None]
    wanted = np.arange(10) % 2 == 1

    def rising(rows: Embeddings) -> np.ndarray:
        return rows[:, 0].astype(float) / 10

    assert thieves.free_at(rising, 0.55, asked, wanted) == 3
    assert thieves.free_at(rising, 1.0, asked, wanted) == 5


def test_accounts_are_left_when_they_pay() -> None:
    """As many accounts as a simulation input by input; one region an account takes fewer."""
    accounts, sketch = 1, GUARD.empty()
    rng = np.random.default_rng(0)
    for row in BROAD:
        verdict = GUARD.admit(sketch, row[None], key=bytes(32), rng=rng)
        if verdict.noise_scale[0] > thieves.HARMLESS * CALIBRATION.feature_std:
            accounts += 1
            verdict = GUARD.admit(GUARD.empty(), row[None], key=bytes(32), rng=rng)
        sketch = verdict.sketch
    assert thieves.accounts_needed(GUARD, BROAD) == accounts > 2
    found = thieves.price(GUARD, BROAD, seed=0)
    assert found["random"] == accounts
    assert 1 < found["sharded"] < accounts
    at_once = profiles.CHEAPEST.with_knee(0.0)
    assert thieves.accounts_needed(Guard(at_once, CALIBRATION, secret=bytes(32)), BROAD) == np.inf


def test_regions_are_asked_one_after_the_other() -> None:
    """Every input once, and most steps stay within a cluster."""
    rows = around(8, 400)
    nearest = np.argmin(((rows[:, None] - CENTERS[None, :8]) ** 2).sum(axis=2), axis=1)
    order = thieves.by_region(rows, seed=0)
    assert sorted(order.tolist()) == list(range(400))
    assert (nearest[order][1:] != nearest[order][:-1]).sum() < 100


def test_a_narrow_customer_has_no_ceiling_and_a_thief_has() -> None:
    """H is everything and nothing is lost; F ends where recall falls by a tenth."""
    labels = np.arange(400) % 3
    user = walks.honest(GUARD, Traffic("t", "narrow", NARROW, labels, 100), rng=RNG)
    assert (user.ceiling, user.requery_equal, user.retry_charge) == (400, 1.0, 1.0)
    assert user.recall10 > 0.999
    free = walks.free_broad(GUARD, BROAD, rng=RNG)
    assert 50 < free < 1000
    steps = list(walks.walk(GUARD, BROAD, rng=RNG))
    assert all(step.recall10 > 0.89 for step in steps if step.count <= free)
    assert steps[-1].recall10 < 0.9


def test_a_refused_customer_keeps_nothing() -> None:
    """A task as wide as the space meets the ceiling: no recall, no accuracy, everything paid."""
    wide = Traffic("t", "wide", BROAD, np.arange(2000) % 3, 100)
    low = Guard(replace(profiles.RECOMMENDED, ceiling=0.6), CALIBRATION, secret=bytes(32))
    user = walks.honest(low, wide, rng=RNG)
    assert (user.recall10, user.accuracy) == (0.0, 0.0)
    assert 0 < user.ceiling < 1000
    with pytest.raises(BenchError, match="a task with test inputs"):
        walks.probe(Traffic("pool", "broad", BROAD), BROAD)


def test_filters_recover_what_can_be_told_from_noise() -> None:
    """Without noise nothing is left wrong; with it the filters beat doing nothing."""
    rows = around(20, 1200)
    clean = denoise.Pairs(rows[:900], rows[:900], rows[900:], rows[900:])
    left = dict(denoise.filters(clean))
    assert left["none"] == 0
    assert left["wiener"] < 0.05
    noisy = denoise.draw(Keyed(), rows, CALIBRATION, scale=1.0, key=bytes(32), rng=RNG)
    left = dict(denoise.filters(noisy))
    assert left["none"] == pytest.approx(1.0, abs=0.2)
    assert left["wiener"] < 0.8 * left["none"]
    assert set(left) == {"none", "pca", "wiener", "kernel"}


def test_the_classical_encoders_tell_inputs_apart() -> None:
    """Texts of one subject, and pictures of one pattern, are nearer to each other."""
    money = [f"my card payment {word} failed at the bank" for word in "abcdefghij"]
    sport = [f"the match {word} was won by the home team" for word in "abcdefghij"]
    embed = encoders.lsa(money + sport, dim=4, seed=0)
    rows = embed([*money[:2], sport[0]])
    assert rows.shape == (3, 4)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    rng = np.random.default_rng(0)
    stripes = np.zeros((20, 32, 32, 3), np.uint8)
    stripes[:, ::4] = 200
    dots = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    pictures = np.concatenate([stripes + rng.integers(0, 20, stripes.shape, dtype=np.uint8), dots])
    features = encoders.patches(pictures, centroids=8, seed=0)(pictures[[0, 1, 20]])
    assert features.shape == (3, 32)
    assert (features >= 0).all()
    assert np.linalg.norm(features[0] - features[1]) < np.linalg.norm(features[0] - features[2])


def test_the_best_filler_is_the_one_that_hides_most() -> None:
    """Of the pictures that a thief can blend with, it takes that behind which its pool is narrow."""
    rng = np.random.default_rng(5)
    pool = rng.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    narrow = rng.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)

    def embed(images: Batch) -> Embeddings:
        # An encoder that tells less apart the brighter a picture is.
        rows = np.asarray(images).reshape(len(images), -1).astype(np.float32)
        bright = rows.mean(axis=1, keepdims=True) / 255
        seen: Embeddings = CENTERS[:1] * bright + (1 - bright) ** 4 * (rows - 128) / 32
        return seen.astype(np.float32)

    found = fillers.best(narrow, pool, embed, GUARD)
    assert np.array_equal(found, np.full_like(narrow[0], 255))
    assert len(fillers.candidates(narrow)) == 7
    texts = [f"question {number}" for number in range(40)]
    assert fillers.candidates(texts)[1] == "question 4 question 5 question 6 question 7"
