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
from tollkeeper.client.speeds import Speeds
from tollkeeper.client.turns import Turns
from tollkeeper.client.workers import Slice, Workers
from tollkeeper.errors import ConfigurationError

INLINE_S: Final = 0.25
"""Puzzles below this many seconds are solved in the calling thread: a process has to be started
and to be told what to do."""

SLICE_S: Final = 0.02
"""Seconds of one piece of work: how long a search may go on after another process has won."""

_PATIENCE = 4
"""Times the cap that a search may take: bad luck is paid, a puzzle that is not what it says is not."""

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
    """Solves puzzles for any number of threads, one after the other.

    Small ones have a line of their own, so that they do not wait for large ones.

    Attributes:
        processes: to search in.
        max_seconds: the cap.
    """

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
            max_seconds: a puzzle that is expected to keep the caller waiting longer, for those
                before it too, is declined; one that takes four times as long is given up.
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
        self.processes = _cores() if processes is None else processes
        self._progress = progress
        self._clock = clock
        self._tally = Tally()
        self._workers: Workers | None = None
        self._begin()

    def _begin(self) -> None:
        """Have locks and lines of this process; no thread of another one is going to free them."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._speeds = Speeds(self._clock)
        self._small = Turns()
        self._large = Turns()

    def _settle_in(self) -> None:
        """Begin anew in a forked child: threads and workers are those of its parent."""
        if self._pid != os.getpid():
            workers, self._workers = self._workers, None
            self._begin()
            if workers is not None:
                workers.abandon()

    def cost(self, puzzle: HashPuzzle | ScryptPuzzle) -> float:
        """Return the seconds of computing that a puzzle takes on average, on this machine.

        The first puzzle of an algorithm has its speed measured, which takes some ten
        milliseconds; searches that are faster correct it.

        Raises:
            ProofError: it cannot be solved on this machine.
        """
        self._settle_in()
        return puzzle.work / self._speeds.of(puzzle)

    def solve(
        self, puzzle: HashPuzzle | ScryptPuzzle, *, stop: threading.Event | None = None
    ) -> Solved:
        """Solve a puzzle.

        Args:
            puzzle: of a challenge.
            stop: set from elsewhere, it ends the search.

        Raises:
            BudgetExhausted: it would take longer than the cap, or has taken four times as long.
            ProofError: it has no solution, or cannot be solved on this machine.
            concurrent.futures.CancelledError: `stop` was set.
        """
        cost = self.cost(puzzle)
        stop = stop or threading.Event()
        is_spread = self.processes > 0 and cost > INLINE_S
        cores = self.processes if is_spread else 1
        search = Search(
            puzzle, stop=stop, told=self._count, most=_PATIENCE * self.max_seconds * cores
        )
        turns = self._large if cost > INLINE_S else self._small
        with turns.turn(cost / cores, most=self.max_seconds, stop=stop):
            if is_spread:
                size = max(puzzle.chunk, round(self._speeds.of(puzzle) * SLICE_S))
                solution = search.spread(self._started(), size=size)
            else:
                solution = search.here(self._clock)
        with self._lock:
            self._tally += Tally(challenges=1)
        return Solved(solution, search.evaluations, search.seconds)

    def tally(self) -> Tally:
        """Return what all solving has taken so far."""
        self._settle_in()
        with self._lock:
            return self._tally

    def close(self) -> None:
        """End the processes and send away who waits; the next puzzle may start new ones."""
        self._settle_in()
        self._large.close()
        self._small.close()
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
                self._workers = Workers(self.processes, clock=self._clock)
            return self._workers

    def _count(self, search: Search, piece: Slice) -> None:
        self._speeds.learn(search.puzzle, piece)
        with self._lock:
            self._tally += Tally(0, piece.evaluations, piece.seconds)
        if self._progress is not None:
            self._progress(search.evaluations, search.puzzle.work)


def _cores() -> int:
    """Return how many processes to search in: none where one core is all there is."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return 0  # there is no interpreter to start
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    return cores if cores > 1 else 0
