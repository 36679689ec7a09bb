"""Solving a puzzle in this thread."""

from __future__ import annotations

from collections.abc import Callable

from tollkeeper.challenge.puzzle import Puzzle
from tollkeeper.errors import ProofError


def solve(puzzle: Puzzle, *, tried: Callable[[int], None] | None = None) -> str:
    """Return the solution, found by trying one counter after the other.

    Args:
        puzzle: what to solve.
        tried: called about every ten milliseconds with the evaluations since the last call;
            raises to give up.

    Raises:
        ProofError: there is no solution among the counters that may be sent.
    """
    return "-".join(_search(puzzle, part, tried) for part in range(puzzle.searches))


def sweep(
    puzzle: Puzzle, part: int, start: int, stop: int, tried: Callable[[int], None] | None = None
) -> str | None:
    """Return the solution of search `part` among counters [start, stop), or None.

    Args:
        puzzle: what to solve.
        part: from 0.
        start: first counter.
        stop: after the last one.
        tried: as for `solve`.
    """
    for first in range(start, stop, puzzle.chunk):
        last = min(first + puzzle.chunk, stop)
        found = puzzle.search(part, first, last)
        if found is not None and puzzle.chunk > 1:
            last = int(found) + 1  # of a cheap search, the solution is the counter
        if tried is not None:
            tried(last - first)
        if found is not None:
            return found
    return None


def no_solution() -> ProofError:
    """Return the error of a puzzle whose counters were all tried."""
    return ProofError("this puzzle has no solution; ask for a new challenge", code="proof_unsolved")


def _search(puzzle: Puzzle, part: int, tried: Callable[[int], None] | None) -> str:
    found = sweep(puzzle, part, 0, puzzle.counters, tried)
    if found is None:
        raise no_solution()
    return found
