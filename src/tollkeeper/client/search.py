"""The search for one puzzle's solution, here or spread over several processes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from itertools import islice

from tollkeeper.challenge.puzzle import Puzzle
from tollkeeper.challenge.solve import no_solution, solve
from tollkeeper.client.workers import Slice, Workers
from tollkeeper.errors import BudgetExhausted


class Search:
    """One puzzle that is being solved.

    Attributes:
        puzzle: which.
        evaluations: so far, those of abandoned pieces too.
        seconds: of computing so far, summed over processes.
    """

    def __init__(
        self,
        puzzle: Puzzle,
        *,
        stop: threading.Event,
        told: Callable[[Search, Slice], None],
        most: float = math.inf,
    ) -> None:
        """Search nothing yet.

        Args:
            puzzle: to be solved.
            stop: ends the search when it is set.
            told: called with this search and each piece that was done.
            most: seconds of computing after which it is given up.
        """
        self.puzzle = puzzle
        self.evaluations = 0
        self.seconds = 0.0
        self._stop = stop
        self._told = told
        self._most = most

    def here(self, clock: Callable[[], float]) -> str:
        """Return the solution, found in this thread.

        Args:
            clock: seconds.

        Raises:
            ProofError: there is none.
            BudgetExhausted: it took more than the most.
            CancelledError: the search was stopped.
        """
        began = clock()

        def tried(evaluations: int) -> None:
            nonlocal began
            before, began = began, clock()
            self._count(Slice(evaluations, None, began - before))
            self._go_on()

        return solve(self.puzzle, tried=tried)

    def spread(self, workers: Workers, *, size: int) -> str:
        """Return the solution, found by all workers together.

        Args:
            workers: who search.
            size: counters in one piece.

        Raises:
            ProofError: there is none.
            BudgetExhausted: it took more than the most.
            CancelledError: the search was stopped.
        """
        late: set[Future[Slice]] = set()
        try:
            parts = range(self.puzzle.searches)
            return "-".join(self._race(workers, part, size, late) for part in parts)
        finally:
            # What those did who came second was paid too.
            for future in [future for future in late if not future.cancel()]:
                self._count(future.result())

    def _race(self, workers: Workers, part: int, size: int, late: set[Future[Slice]]) -> str:
        """Solve one search of the puzzle; leave in `late` what is then still under way."""
        starts = iter(range(0, self.puzzle.counters, size))
        free = workers.count
        pending: set[Future[Slice]] = set()
        try:
            while True:
                for start in islice(starts, free):
                    stop = min(start + size, self.puzzle.counters)
                    pending.add(workers.search(self.puzzle, part, start, stop))
                if not pending:
                    raise no_solution()
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                free = len(done)
                for found in [self._count(future.result()) for future in done]:
                    if found is not None:
                        return found
                self._go_on()
        finally:
            late |= pending

    def _count(self, piece: Slice) -> str | None:
        self.evaluations += piece.evaluations
        self.seconds += piece.seconds
        self._told(self, piece)
        return piece.found

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise CancelledError
        if self.seconds > self._most:
            raise BudgetExhausted(
                f"the challenge is not solved after {self.seconds:,.0f} s of computing; raise the "
                "cap to go on longer"
            )
