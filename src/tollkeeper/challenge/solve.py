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


def _search(puzzle: Puzzle, part: int, tried: Callable[[int], None] | None) -> str:
    start, end = 0, puzzle.counters
    while start < end:
        stop = min(start + puzzle.chunk, end)
        found = puzzle.search(part, start, stop)
        if tried is not None:
            tried(stop - start)
        if found is not None:
            return found
        start = stop
    raise ProofError("this puzzle has no solution; ask for a new challenge", code="proof_unsolved")
