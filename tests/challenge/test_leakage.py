"""Leakage: published constants, composition, storage and the votes of neighbors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.challenge.leakage import (
    ORDERS,
    Leakage,
    converted,
    converted_each,
    log_q,
    neighbor_votes,
    renyi,
)
from tollkeeper.errors import ConfigurationError, GuardError


def cast(*counts: int, times: int = 1) -> NDArray[np.float64]:
    """Return votes for ten classes, the same every time."""
    return np.tile(np.array([*counts, *[0] * (10 - len(counts))], np.float64), (times, 1))


def mixed(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Return votes of 250 teachers that agree to different degrees."""
    rng = np.random.default_rng(seed)
    return np.array(
        [
            rng.multinomial(250, [share, *[(1 - share) / 9] * 9])
            for share in rng.uniform(0.1, 1, count)
        ]
    )


@pytest.mark.parametrize(
    ("votes", "sigma", "delta", "expected"),
    [
        (cast(250), 10, 1e-5, 0.1883),
        (cast(225, 25), 10, 1e-5, 0.2345),
        (cast(200, 50), 10, 1e-5, 0.3135),
        (cast(175, 75), 10, 1e-5, 0.4663),
        (cast(150, 100), 10, 1e-5, 0.6886),
        (cast(*[25] * 10), 10, 1e-5, 0.6886),
        (cast(250), 10, 1e-6, 0.2257),
        (cast(130, 120), 10, 1e-6, 0.7534),
        (cast(50), 2, 1e-5, 0.9608),
        (cast(26, 24), 2, 1e-5, 3.6447),
    ],
)
def test_a_query_costs_what_the_reference_logs(
    votes: NDArray[np.float64], sigma: float, delta: float, expected: float
) -> None:
    """Costs of single votes are those of the published settings to four digits."""
    assert converted_each(votes, sigma=sigma, delta=delta)[0] == pytest.approx(expected, abs=5e-5)


def test_the_cap_is_the_logged_cost_of_data_free_queries() -> None:
    """22,400 split votes cost what the reference's log says of data-free extraction."""
    cap = converted_each(cast(*[25] * 10), sigma=10, delta=1e-5)[0]
    assert 22_400 * cap == pytest.approx(15_424.98619, rel=1e-7)


@pytest.mark.parametrize(("votes", "expected"), [((245, 5), 0.2047), ((130, 120), 31.51)])
def test_a_thousand_queries_are_composed_before_they_are_converted(
    votes: tuple[int, int], expected: float
) -> None:
    """Clear votes leak next to nothing together, split ones a lot; their sum hides that."""
    many = cast(*votes, times=1000)
    composed = Leakage(10.0).after(many).spent(1e-5)
    assert composed == pytest.approx(expected, abs=5e-3 if expected > 1 else 5e-5)
    assert converted_each(many, sigma=10, delta=1e-5).sum() > 20 * composed


def test_the_wrong_winner_is_bounded_as_by_the_normal_tail() -> None:
    """The bound is the sum of the rivals' tails, checked in plain probabilities."""
    votes = cast(20, 12, 5)
    tails = [0.5 * math.erfc((20 - other) / (2 * 4)) for other in (12, 5, 0, 0, 0, 0, 0, 0, 0)]
    assert log_q(votes, sigma=4)[0] == pytest.approx(math.log(sum(tails)))
    assert log_q(cast(*[3] * 10), sigma=4)[0] == pytest.approx(math.log(0.9))


def test_far_tails_do_not_vanish() -> None:
    """A winner by fifty deviations has a finite logarithm, without a jump where the series begins."""
    gaps = np.linspace(25, 60, 701)
    found = log_q(np.stack([gaps * math.sqrt(2), np.zeros_like(gaps)], axis=1), sigma=1.0)
    slopes = np.diff(found) / np.diff(gaps)
    assert np.isfinite(found).all()
    # The tail falls with the hazard rate, which is z + 1/z up to z to the power of -3.
    middle = (gaps[1:] + gaps[:-1]) / 2
    np.testing.assert_allclose(-slopes, middle + 1 / middle, rtol=1e-5)


def test_losses_are_those_of_the_theorem() -> None:
    """Where the data-dependent bound applies it is the formula in plain numbers, else λ/σ²."""
    sigma, found = 10.0, renyi(cast(200, 50), sigma=10.0)[0]
    log_wrong = log_q(cast(200, 50), sigma=sigma)[0]
    q, mu2 = math.exp(log_wrong), sigma * math.sqrt(-log_wrong)
    mu1 = mu2 + 1
    eps1, eps2 = mu1 / sigma**2, mu2 / sigma**2
    a = (1 - q) / (1 - (q * math.exp(eps2)) ** (1 - 1 / mu2))
    b = math.exp(eps1) / q ** (1 / (mu1 - 1))
    for place, order in enumerate(ORDERS[:150]):
        if order >= mu1:
            expected = order / sigma**2
        else:
            bound = math.log((1 - q) * a ** (order - 1) + q * b ** (order - 1)) / (order - 1)
            expected = min(order / sigma**2, bound)
        assert found[place] == pytest.approx(expected, rel=1e-9)


def test_no_loss_is_above_the_bound_without_data() -> None:
    """Whatever the votes and the noise, losses are finite, positive and at most λ/σ²."""
    for sigma in (0.1, 2.0, 28.0, 1000.0):
        found = renyi(np.concatenate([mixed(200), cast(250), cast(0), cast(1)]), sigma=sigma)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert (found <= ORDERS / sigma**2 * (1 + 1e-12)).all()


def test_clearer_votes_never_cost_more() -> None:
    """Moving votes from the second to the first class never raises the cost."""
    ladder = np.concatenate([cast(125 + n, 125 - n) for n in range(126)])
    costs = converted_each(ladder, sigma=10, delta=1e-5)
    assert (np.diff(costs) <= 1e-12).all()


def test_batches_do_not_matter() -> None:
    """One batch, single queries and two accounts merged in either order have the same state."""
    votes = mixed(300)
    whole = Leakage(10.0).after(votes)
    single = Leakage(10.0)
    for row in votes:
        single = single.after(row[np.newaxis])
    left, right = Leakage(10.0).after(votes[:100]), Leakage(10.0).after(votes[100:])
    for other in (single, left.merge(right), right.merge(left)):
        assert other.queries == whole.queries == 300
        np.testing.assert_allclose(other.loss, whole.loss, rtol=1e-12)


def test_a_walk_tells_what_is_spent_after_each_query() -> None:
    """Each step is the state after so many queries, from any start, and spending never falls."""
    votes = mixed(5000)
    start = Leakage(10.0).after(votes[:7])
    steps = start.walk(votes[7:], delta=1e-5)
    for count in (1, 2, 2048, 2049, 4993):
        expected = start.after(votes[7 : 7 + count]).spent(1e-5)
        assert steps[count - 1] == pytest.approx(expected, rel=1e-9)
    assert (np.diff(steps) >= 0).all()


def test_nothing_asked_is_nothing_spent() -> None:
    """A new account has spent nothing, and an empty batch changes nothing."""
    empty = np.zeros((0, 10))
    assert Leakage(10.0).spent(1e-5) == 0.0
    assert Leakage(10.0).after(empty).queries == 0
    assert Leakage(10.0).walk(empty, delta=1e-5).shape == (0,)
    assert converted_each(empty, sigma=10, delta=1e-5).shape == (0,)


def test_adding_changes_no_earlier_state() -> None:
    """A state is a value: what was read stays as it was."""
    before = Leakage(10.0).after(mixed(5))
    kept = before.loss.copy()
    before.after(mixed(5)).merge(before)
    np.testing.assert_array_equal(before.loss, kept)
    with pytest.raises(ValueError, match="read-only"):
        before.loss[0] = 0
    given = kept.copy()
    state = Leakage(10.0, 5, given)
    given[0] = 99
    np.testing.assert_array_equal(state.loss, kept)


def test_losses_of_no_query_are_refused() -> None:
    """A state that lost its count would read as nothing spent."""
    with pytest.raises(GuardError, match="no loss of 0 queries"):
        Leakage(10.0, 0, Leakage(10.0).after(mixed(5)).loss)


def test_bytes_hold_all_of_a_state() -> None:
    """What was written is read, bit by bit, and takes under 4 KB."""
    state = Leakage(10.0).after(mixed(50))
    stored = state.to_bytes()
    again = Leakage.from_bytes(stored)
    assert (again.sigma, again.queries) == (state.sigma, state.queries)
    np.testing.assert_array_equal(again.loss, state.loss)
    assert len(stored) == 3188


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: b"",
        lambda stored: stored[:-1],
        lambda stored: stored + b"\0",
        lambda stored: b"XXXX" + stored[4:],
        lambda stored: stored[:-8] + np.float64(np.nan).tobytes(),
        lambda stored: stored[:-8] + np.float64(-1).tobytes(),
        lambda stored: stored[:4] + np.float64(0).tobytes() + stored[12:],
    ],
)
def test_damaged_bytes_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    """Truncated, foreign and impossible states never become a meter that reads low."""
    with pytest.raises(GuardError):
        Leakage.from_bytes(spoil(Leakage(10.0).after(mixed(5)).to_bytes()))


def test_states_of_different_noise_do_not_mix() -> None:
    """Losses under different noise are of different meters."""
    with pytest.raises(GuardError, match=r"at sigma 10.0, got one at 2.0"):
        Leakage(10.0).merge(Leakage(2.0))


@pytest.mark.parametrize(
    "votes", [[1, 2], [[1]], [[1, math.nan]], [[1, -1]], [[[1, 2]]], [[math.inf, 1]]]
)
def test_what_are_no_votes_is_refused(votes: object) -> None:
    """Wrong shapes, NaN and negative counts are named."""
    with pytest.raises(ValueError, match="votes"):
        Leakage(10.0).after(votes)  # type: ignore[arg-type]


def test_settings_out_of_range_are_refused() -> None:
    """Noise must be positive and delta a probability."""
    with pytest.raises(ConfigurationError, match="positive finite sigma"):
        renyi(cast(1), sigma=0)
    with pytest.raises(ConfigurationError, match="delta in"):
        converted(renyi(cast(1), sigma=1), delta=0)


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (3000, 1), (-3000, 1), (0, 1e20)])
def test_neighbors_vote_with_their_labels(offset: float, scale: float) -> None:
    """Votes are those of the nearest points found one by one, wherever zero lies."""
    rng = np.random.default_rng(0)
    points = (scale * rng.standard_normal((500, 6)) + offset).astype(np.float32)
    labels = rng.integers(0, 4, 500)
    asked = (scale * rng.standard_normal((300, 6)) + offset).astype(np.float32)
    votes = neighbor_votes(points, labels, asked, neighbors=25, classes=4)
    assert (votes.sum(axis=1) == 25).all()
    for row, point in zip(votes[::37], asked[::37], strict=True):
        nearest = np.argsort(((points - point.astype(np.float64)) ** 2).sum(axis=1))[:25]
        np.testing.assert_array_equal(row, np.bincount(labels[nearest], minlength=4))


def test_neighbors_tell_what_is_like_the_training_data() -> None:
    """Points of one class cost less than points between two, as with teachers."""
    rng = np.random.default_rng(1)
    centers = np.array([[-5.0, 0], [5.0, 0]])
    labels = rng.integers(0, 2, 2000)
    points = (centers[labels] + rng.standard_normal((2000, 2))).astype(np.float32)
    asked = np.array([[-5, 0], [0, 0]], np.float32)
    votes = neighbor_votes(points, labels, asked, neighbors=300, classes=2)
    inside, between = (Leakage(28.0).after(row[np.newaxis]).spent(1e-5) for row in votes)
    assert inside < between


@pytest.mark.parametrize(
    ("width", "neighbors", "classes", "said"),
    [(3, 1, 2, "references"), (2, 9, 2, "1 to 8 neighbors"), (2, 1, 1, "labels from 0 to 0")],
)
def test_neighbors_that_cannot_vote_are_refused(
    width: int, neighbors: int, classes: int, said: str
) -> None:
    """Widths that differ, too many neighbors and unknown labels are named."""
    points, labels = np.zeros((8, 2), np.float32), np.arange(8) % 2
    asked = np.zeros((1, width), np.float32)
    with pytest.raises(ValueError, match=said):
        neighbor_votes(points, labels, asked, neighbors=neighbors, classes=classes)


def test_neighbors_of_nan_are_refused() -> None:
    """A feature of NaN is near nothing, so it gets no votes."""
    points, labels = np.zeros((8, 2), np.float32), np.zeros(8, np.int64)
    with pytest.raises(ValueError, match="finite features"):
        neighbor_votes(points, labels, np.full((1, 2), np.nan, np.float32), neighbors=1, classes=2)
