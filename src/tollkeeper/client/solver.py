"""Solving challenges: here or in several processes, up to a cap, with a tally of what it took."""

from __future__ import annotations

import operator
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Final, Self

from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.client.search import Search
from tollkeeper.client.workers import Slice, Workers, searched
from tollkeeper.errors import BudgetExhausted, ConfigurationError, ProofError

INLINE_S: Final = 0.25
"""Puzzles below this many seconds are solved in the calling thread: a process has to be started
and to be told what to do."""

SLICE_S: Final = 0.02
"""Seconds of one piece of work: how long a search may go on after another process has won."""

_SAMPLE = 20_000
"""Hashes that the rate is measured with; some ten milliseconds."""

_TICK_S = 1e-9
"""A clock may stand still for as long as measuring takes."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Tally:
    """What solving has taken.

    Attributes:
        challenges: solved.
        evaluations: of their algorithms, those of abandoned searches too.
        seconds: of computing, summed over processes.
    """

    challenges: int = 0
    evaluations: int = 0
    seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        """Add field by field."""
        return Tally(*map(operator.add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Solved:
    """One solution.

    Attributes:
        solution: as the proof holds it.
        evaluations: it took.
        seconds: of computing it took, summed over processes.
    """

    solution: str
    evaluations: int
    seconds: float


class Solver:
    """Solves puzzles, from any number of threads at once."""

    def __init__(
        self,
        *,
        processes: int | None = None,
        max_seconds: float = 60.0,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start nothing yet; processes are started by the first puzzle that is worth them.

        Args:
            processes: to search in; 0 searches in the calling thread, None takes one a core.
            max_seconds: a puzzle that is expected to keep the caller waiting longer is declined.
            progress: called, from the thread that solves, with the evaluations of a puzzle so
                far and with those it takes on average.
            clock: seconds.

        Raises:
            ConfigurationError: fewer than 0 processes, or a cap that is no number of seconds.
        """
        if processes is not None and processes < 0:
            raise ConfigurationError(f"expected at least 0 processes, got {processes}")
        if not max_seconds >= 0:
            raise ConfigurationError(f"expected a cap of at least 0 seconds, got {max_seconds}")
        self.max_seconds = max_seconds
        self._processes = _cores() if processes is None else processes
        self._progress = progress
        self._clock = clock
        self._lock = threading.Lock()
        self._measuring = threading.Lock()
        self._rates: dict[HashPuzzle | ScryptPuzzle, float] = {}
        self._workers: Workers | None = None
        self._tally = Tally()

    def cost(self, puzzle: HashPuzzle | ScryptPuzzle) -> float:
        """Return the seconds of computing that a puzzle takes on average, on this machine.

        The first puzzle of an algorithm has its speed measured, which takes some ten
        milliseconds.

        Raises:
            ProofError: it cannot be solved on this machine.
        """
        return puzzle.work / self._rate(puzzle)

    def solve(
        self, puzzle: HashPuzzle | ScryptPuzzle, *, stop: threading.Event | None = None
    ) -> Solved:
        """Solve a puzzle.

        Args:
            puzzle: of a challenge.
            stop: set from elsewhere, it ends the search.

        Raises:
            BudgetExhausted: it would take longer than the cap.
            ProofError: it has no solution, or cannot be solved on this machine.
            concurrent.futures.CancelledError: `stop` was set.
        """
        cost = self.cost(puzzle)
        is_spread = self._processes > 0 and cost > INLINE_S
        waiting = cost / (self._processes if is_spread else 1)
        if waiting > self.max_seconds:
            raise BudgetExhausted(
                f"the challenge takes about {waiting:,.0f} s to solve, and the cap is "
                f"{self.max_seconds:g} s; raise the cap to pay it"
            )
        search = Search(puzzle, stop=stop or threading.Event(), told=self._count)
        if is_spread:
            size = max(puzzle.chunk, round(self._rate(puzzle) * SLICE_S))
            solution = search.spread(self._started(), size=size)
        else:
            solution = search.here(self._clock)
        with self._lock:
            self._tally += Tally(challenges=1)
        return Solved(solution, search.evaluations, search.seconds)

    def tally(self) -> Tally:
        """Return what all solving has taken so far."""
        with self._lock:
            return self._tally

    def close(self) -> None:
        """End the processes; the next puzzle that is worth them starts new ones."""
        with self._lock:
            workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> Workers:
        with self._lock:
            if self._workers is None:
                self._workers = Workers(self._processes, clock=self._clock)
            return self._workers

    def _count(self, search: Search, piece: Slice) -> None:
        with self._lock:
            self._tally += Tally(0, piece.evaluations, piece.seconds)
        if self._progress is not None:
            self._progress(search.evaluations, search.puzzle.work)

    def _rate(self, puzzle: HashPuzzle | ScryptPuzzle) -> float:
        """Return evaluations a second of one process, measured once for each algorithm."""
        trial: HashPuzzle | ScryptPuzzle
        if isinstance(puzzle, HashPuzzle):
            trial, count = HashPuzzle("0" * len(puzzle.salt), 1), _SAMPLE
        else:
            trial, count = puzzle._replace(salt="", first=0, cost=1, prefix="!", seal=""), 1
        with self._measuring:
            if trial not in self._rates:
                self._rates[trial] = count / self._seconds(trial, count)
            return self._rates[trial]

    def _seconds(self, trial: HashPuzzle | ScryptPuzzle, count: int) -> float:
        """Return the seconds of some evaluations."""
        try:
            taken = searched(trial, 0, 0, count, clock=self._clock).seconds
        except ValueError as error:
            raise ProofError(
                f"this machine does not compute {trial.alg} as the challenge wants it",
                code="proof_unsolved",
            ) from error
        return max(taken, _TICK_S)


def _cores() -> int:
    """Return how many processes to search in: none where one core is all there is."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return 0  # there is no interpreter to start
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    return cores if cores > 1 else 0
