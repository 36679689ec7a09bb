"""How fast this machine evaluates an algorithm: measured in short samples, then learned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from tollkeeper.challenge.puzzle import HashPuzzle, Puzzle, ScryptPuzzle
from tollkeeper.client.workers import Slice, searched
from tollkeeper.errors import ProofError

_SAMPLES: Final = 5
"""The best one counts: whatever else the machine does can only slow a sample."""

_HASHES: Final = 4000
"""In one sample; some two milliseconds."""

_ENOUGH_S: Final = 0.1
"""Seconds after which no further sample is taken; a run of scrypt may take as long."""

_LEAST_S: Final = 1e-3
"""A piece of a search that is shorter says nothing about the speed."""

_TICK_S: Final = 1e-9
"""A clock may stand still for as long as measuring takes."""

_MOST_KINDS: Final = 64
"""Parameters to remember, which a server chooses."""


class Speeds:
    """Evaluations a second of one process, for each algorithm and its parameters."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Know nothing yet; `clock` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[HashPuzzle | ScryptPuzzle, float] = {}

    def of(self, puzzle: HashPuzzle | ScryptPuzzle) -> float:
        """Return the speed; the first puzzle of its kind has it measured.

        Raises:
            ProofError: it cannot be solved on this machine.
        """
        trial, count = _trial(puzzle)
        with self._lock:
            if trial not in self._known:
                best = self._measured(trial, count)
                while len(self._known) >= _MOST_KINDS:
                    del self._known[next(iter(self._known))]
                self._known[trial] = best
            return self._known[trial]

    def learn(self, puzzle: Puzzle, piece: Slice) -> None:
        """Believe a piece of a search that was faster than what is known."""
        if piece.seconds < _LEAST_S or not isinstance(puzzle, HashPuzzle | ScryptPuzzle):
            return
        trial, _ = _trial(puzzle)
        with self._lock:
            if trial in self._known:
                speed = piece.evaluations / piece.seconds
                self._known[trial] = max(self._known[trial], speed)

    def _measured(self, trial: HashPuzzle | ScryptPuzzle, count: int) -> float:
        taken: list[float] = []
        while len(taken) < _SAMPLES and sum(taken) < _ENOUGH_S:
            taken.append(self._seconds(trial, count))
        return count / min(taken)

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


def _trial(puzzle: HashPuzzle | ScryptPuzzle) -> tuple[HashPuzzle | ScryptPuzzle, int]:
    """Return a puzzle without solution that takes as long a try, and how many tries to time."""
    if isinstance(puzzle, HashPuzzle):
        return HashPuzzle("0" * len(puzzle.salt), 1), _HASHES
    return puzzle._replace(salt="", first=0, cost=1, prefix="!", seal=""), 1
