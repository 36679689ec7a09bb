"""Promises of account histories: above all, their law."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from tollkeeper.detectors.base import AccountDetector
from tollkeeper.detectors.floors import MaxSoftmax
from tollkeeper.detectors.history import CEILING, History, payoffs, upper_limits
from tollkeeper.errors import ConfigurationError, DetectorError
from tollkeeper.types import Scores

SHAPE, CLASSES = (1, 4, 4), 3


def history(n: int = 5000, *, seed: int = 0, slack: float = 1.0) -> History:
    """Return a history calibrated on n normal scores."""
    honest = np.random.default_rng(seed).normal(size=n)
    return History(MaxSoftmax(SHAPE, CLASSES), honest, slack=slack)


def highest(followed: History, scores: Scores) -> float:
    """Return the most suspicion that an account with these scores ever raises."""
    return float(followed.follow(followed.empty(), scores)[0].max())


def test_honest_accounts_raise_the_alarm_at_most_at_the_rate_stated() -> None:
    """Of 360 honest accounts of 500 queries, hardly more than `rate` ever reach `alarm_at`."""
    rng = np.random.default_rng(1)
    most = []
    for seed in range(6):  # Several calibrations: the law holds for nearly each.
        followed = history(2000, seed=seed)
        most += [highest(followed, rng.normal(size=500)) for _ in range(60)]
    for rate in (0.5, 0.2, 0.05):
        share = np.mean(np.array(most) >= followed.alarm_at(rate))
        assert share <= rate + 2 * math.sqrt(rate / len(most))
    assert np.mean(np.array(most) >= followed.alarm_at(0.9)) > 0  # Suspicion is not constant.


def test_no_wager_wins_on_honest_traffic() -> None:
    """For rarities that are uniform, and so for larger ones, each payoff's mean is at most 1."""
    rarity = (np.arange(100_000) + 0.5) / 100_000

    assert (payoffs(rarity).mean(axis=0) <= 1 + 1e-9).all()
    assert (payoffs(rarity).mean(axis=0) > 0.5).all()  # The cut takes some of it, not most.
    assert (payoffs(np.minimum(1.3 * rarity, 1)).mean(axis=0) <= 1 + 1e-9).all()
    assert (payoffs(rarity) > 0).all()


def test_limits_hold_together_for_nearly_every_sample() -> None:
    """Of 500 samples at most 1 in 100 has an honest tail probability above any of its limits."""
    rng, n = np.random.default_rng(2), 1000
    limits = upper_limits(n)
    broken = 0
    for _ in range(500):
        # Uniform scores: P(S >= s) = 1 - s, largest for given k just above the k + 1st largest.
        ordered = np.sort(rng.random(n))[::-1]
        broken += bool((1 - ordered > limits[:n]).any())
    assert broken / 500 <= 0.01 + 2 * math.sqrt(0.01 / 500)
    assert (np.diff(limits) >= 0).all()
    assert limits[-1] == 1
    assert limits[10] < 4 * 10 / n  # Limits worth having are not far above the share.


@pytest.mark.parametrize(("mix", "most"), [(1.0, 12), (0.5, 30), (0.1, 160), (0.02, 1500)])
def test_a_thief_is_caught_though_most_of_its_queries_are_honest(mix: float, most: int) -> None:
    """At an alarm of 1 %, queries that a detector tells give away whoever mixes them in."""
    rng, followed, needed = np.random.default_rng(3), history(20_000), []
    for _ in range(9):
        scores = rng.normal(size=most + 100)
        scores[rng.random(most + 100) < mix] = 9
        suspicion, _ = followed.follow(followed.empty(), scores)
        reached = np.flatnonzero(suspicion >= followed.alarm_at(0.01))
        needed.append(reached[0] + 1 if len(reached) else math.inf)
    assert np.median(needed) <= most


def test_a_few_slips_of_a_new_account_are_no_alarm() -> None:
    """At an alarm of 1 %, ten queries odder than all honest ones are needed, and enough."""
    followed = history(20_000)
    suspicion, _ = followed.follow(followed.empty(), np.full(20, 9.0))
    reached = int(np.flatnonzero(suspicion >= followed.alarm_at(0.01))[0]) + 1
    assert 10 <= reached <= 12
    rng = np.random.default_rng(8)
    mixed = np.concatenate([np.full(5, 9.0), rng.normal(size=200)])
    assert highest(followed, mixed) < followed.alarm_at(0.01)


def test_a_good_past_is_no_license() -> None:
    """After 10,000 honest queries, four dozen bad ones raise the alarm."""
    followed = history()
    _, state = followed.follow(followed.empty(), np.random.default_rng(4).normal(size=10_000))

    assert highest_after(followed, state, np.full(48, 9.0)) >= followed.alarm_at(0.01)


def highest_after(followed: History, state: bytes, scores: Scores) -> float:
    """Return the most suspicion that an account in this state comes to raise."""
    return float(followed.follow(state, scores)[0].max())


def test_batches_do_not_matter() -> None:
    """One call of 50 queries and 50 calls of one end in the same state."""
    followed, scores = history(), np.random.default_rng(5).normal(1, 1, size=50)
    whole, end = followed.follow(followed.empty(), scores)
    state, parts = followed.empty(), []
    for score in scores:
        one, state = followed.follow(state, np.array([score]))
        parts.append(one[0])

    assert state == end
    assert parts == whole.tolist()
    assert followed.follow(state, scores[:0])[1] == state


def test_a_state_has_the_size_stated_and_suspicion_a_ceiling() -> None:
    """However bad an account, its state is 128 bytes, and good conduct brings suspicion down."""
    followed = history()
    assert isinstance(followed, AccountDetector)
    suspicion, state = followed.follow(followed.empty(), np.full(500, 9.0))

    assert len(state) == len(followed.empty()) == followed.state_bytes == 128
    assert CEILING - 0.2 < suspicion.max() <= CEILING
    later, _ = followed.follow(state, np.full(6000, -1.0))
    assert later[-1] < followed.alarm_at(0.01)


def test_it_scores_queries_by_its_detector() -> None:
    """`update` is `follow` of what the detector says."""
    rng = np.random.default_rng(6)
    inputs = rng.random((9, *SHAPE), dtype=np.float32)
    answers = rng.dirichlet(np.ones(CLASSES), 9).astype(np.float32)
    followed = history()
    scores = followed.detector.score(inputs, answers)

    assert np.array_equal(
        followed.update(followed.empty(), inputs, answers)[0],
        followed.follow(followed.empty(), scores)[0],
    )


def test_slack_forgives_accounts_that_are_odder() -> None:
    """With slack 3, accounts that ask odd queries three times as often keep the law."""
    rng, rate = np.random.default_rng(7), 0.05
    strict, lenient = history(5000), history(5000, slack=3)
    most = {"strict": 0, "lenient": 0}
    for _ in range(20):
        scores = rng.normal(size=(600, 3)).max(axis=1)  # P(max >= s) <= 3 P(S >= s)
        most["strict"] += highest(strict, scores) >= strict.alarm_at(rate)
        most["lenient"] += highest(lenient, scores) >= lenient.alarm_at(rate)
    assert most["lenient"] / 20 <= rate
    assert most["strict"] / 20 > 0.5


def test_another_calibrations_state_is_refused() -> None:
    """A state of other scores, of another length or of NaN is not carried on."""
    followed, other = history(), history(seed=1)
    with pytest.raises(DetectorError, match="another calibration"):
        followed.follow(other.empty(), np.zeros(1))
    with pytest.raises(DetectorError, match="expected 128 bytes"):
        followed.follow(b"short", np.zeros(1))
    damaged = followed.empty()[:-8] + struct.pack("<d", math.nan)
    with pytest.raises(DetectorError, match="another calibration"):
        followed.follow(damaged, np.zeros(1))


def test_alarm_rates_are_checked() -> None:
    """Only rates from the ceiling's to 1 have a suspicion."""
    assert history().alarm_at(1) == 0
    for rate in (0.0, 1.1, 1e-10, math.nan):
        with pytest.raises(ConfigurationError, match="alarm rate"):
            history().alarm_at(rate)


def test_an_unusable_calibration_is_refused() -> None:
    """Too few scores, NaN, or a slack below 1 are one clear error each."""
    detector = MaxSoftmax(SHAPE, CLASSES)
    for honest in (np.zeros(499), np.full(600, np.nan), np.zeros((600, 2))):
        with pytest.raises(ConfigurationError, match="at least 500 finite honest scores"):
            History(detector, honest)
    with pytest.raises(ConfigurationError, match="slack"):
        History(detector, np.arange(600.0), slack=0.5)


def test_a_thief_is_caught_none_of_whose_queries_is_odd() -> None:
    """Scores a third of a deviation above honest ones, and none above the honest tenth, add up."""
    followed, rng = history(), np.random.default_rng(8)
    scores = rng.normal(0.5, 0.6, size=4000)
    scores = scores[scores < 1.28][:600]

    assert highest_after(followed, followed.empty(), scores) >= followed.alarm_at(0.01)
