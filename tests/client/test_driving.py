"""Promises of the drivers: synchronous and asynchronous requests pay alike, and in peace."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tollkeeper.challenge.protocol import Challenge, Issuer, body_digest
from tollkeeper.challenge.puzzle import HashPuzzle
from tollkeeper.client import Solver
from tollkeeper.client.driving import drive, drive_async
from tollkeeper.client.paying import Answer, Order, Payer

ISSUER = Issuer(bytes(32), entropy=bytes)
URL = "https://api.example/v1/embeddings"
BODY = json.dumps({"input": ["a", "b"]}).encode()
ORDER = Order("POST", URL, "Bearer sk-1", BODY)
OK = Answer(200, "")
BAD = Answer(400, "")


def challenge(salt: str = "s", digest: str = body_digest(BODY)) -> Challenge:
    """Return a challenge that is told from others by its salt."""
    puzzle = HashPuzzle.of(30, salt)
    return ISSUER.issue(puzzle, account="a", policy="p", digest=digest, expires_at=1.8e9)


def asked(one: Challenge) -> Answer:
    """Return a 402."""
    return Answer(402, one.header())


def sold(one: Challenge | None) -> tuple[int, bytes]:
    """Return the answer of the route for passes."""
    told = None if one is None else one.header()
    return 200, json.dumps({"challenge": told, "inputs": 9}).encode()


class FakeHands:
    """Sends nothing: answers each sending with the next of some answers, or raises it."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[Any] = []

    def send(self, proof: str | None) -> Answer:
        """Answer."""
        self.sent.append(proof)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Answer)
        return answer

    def ask(self, url: str, body: bytes) -> tuple[int, bytes]:
        """Answer."""
        self.sent.append(url)
        status, content = self.answers.pop(0)
        return int(status), bytes(content)


class FakeAsyncHands:
    """The same, asynchronously; `meanwhile` is awaited before each answer."""

    def __init__(self, *answers: Any, meanwhile: Callable[[], Any] | None = None) -> None:
        self.hands = FakeHands(*answers)
        self.meanwhile = meanwhile or (lambda: asyncio.sleep(0))

    async def send(self, proof: str | None) -> Answer:
        """Answer."""
        await self.meanwhile()
        return self.hands.send(proof)

    async def ask(self, url: str, body: bytes) -> tuple[int, bytes]:
        """Answer."""
        await self.meanwhile()
        return self.hands.ask(url, body)


def test_both_drivers_pay_the_same(solver: Solver) -> None:
    """They send the same, with a proof that holds."""
    results = [asked(challenge()), sold(challenge("pass", "")), OK]
    hands, beside = FakeHands(*results), FakeAsyncHands(*results)
    drive(Payer(ahead=5).steps(ORDER), hands, solver)
    asyncio.run(drive_async(Payer(ahead=5).steps(ORDER), beside, solver))
    assert hands.sent == beside.hands.sent
    proof = ISSUER.verify(hands.sent[-1], account="a", policy="p", digest=str, now=1.8e9 - 60)
    assert proof.is_pass


def test_puzzles_above_the_cap_are_declined() -> None:
    """The 402 is the last answer."""
    hands = FakeHands(asked(challenge()))
    with Solver(processes=0, max_seconds=0) as unwilling:
        drive(Payer().steps(ORDER), hands, unwilling)
    assert hands.sent == [None]


def test_a_failure_to_send_is_the_callers(solver: Solver) -> None:
    """It comes out as it is, and whoever waits for a pass goes on."""
    payer = Payer(ahead=5)
    hands = FakeHands(asked(challenge()))
    with pytest.raises(IndexError):
        drive(payer.steps(ORDER), hands, solver)
    assert not payer._buying
    with pytest.raises(OSError, match="broken"):
        drive(payer.steps(ORDER), FakeHands(OSError("broken")), solver)


def test_solving_does_not_hold_up_the_event_loop() -> None:
    """Other tasks go on while a puzzle is being solved."""
    ticks: list[str] = []
    loop_turned = threading.Event()

    def progress(done: int, expected: int) -> None:
        ticks.append("solving")
        assert loop_turned.wait(30), "the loop stands still while a puzzle is solved"

    async def main(solver: Solver) -> None:
        async def tick() -> None:
            while "solving" not in ticks:
                await asyncio.sleep(0.001)
            loop_turned.set()

        hands = FakeAsyncHands(asked(challenge()), OK)
        await asyncio.gather(drive_async(Payer().steps(ORDER), hands, solver), tick())

    with Solver(processes=0, progress=progress) as solver:
        asyncio.run(main(solver))
    assert loop_turned.is_set()


def test_a_cancelled_task_stops_its_search_and_lets_others_go_on() -> None:
    """Its search ends, and a task that waited for its pass pays for itself."""
    endless = HashPuzzle("endless", 1, 1)
    dear = ISSUER.issue(endless, account="a", policy="p", digest="", expires_at=1.8e9)
    searching = threading.Event()

    async def main(solver: Solver) -> FakeAsyncHands:
        payer = Payer(ahead=5)
        first = FakeAsyncHands(asked(challenge()), sold(dear))
        second = FakeAsyncHands(asked(challenge()), OK)
        buyer = asyncio.create_task(drive_async(payer.steps(ORDER), first, solver))
        while not searching.is_set():
            await asyncio.sleep(0.001)
        waiter = asyncio.create_task(drive_async(payer.steps(ORDER), second, solver))
        while payer._buying and not second.hands.sent:
            await asyncio.sleep(0.001)
        buyer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await buyer
        await waiter
        return second

    told = Solver(processes=0, max_seconds=float("inf"), progress=lambda *_: searching.set())
    with told as solver:
        sent = asyncio.run(main(solver)).hands.sent  # ends only when the search has ended
    assert sent == [None, challenge().proof(sent[-1].rpartition(".")[2])]


def test_solving_leaves_the_event_loops_threads_alone() -> None:
    """More puzzles than it has threads do not keep it from looking up a name."""
    now = threading.Event()

    class Slow(Solver):
        def solve(self, puzzle: Any, *, stop: threading.Event | None = None) -> Any:
            assert now.wait(30)
            return super().solve(puzzle, stop=stop)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        with Slow(processes=0) as slow:
            hands = [FakeAsyncHands(asked(challenge()), OK) for _ in range(3)]
            paying = [
                asyncio.create_task(drive_async(Payer().steps(ORDER), one, slow)) for one in hands
            ]
            await asyncio.sleep(0.01)
            await asyncio.wait_for(loop.run_in_executor(None, int), 5)
            now.set()
            await asyncio.gather(*paying)
        assert all(one.hands.sent[1] for one in hands)

    asyncio.run(main())


def test_an_error_of_solving_is_raised_where_it_is_waited_for() -> None:
    """What a progress callback raises reaches the task."""

    def broken(done: int, expected: int) -> None:
        raise ZeroDivisionError

    with (
        Solver(processes=0, progress=broken) as bad,
        pytest.raises(ZeroDivisionError),
    ):
        asyncio.run(drive_async(Payer().steps(ORDER), FakeAsyncHands(asked(challenge())), bad))
