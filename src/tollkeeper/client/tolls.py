"""Paying a live target's challenges: within the allowance, one proof at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from tollkeeper.challenge.protocol import PROOF_HEADER, Challenge
from tollkeeper.client.allowance import Allowance, Spend
from tollkeeper.client.solver import Solver


@dataclass(frozen=True, slots=True)
class Paid:
    """A proof to send.

    Attributes:
        proof: value of its header.
        seconds: of computing it took; None once a call with it is written down.
    """

    proof: str
    seconds: float | None

    def headers(self) -> dict[str, str]:
        """Return the header that carries it."""
        return {PROOF_HEADER: self.proof}


def pay(
    challenge: Challenge, *, solver: Solver, allowance: Allowance, stop: threading.Event
) -> Paid:
    """Solve a challenge; what it is expected to take is held until it is known what it took.

    Args:
        challenge: of a 402.
        solver: who solves it.
        allowance: what may be spent.
        stop: ends the search.

    Raises:
        BudgetExhausted: it is expected to go over a cap; nothing was solved.
        ProofError: it has no solution, or cannot be solved on this machine.
        concurrent.futures.CancelledError: `stop` was set.
    """
    held = Spend(puzzle_seconds=solver.cost(challenge.puzzle))
    allowance.hold(held)
    spent = Spend()
    try:
        solved = solver.solve(challenge.puzzle, stop=stop)
        spent = Spend(puzzle_seconds=solved.seconds, challenges=1)
    finally:
        allowance.settle(held, spent)
    return Paid(challenge.proof(solved.solution), solved.seconds)
