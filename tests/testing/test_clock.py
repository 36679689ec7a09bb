"""The fake clock."""

from __future__ import annotations

import pytest

from tollkeeper.testing.clock import FakeClock


def test_stands_still_until_advanced() -> None:
    """Readings repeat until time is advanced by hand."""
    clock = FakeClock(5.0)
    assert [clock(), clock()] == [5.0, 5.0]
    clock.advance(1.5)
    assert clock() == 6.5


def test_step_moves_with_each_reading() -> None:
    """With a step, the k-th reading is k steps after the first."""
    clock = FakeClock(1.0, step=0.25)
    assert [clock() for _ in range(3)] == [1.0, 1.25, 1.5]


def test_never_runs_back() -> None:
    """Negative time is refused, both as step and as advance."""
    with pytest.raises(ValueError, match="do not run back"):
        FakeClock(step=-1.0)
    with pytest.raises(ValueError, match="do not run back"):
        FakeClock().advance(-0.1)
