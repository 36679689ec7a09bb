"""The e-process: its arithmetic, its promise under the null, its power."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.audit.sequential import LAMBDAS, bet_scale, crossed, e_process, log_wealth
from tollkeeper.errors import AuditRefused


def test_agrees_with_a_slow_product() -> None:
    """E_t is the mean over gamblers of the products of their bets."""
    y = np.array([0.5, -1.0, 2.0])
    slow = [
        np.mean([np.prod([1 + share * np.tanh(v / 0.7) for v in y[:t]]) for share in LAMBDAS])
        for t in (1, 2, 3)
    ]

    assert e_process(y, s=0.7) == pytest.approx(slow)


def test_coins_rarely_look_like_evidence() -> None:
    """On flipped signs the process ever passes 1/alpha in at most a share alpha of runs."""
    rng = np.random.default_rng(2)
    size = rng.exponential(size=200)
    highest = np.asarray(
        [e_process(size * rng.choice([-1, 1], 200), s=1.0).max() for _ in range(4000)]
    )

    assert (highest >= 1000).mean() < 0.001 + 1e-12
    assert (highest >= 20).mean() <= 0.05 + 0.011


def test_a_shift_is_found_and_the_moment_told() -> None:
    """Differences that lean to one side pass 1000 after a while, and not at once."""
    y = np.random.default_rng(4).normal(0.8, 1, 400)
    found = e_process(y, s=bet_scale(y))
    when = crossed(found)

    assert when is not None
    assert 10 < when < 200
    assert found[when - 1] >= 1000 > found[when - 2]
    assert crossed(found[: when - 1]) is None


def test_the_wrong_side_loses_its_money() -> None:
    """Differences that lean the other way give less than 1."""
    assert e_process(np.full(300, -1.0), s=1.0)[-1] < 0.01


def test_much_evidence_does_not_overflow() -> None:
    """After very many pairs the evidence is the largest finite number."""
    assert np.isfinite(e_process(np.full(3000, 5.0), s=1.0)[-1])
    assert e_process(np.empty(0), s=1.0).shape == (0,)


def test_what_makes_no_fair_bet_is_refused() -> None:
    """NaN, a scale of 0, and more money than there is."""
    with pytest.raises(AuditRefused, match="finite differences"):
        e_process([np.nan], s=1)
    with pytest.raises(AuditRefused, match="bet scale"):
        e_process([1.0], s=0)
    with pytest.raises(AuditRefused, match="shares to bet"):
        log_wealth([1.0], s=1, lambdas=(1.0,))
    with pytest.raises(AuditRefused, match="bets have no scale"):
        bet_scale(np.zeros(5))
    with pytest.raises(AuditRefused, match="finite reference scores"):
        bet_scale([])
