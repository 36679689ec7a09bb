"""Promises of the solver: the same solutions wherever they are found, a cap, and a true tally."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tollkeeper
from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.client import Solver, Tally
from tollkeeper.client.solver import _cores
from tollkeeper.errors import BudgetExhausted, ConfigurationError, ProofError
from tollkeeper.testing import FakeClock

SECRET = bytes(32)
SMALL = HashPuzzle.of(2000, "small")
LARGE = HashPuzzle.of(200_000, "large")
SLOW = HashPuzzle.of(10**12, "slow")


def scrypt(work: int) -> ScryptPuzzle:
    """Return a memory-hard puzzle whose runs are short."""
    return ScryptPuzzle.make("salt", 10**6, secret=SECRET, n=64).over(work, work)


class Ticking:
    """A clock that moves by a fixed step with each reading, so that rates are known."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.now = 0.0
        self.lock = threading.Lock()

    def __call__(self) -> float:
        with self.lock:
            self.now += self.step
            return self.now


@pytest.fixture
def two() -> Iterator[Solver]:
    """Search in two processes; each reading of the clock takes a second, so no puzzle is small."""
    with Solver(processes=2, max_seconds=1e9, clock=Ticking(1.0)) as spread:
        yield spread


@pytest.mark.parametrize("puzzle", [SMALL, LARGE, scrypt(5)], ids=["small", "large", "scrypt"])
def test_here_and_in_processes_solutions_are_right(puzzle: Any, two: Solver) -> None:
    """Both ways end with a solution that verifies."""
    with Solver(processes=0) as here:
        for solver in (here, two):
            assert puzzle.is_solved(solver.solve(puzzle).solution, secret=SECRET)


def test_the_tally_is_the_sum_of_what_was_solved(solver: Solver) -> None:
    """Challenges, evaluations and seconds add up; a solution's evaluations are its counters."""
    assert solver.tally() == Tally()
    solved = [solver.solve(SMALL), solver.solve(LARGE), solver.solve(scrypt(3))]
    counters = [int(counter) + 1 for counter in solved[0].solution.split("-")]
    assert solved[0].evaluations == sum(counters)
    tally = solver.tally()
    assert tally.challenges == 3
    assert tally.evaluations == sum(one.evaluations for one in solved)
    assert tally.seconds == pytest.approx(sum(one.seconds for one in solved))
    assert tally.seconds > 0


def test_seconds_of_several_processes_are_summed(two: Solver) -> None:
    """What the process did that came second was paid too."""
    solved = two.solve(LARGE)
    assert two.tally() == Tally(1, solved.evaluations, solved.seconds)
    counters = sum(int(counter) + 1 for counter in solved.solution.split("-"))
    assert solved.evaluations >= counters


def test_progress_is_told_up_to_the_end() -> None:
    """The callback hears growing numbers, the last one what it took, beside what is expected."""
    heard: list[tuple[int, int]] = []
    with Solver(processes=0, progress=lambda *told: heard.append(told)) as solver:
        solved = solver.solve(LARGE)
    assert [expected for _, expected in heard] == [LARGE.work] * len(heard)
    so_far = [done for done, _ in heard]
    assert so_far == sorted(so_far)
    assert so_far[-1] == solved.evaluations


def test_what_takes_longer_than_the_cap_is_declined() -> None:
    """The error names both times; nothing is searched, and the speed is measured once."""
    clock = Ticking(0.5)  # the sample of 4,000 hashes takes half a second
    solver = Solver(processes=0, max_seconds=10, clock=clock)
    assert solver.cost(HashPuzzle.of(80_000, "x")) == pytest.approx(10, rel=1e-3)
    readings = clock.now
    with pytest.raises(BudgetExhausted, match=r"about 20 s to solve, and the cap is 10 s"):
        solver.solve(HashPuzzle.of(160_000, "x"))
    assert clock.now == readings
    assert solver.tally() == Tally()


def test_processes_raise_the_cap() -> None:
    """The cap is on waiting, which several processes share."""
    puzzle = HashPuzzle.of(160_000, "x")
    with Solver(processes=2, max_seconds=10.1, clock=Ticking(0.5)) as solver:
        assert puzzle.is_solved(solver.solve(puzzle).solution)


def test_a_clock_that_stands_still_is_no_error() -> None:
    """A clock too coarse to measure a speed makes every puzzle look short."""
    solver = Solver(processes=0, clock=FakeClock(0.0))
    assert SMALL.is_solved(solver.solve(SMALL).solution)


def test_a_puzzle_without_a_solution_is_an_error(solver: Solver, two: Solver) -> None:
    """When all counters are tried the message says to ask for a new challenge."""
    hopeless = scrypt(3)._replace(prefix="!" * 16)
    for one in (solver, two):
        with pytest.raises(ProofError, match="no solution; ask for a new challenge"):
            one.solve(hopeless)
        assert one.tally().challenges == 0


def test_parameters_that_scrypt_refuses_are_an_error(solver: Solver) -> None:
    """What this machine cannot compute is found out before anything is searched."""
    with pytest.raises(ProofError, match="does not compute scrypt as the challenge wants it"):
        solver.solve(scrypt(3)._replace(n=2**18, r=1))


@pytest.mark.parametrize("processes", [0, 2])
def test_a_search_that_nobody_waits_for_ends(processes: int) -> None:
    """Setting the event ends it, here and in processes."""
    stop = threading.Event()
    stop.set()
    clock = Ticking(1.0)
    with Solver(processes=processes, max_seconds=1e12, clock=clock) as solver:
        with pytest.raises(CancelledError):
            solver.solve(SLOW, stop=stop)
        assert solver.tally().challenges == 0
        assert solver.tally().evaluations > 0


def test_closing_ends_a_search() -> None:
    """A solver that is closed in the middle of a puzzle lets go of it, and can be used again."""
    started = threading.Event()
    clock = Ticking(1.0)
    solver = Solver(processes=2, max_seconds=1e12, clock=clock, progress=lambda *_: started.set())
    with ThreadPoolExecutor(1) as pool:
        search = pool.submit(solver.solve, SLOW)
        assert started.wait(30)
        solver.close()
        with pytest.raises(CancelledError):
            search.result(30)
    assert LARGE.is_solved(solver.solve(LARGE).solution)
    solver.close()
    solver.close()


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_a_killed_process_is_replaced(two: Solver) -> None:
    """Its piece of work is done by the next one."""
    two.solve(LARGE)
    held = two._workers
    assert held is not None
    children = []
    while not held._idle.empty():
        children.append(held._idle.get())
    for child in children:
        assert child is not None
        os.kill(child._child.pid, signal.SIGKILL)
        held._idle.put(child)
    puzzle = HashPuzzle.of(100_000, "after")
    assert puzzle.is_solved(two.solve(puzzle).solution)


def test_without_processes_to_start_it_is_solved_here(
    two: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no process can be started, the puzzle is solved nevertheless."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert LARGE.is_solved(two.solve(LARGE).solution)


def test_many_threads_share_one_solver(two: Solver) -> None:
    """Each gets the solution of its own puzzle, and the tally counts all."""
    puzzles = [HashPuzzle.of(20_000, f"thread {i}") for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        solved = list(pool.map(two.solve, puzzles))
    for puzzle, one in zip(puzzles, solved, strict=True):
        assert puzzle.is_solved(one.solution)
    assert two.tally().challenges == 8
    assert two.tally().evaluations == sum(one.evaluations for one in solved)


def test_small_puzzles_start_no_process() -> None:
    """A process is started only for a puzzle that is worth it."""
    with Solver(processes=2, clock=Ticking(1e-6)) as solver:
        solver.solve(SMALL)
        assert solver._workers is None


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    """Processes do not import the script that asked for them, nor files beside it."""
    (tmp_path / "json.py").write_text("raise SystemExit('imported a file of the user')")
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path[0] = {str(Path(tollkeeper.__file__).parents[1])!r}\n"
        "from tollkeeper.client import Solver\n"
        "from tollkeeper.challenge.puzzle import HashPuzzle\n"
        "print('running')\n"
        "puzzle = HashPuzzle.of(3_000_000, 'x')\n"
        "solver = Solver(processes=2)\n"
        "print(puzzle.is_solved(solver.solve(puzzle).solution), solver._workers is not None)\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("running\nTrue True\n", "", 0)


def test_options_that_make_no_sense_are_refused() -> None:
    """Fewer than no processes, and caps that are no number of seconds."""
    with pytest.raises(ConfigurationError, match="at least 0 processes, got -1"):
        Solver(processes=-1)
    for cap in (-1.0, float("nan")):
        with pytest.raises(ConfigurationError, match="at least 0 seconds"):
            Solver(max_seconds=cap)


def test_a_frozen_program_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `sys.executable` is the program itself, puzzles are solved in the calling thread."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert _cores() == 0
