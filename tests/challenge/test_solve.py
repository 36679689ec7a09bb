"""Promises of solving: every counter is tried, progress is told, and giving up is possible."""

from __future__ import annotations

import json

import pytest

from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.challenge.solve import solve, sweep
from tollkeeper.challenge.worker import answer
from tollkeeper.errors import ProofError

PUZZLE = HashPuzzle.of(90_000, "salt")
HOPELESS = ScryptPuzzle("salt", 7, 5, "!" * 16, "", n=16)


def test_evaluations_are_told_exactly() -> None:
    """Steps add up to the counters that were tried, the last one included."""
    steps: list[int] = []
    counters = [int(counter) for counter in solve(PUZZLE, tried=steps.append).split("-")]
    assert sum(steps) == sum(counters) + len(counters)
    assert max(steps) <= PUZZLE.chunk


def test_whoever_is_told_may_end_the_search() -> None:
    """What the callback raises comes out."""

    def enough(_: int) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        solve(HashPuzzle("endless", 1, 1), tried=enough)


def test_a_puzzle_without_a_solution_is_an_error() -> None:
    """All counters are tried first."""
    steps: list[int] = []
    with pytest.raises(ProofError, match="no solution; ask for a new challenge") as caught:
        solve(HOPELESS, tried=steps.append)
    assert (sum(steps), caught.value.code) == (5, "proof_unsolved")


def test_pieces_make_the_whole() -> None:
    """The counters of a search can be tried in any pieces; exactly one of them has the solution."""
    found = int(solve(PUZZLE).split("-")[1])
    size = 12_345
    pieces = [sweep(PUZZLE, 1, start, start + size) for start in range(0, found + 1, size)]
    assert pieces == [None] * (len(pieces) - 1) + [str(found)]
    assert sweep(PUZZLE, 1, found, found + 1) == str(found)
    assert sweep(PUZZLE, 1, found, found) is None


def test_a_worker_answers_line_by_line() -> None:
    """What it is told is what `sweep` is told, and it says how much it tried."""
    found = int(solve(PUZZLE).split("-")[0])
    line = json.dumps([PUZZLE.fields(), 0, 0, found + 100])
    assert json.loads(answer(line)) == [found + 1, str(found)]
    line = json.dumps([HOPELESS.fields(), 0, 0, 3])
    assert json.loads(answer(line)) == [3, None]
