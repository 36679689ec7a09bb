"""Promises of the solver to many at once: one after the other, and nobody waits in vain."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest

from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.client import Solver
from tollkeeper.client.speeds import _MOST_KINDS, Speeds
from tollkeeper.client.turns import Turns
from tollkeeper.client.workers import Slice
from tollkeeper.errors import BudgetExhausted

PUZZLE = HashPuzzle.of(80_000, "x")


def test_one_at_a_time_in_the_order_of_coming() -> None:
    """Nobody begins before all who came earlier have ended."""
    turns, begun, order = Turns(), threading.Event(), []

    def take(name: int) -> None:
        with turns.turn(1, most=9, stop=threading.Event()):
            order.append((name, "begins"))
            begun.wait(30)
            order.append((name, "ends"))

    with ThreadPoolExecutor(3) as pool:
        for name in range(3):
            pool.submit(take, name)
            while len(turns._line) <= name:
                pass
        begun.set()
    assert order == [(name, what) for name in range(3) for what in ("begins", "ends")]


def test_the_line_counts_as_waiting() -> None:
    """Who would come too late is told at once, how long it takes and why."""
    turns, never = Turns(), threading.Event()
    with (
        turns.turn(6, most=10, stop=never),
        pytest.raises(BudgetExhausted, match=r"about 5 s to solve after 6 s of others.* cap is 10"),
        turns.turn(5, most=10, stop=never),
    ):
        pass
    with turns.turn(10, most=10, stop=never):
        pass


@pytest.mark.parametrize("end", ["stop", "close"])
def test_who_waits_can_be_sent_away(end: str) -> None:
    """Stopped or closed, those in line leave; whoever has the turn keeps it."""
    turns, stop = Turns(), threading.Event()

    def wait() -> None:
        with turns.turn(1, most=9, stop=stop):
            pass

    with ThreadPoolExecutor(1) as pool, turns.turn(1, most=9, stop=threading.Event()):
        waiting = pool.submit(wait)
        while len(turns._line) < 2:
            pass
        stop.set() if end == "stop" else turns.close()
        with pytest.raises(CancelledError):
            waiting.result(30)
    assert not turns._line


class Samples:
    """A clock by which samples take some seconds, one after the other."""

    def __init__(self, *seconds: float) -> None:
        self.readings = [0.0]
        for one in seconds:
            self.readings += [self.readings[-1] + one, self.readings[-1] + one]

    def __call__(self) -> float:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


def test_the_best_sample_counts() -> None:
    """A machine that was busy for a moment is not slow for ever."""
    speeds = Speeds(Samples(0.03, 0.002, 0.02, 0.01, 0.01))
    assert speeds.of(PUZZLE) == pytest.approx(4000 / 0.002)


def test_faster_searches_are_learned_from() -> None:
    """A measurement under load is corrected upward, and by nothing too short to tell."""
    speeds = Speeds(Samples(0.4))
    assert speeds.of(PUZZLE) == pytest.approx(10_000)
    for piece, speed in (
        (Slice(1_000, None, 1.0), 10_000),
        (Slice(1_000, None, 1e-6), 10_000),
        (Slice(50_000, None, 1.0), 50_000),
    ):
        speeds.learn(PUZZLE, piece)
        assert speeds.of(PUZZLE) == pytest.approx(speed)


def test_a_search_teaches_its_solver() -> None:
    """The estimate is better after the first puzzle."""
    clock = Samples(1000.0)
    solver = Solver(processes=0, max_seconds=1e9, clock=clock)
    before = solver.cost(PUZZLE)
    clock.readings = [clock.readings[0] + i / 10 for i in range(100_000)]
    solver.solve(PUZZLE)
    assert solver.cost(PUZZLE) < before / 10


def test_what_is_remembered_of_speeds_is_bounded() -> None:
    """A server that asks for ever new parameters fills no memory."""
    speeds = Speeds(Samples(0.4))
    for p in range(_MOST_KINDS + 5):
        speeds.of(ScryptPuzzle("s", 0, 1, "p" * 16, "", 2, 1, p + 1))
    assert len(speeds._known) == _MOST_KINDS


@pytest.mark.parametrize("processes", [0, 2])
def test_a_search_is_given_up_after_a_few_times_the_cap(processes: int) -> None:
    """What takes far longer than it was expected to is not what it says."""
    told: list[float] = []
    now = [0.0]

    def clock() -> float:
        now[0] += 1e-3 if not told else 100.0
        return now[0]

    with (
        Solver(
            processes=processes,
            max_seconds=60,
            clock=clock,
            progress=lambda done, _: told.append(done),
        ) as solver,
        pytest.raises(BudgetExhausted, match="not solved after"),
    ):
        solver.solve(HashPuzzle("x", 1, 1)._replace(target=2**48 // 10_000_000))
    assert 2 <= len(told) < 20


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # from 3.12 on
def test_a_forked_child_has_its_own_workers() -> None:
    """It solves, ends, and leaves its parent's processes alone."""
    clock = iter(range(10**9))
    with Solver(processes=2, max_seconds=1e9, clock=_counting(clock)) as solver:
        solver.solve(PUZZLE)
        theirs = solver._workers
        assert theirs is not None
        child = os.fork()
        if child == 0:
            ends = 1
            signal.alarm(60)
            try:
                solver._lock.acquire()  # as if another thread had it when the parent forked
                solved = solver.solve(PUZZLE)
                solver.close()
                ends = 0 if PUZZLE.is_solved(solved.solution) else 2
            finally:
                os._exit(ends)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert theirs is solver._workers
        assert PUZZLE.is_solved(solver.solve(PUZZLE).solution)


def _counting(clock: Any) -> Callable[[], float]:
    lock = threading.Lock()

    def read() -> float:
        with lock:
            return float(next(clock))

    return read
