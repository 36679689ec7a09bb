"""Promises of tail probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.detectors.tails import Tail
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Scores


def test_rarity_is_the_logarithm_of_the_conformal_p_value() -> None:
    """At honest numbers kept as knots it is exact, and between them it is off by little."""
    honest = np.random.default_rng(1).normal(size=5000)
    tail = Tail.fitted(honest)
    ordered = np.sort(honest)

    for score in (*tail.at[::20], *ordered[::371]):
        p = (1 + (honest >= score).sum()) / 5001
        assert tail(np.array([score]))[0] == pytest.approx(-np.log(p), abs=0.04)


def test_the_tail_goes_on_above_the_largest() -> None:
    """Beyond all honest numbers rarity grows in proportion, so odd and odder stay apart."""
    honest = np.random.default_rng(2).exponential(size=4000)
    top = honest.max()
    found = Tail.fitted(honest)(np.array([top, top + 1, top + 2]))

    assert found[0] == pytest.approx(np.log(4001 / 2), abs=1e-9)
    assert np.diff(found) == pytest.approx([1, 1], abs=0.2)  # an exponential's own slope


def test_ties_are_counted_for_the_honest() -> None:
    """A number that half of the honest share is as likely as half or more of them."""
    tail = Tail.fitted(np.concatenate([np.zeros(500), np.ones(500)]))

    assert tail(np.array([-1.0, 0.0])) == pytest.approx([0, 0])
    assert tail(np.array([1.0]))[0] == pytest.approx(-np.log(501 / 1001))


def test_a_constant_signal_says_nothing() -> None:
    """Where all honest numbers are equal, an equal one is not odd."""
    assert Tail.fitted(np.full(200, 3.0))(np.array([3.0]))[0] == 0


def test_arrays_and_back() -> None:
    """A tail survives being taken apart."""
    tail, at = Tail.fitted(np.random.default_rng(3).normal(size=300)), np.linspace(-5, 9, 40)

    assert np.array_equal(Tail.from_arrays(tail.arrays())(at), tail(at))


@pytest.mark.parametrize("honest", [np.zeros(99), np.full(200, np.nan), np.zeros((200, 2))])
def test_unusable_honest_numbers_are_refused(honest: Scores) -> None:
    """Too few, NaN or a table are one clear error."""
    with pytest.raises(ConfigurationError, match="at least 100 finite honest scores"):
        Tail.fitted(honest)
