"""Windows: nothing is forgotten within one, a stated share stays at each turn, unions commute."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import ConfigurationError
from tollkeeper.guard.layout import Layout
from tollkeeper.guard.windows import DAY_S, Windows

LAYOUT = Layout(4, 10, landmarks=64, samples=4)
KEY = b"deployment"


def sketch(seed: int, share: float = 0.5) -> np.ndarray:
    """A sketch with a share of its bits set, and a sample."""
    rng = np.random.default_rng(seed)
    bits = np.packbits(rng.random(8 * LAYOUT.bitmap_bytes) < share)
    return LAYOUT.joined(bits, LAYOUT.largest(rng.integers(1, 99, 6).astype(np.uint32)))


def turn(windows: Windows, some: np.ndarray, since: float, at: float) -> np.ndarray:
    """The sketch at a later time."""
    return windows.turned(some, LAYOUT, key=KEY, since=since, at=at)


def marks(some: np.ndarray) -> int:
    """How many bits are set."""
    return int(np.unpackbits(LAYOUT.bitmap(some)).sum())


def test_starts_of_months_and_days() -> None:
    """A month begins on its first day in UTC; a window of days at a multiple of its length."""
    at = datetime(2026, 3, 17, 22, tzinfo=UTC).timestamp()
    assert Windows("month", 0).start(at) == datetime(2026, 3, 1, tzinfo=UTC).timestamp()
    assert Windows(1, 0).start(at) == datetime(2026, 3, 17, tzinfo=UTC).timestamp()
    assert Windows(7, 0).start(at) == 7 * DAY_S * (at // (7 * DAY_S))
    for windows in (Windows("month", 0), Windows(7, 0), Windows(1.3, 0)):
        assert windows.start(windows.start(at)) == windows.start(at)


def test_nothing_is_forgotten_within_a_window() -> None:
    """Before the next start, and if the clock goes back, a sketch stays as it is."""
    windows, some = Windows(10, 0.0), sketch(0)
    for at in (0.0, 9.99 * DAY_S, -5 * DAY_S):
        assert turn(windows, some, 0.0, at) is some


@pytest.mark.parametrize("carry", [0.0, 0.25, 0.75, 1.0])
def test_a_turn_keeps_the_stated_share(carry: float) -> None:
    """One turn leaves the share of the marks, two its square; the sample stays."""
    windows, some = Windows(10, carry), sketch(1)
    for turns in (1, 2):
        left = turn(windows, some, 0.0, turns * 10 * DAY_S)
        expected = marks(some) * carry**turns
        assert abs(marks(left) - expected) <= 4 * np.sqrt(marks(some) * 0.25)
        assert np.array_equal(left & some, left)
        assert np.array_equal(LAYOUT.sample(left), LAYOUT.sample(some))


@given(
    seeds=st.tuples(st.integers(0, 50), st.integers(51, 99)),
    carry=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    days=st.lists(st.floats(0, 400), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_turning_commutes_with_union_and_with_looking(
    seeds: tuple[int, int], carry: float, days: list[float]
) -> None:
    """A union turned is the union of what was turned, however often anybody looked between."""
    windows = Windows("month", carry)
    one, other = map(sketch, seeds)
    end = max(days) * DAY_S
    looked, since = one, 0.0
    for day in sorted(days):
        looked = turn(windows, looked, since, day * DAY_S)
        since = windows.start(day * DAY_S)
    at_once = turn(windows, one, 0.0, end)
    assert np.array_equal(looked, at_once)
    united = turn(windows, LAYOUT.merge(one, other), 0.0, end)
    assert np.array_equal(united, LAYOUT.merge(at_once, turn(windows, other, 0.0, end)))


def test_a_long_absence_forgets_all_but_what_is_carried_for_ever() -> None:
    """Years of days leave nothing of any share that is felt, and all of a share of one."""
    some, years = sketch(2), 20 * 365 * DAY_S
    assert marks(turn(Windows(1, 0.9), some, 0.0, years)) == 0
    assert 0 < marks(turn(Windows(30, 0.99), some, 0.0, years)) < marks(some)
    assert turn(Windows(1, 1.0), some, 0.0, years) is some


@pytest.mark.parametrize(
    ("length", "carry"), [(0, 0.5), (-1, 0.5), (float("nan"), 0.5), (float("inf"), 0.5), (1, 1.1)]
)
def test_what_is_no_window(length: float, carry: float) -> None:
    """Lengths below a day and shares outside [0, 1] are refused."""
    with pytest.raises(ConfigurationError, match="expected"):
        Windows(length, carry)
