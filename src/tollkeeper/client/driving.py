"""Taking the steps of `paying`, synchronously and under asyncio."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future
from contextlib import closing
from typing import Any, Protocol

from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.client.paying import Answer, Ask, Send, Solve, Steps, Wait
from tollkeeper.client.solver import Solver
from tollkeeper.errors import BudgetExhausted, ProofError


class Hands(Protocol):
    """What a transport does for `drive`."""

    def send(self, proof: str | None) -> Answer:
        """Send the order, and let go of the answer before."""
        ...

    def ask(self, url: str, body: bytes) -> tuple[int, bytes]:
        """Post JSON with the order's credential."""
        ...


class AsyncHands(Protocol):
    """What a transport does for `drive_async`."""

    async def send(self, proof: str | None) -> Answer:
        """Send the order, and let go of the answer before."""
        ...

    async def ask(self, url: str, body: bytes) -> tuple[int, bytes]:
        """Post JSON with the order's credential."""
        ...


def drive(steps: Steps, hands: Hands, solver: Solver) -> None:
    """Take the steps of one request.

    Raises:
        Exception: whatever sending raises.
    """
    with closing(steps):
        result: Any = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration:
                return
            match step:
                case Send(proof):
                    result = hands.send(proof)
                case Ask(url, body):
                    result = hands.ask(url, body)
                case Solve(puzzle):
                    result = _solution(solver, puzzle, threading.Event())
                case Wait(bought):
                    result = bought.result()


async def drive_async(steps: Steps, hands: AsyncHands, solver: Solver) -> None:
    """Take the steps of one request under asyncio; puzzles are solved beside the event loop.

    Raises:
        Exception: whatever sending raises.
    """
    import asyncio

    with closing(steps):
        result: Any = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration:
                return
            match step:
                case Send(proof):
                    result = await hands.send(proof)
                case Ask(url, body):
                    result = await hands.ask(url, body)
                case Solve(puzzle):
                    result = await _solution_beside(solver, puzzle)
                case Wait(bought):
                    # Shielded: who stops waiting does not stop the others.
                    result = await asyncio.shield(asyncio.wrap_future(bought))


def _solution(
    solver: Solver, puzzle: HashPuzzle | ScryptPuzzle, stop: threading.Event
) -> str | None:
    try:
        return solver.solve(puzzle, stop=stop).solution
    except (BudgetExhausted, ProofError, CancelledError):  # too dear, no solution, closed
        return None


async def _solution_beside(solver: Solver, puzzle: HashPuzzle | ScryptPuzzle) -> str | None:
    """Solve in a thread of its own: those of the event loop are for looking up names and files."""
    import asyncio

    stop = threading.Event()
    solved: Future[str | None] = Future()
    solved.set_running_or_notify_cancel()

    def solve() -> None:
        try:
            solved.set_result(_solution(solver, puzzle, stop))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            solved.set_exception(error)

    threading.Thread(target=solve, name="tollkeeper-puzzle", daemon=True).start()
    try:
        return await asyncio.wrap_future(solved)
    finally:
        stop.set()  # for a request that was cancelled
