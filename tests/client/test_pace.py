"""Promises of the pace: few at once, evenly spaced, and quiet when told to wait."""

from __future__ import annotations

import threading

import pytest

from tollkeeper.client.pace import Pace
from tollkeeper.errors import ConfigurationError
from tollkeeper.testing import FakeClock


def no_limit(wait_s: float) -> None:
    """Allow any wait."""


def test_calls_begin_evenly_spaced() -> None:
    """At 4 calls a second one begins each quarter second, and idle time is not saved up."""
    clock = FakeClock()
    pace = Pace(calls_per_second=4, clock=clock, sleep=clock.advance)
    begun = []
    for idle in (0, 0, 0, 10, 0):
        clock.advance(idle)
        with pace.turn(no_limit):
            begun.append(clock.now)
    assert begun == [0, 0.25, 0.5, 10.5, 10.75]


def test_without_a_rate_nothing_waits() -> None:
    """Only the number at once is limited by default."""
    clock = FakeClock()
    pace = Pace(clock=clock, sleep=clock.advance)
    for _ in range(20):
        with pace.turn(no_limit):
            pass
    assert clock.now == 0


def test_at_most_so_many_at_once() -> None:
    """Of twelve threads three hold a place at the same time, never four."""
    pace = Pace(concurrency=3)
    three = threading.Barrier(3, timeout=60)
    lock = threading.Lock()
    inside = [0]
    peaks = []

    def call() -> None:
        with pace.turn(no_limit):
            with lock:
                inside[0] += 1
                peaks.append(inside[0])
            three.wait()  # passes only if three are inside together
            with lock:
                inside[0] -= 1
            three.wait()

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(peaks) == 12
    assert max(peaks) == 3


def test_holding_back_quiets_everybody() -> None:
    """After a request to wait no call begins before its end; overlapping ones do not add up."""
    clock = FakeClock()
    pace = Pace(clock=clock, sleep=clock.advance)
    assert pace.hold_back(10) == 10
    clock.advance(4)
    assert pace.hold_back(2) == 0
    assert pace.hold_back(9) == 3
    with pace.turn(no_limit):
        assert clock.now == 13


def test_waits_are_told_and_can_be_given_up() -> None:
    """Whoever waits is asked at each nap of at most a second, and giving up frees the place."""
    clock = FakeClock()
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        clock.advance(seconds)

    pace = Pace(concurrency=1, clock=clock, sleep=sleep)
    pace.hold_back(2.5)
    told: list[float] = []
    with pace.turn(told.append):
        pass
    assert told == [2.5, 1.5, 0.5, 0.0]
    assert naps == [1.0, 1.0, 0.5]

    def refuse(wait_s: float) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError), pace.turn(refuse):
        pass
    with pace.turn(no_limit):
        pass


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"calls_per_second": 0}, {"calls_per_second": float("nan")}]
)
def test_limits_that_let_nothing_pass_are_refused(options: dict[str, float]) -> None:
    """No place or no rate is a configuration error, not a hang."""
    with pytest.raises(ConfigurationError, match="expected"):
        Pace(**options)  # type: ignore[arg-type]  # floats stand for any wrong value
