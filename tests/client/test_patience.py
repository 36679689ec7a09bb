"""Promises of the payer over time: what is tried again, what is kept, and what is left alone."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import pytest

from tollkeeper.challenge.protocol import Challenge, Issuer, body_digest
from tollkeeper.challenge.puzzle import HashPuzzle
from tollkeeper.client.paying import (
    BACK_OFF_S,
    DECLINED_S,
    KEPT_S,
    MOST_CHALLENGES,
    Answer,
    Ask,
    Order,
    Payer,
    Send,
    Solve,
)
from tollkeeper.client.remembered import _MOST, Remembered
from tollkeeper.testing import FakeClock

ISSUER = Issuer(bytes(32), entropy=bytes)
BODY = json.dumps({"input": ["a", "b"]}).encode()
ORDER = Order("POST", "https://api.example/v1/embeddings", "Bearer sk-1", BODY)
OK = Answer(200, "")
PASSES = "https://api.example/tollkeeper/v1/challenges"


def challenge(salt: str = "s", digest: str = body_digest(BODY)) -> Challenge:
    """Return a challenge that is told from others by its salt."""
    puzzle = HashPuzzle.of(30, salt)
    return ISSUER.issue(puzzle, account="a", policy="p", digest=digest, expires_at=1.8e9)


ONE = challenge()
ASKED = Answer(402, ONE.header())
PROOF = ONE.proof("1-2-3")
PASS = challenge("pass", "")
SOLD = (200, json.dumps({"challenge": PASS.header(), "inputs": 9}).encode())
TOKEN = PASS.proof("4")


def walk(payer: Payer, *results: Any, order: Order = ORDER) -> list[Any]:
    """Take a request's steps, each with the next result, and break off; return the steps."""
    steps = payer.steps(order)
    taken = [next(steps)]
    for result in results:
        try:
            taken.append(steps.send(result))
        except StopIteration:
            return taken
    steps.close()
    return taken


def wishes(steps: list[Any]) -> list[int]:
    """Return how many inputs the passes were for that were asked for."""
    return [json.loads(step.body)["inputs"] for step in steps if isinstance(step, Ask)]


@pytest.fixture
def clock() -> FakeClock:
    """The payer's time."""
    return FakeClock(0.0)


# Proofs that were sent in vain ----------------------------------------------------------------


@pytest.mark.parametrize("status", [None, 408, 429, 500, 503])
def test_a_proof_sent_in_vain_is_sent_again(status: int | None) -> None:
    """After a failure, or no answer at all, the same request costs no second puzzle."""
    payer = Payer()
    outcome = [] if status is None else [Answer(status, "")]
    walk(payer, ASKED, "1-2-3", *outcome)
    assert walk(payer, OK) == [Send(PROOF)]
    assert walk(payer, OK) == [Send(None)]


def test_a_proof_is_for_its_request_alone() -> None:
    """Another body, key, host or mount gets none."""
    payer = Payer()
    walk(payer, ASKED, "1-2-3")
    for other in (
        ORDER._replace(body=b"{}"),
        ORDER._replace(credential="Bearer sk-2"),
        ORDER._replace(url="https://elsewhere.example/v1/embeddings"),
        ORDER._replace(url="https://api.example/other/v1/embeddings"),
        ORDER._replace(method="GET"),
    ):
        assert walk(payer, OK, order=other) == [Send(None)]
    assert walk(payer, OK) == [Send(PROOF)]


def test_a_proof_that_came_too_late_is_replaced() -> None:
    """Whether refused or not known any more, the next challenge is solved."""
    for refusal in ([ASKED], [Answer(400, ""), ASKED]):
        payer = Payer()
        walk(payer, ASKED, "1-2-3")
        steps = walk(payer, *refusal, "7-8-9", OK)
        assert steps[0] == Send(PROOF)
        assert steps[-1] == Send(ONE.proof("7-8-9"))


def test_a_proof_is_not_kept_for_ever(clock: FakeClock) -> None:
    """After a quarter of an hour it has certainly expired."""
    payer = Payer(clock=clock)
    walk(payer, ASKED, "1-2-3")
    clock.advance(KEPT_S)
    assert walk(payer, OK) == [Send(None)]


# What is declined -----------------------------------------------------------------------------


def test_what_was_declined_is_not_tried_again_at_once(clock: FakeClock) -> None:
    """The retries of a client do not have the puzzle considered again; another body does."""
    payer = Payer(clock=clock)
    walk(payer, ASKED, None)
    assert walk(payer, ASKED) == [Send(None)]
    other = ORDER._replace(body=b"{}")
    assert walk(payer, ASKED, order=other)[1] == Solve(ONE.puzzle)
    clock.advance(DECLINED_S)
    assert walk(payer, ASKED)[1] == Solve(ONE.puzzle)


def test_a_server_that_is_never_satisfied_is_left_for_a_while(clock: FakeClock) -> None:
    """Puzzle after puzzle for one request ends after three, however often it is repeated."""
    payer = Payer(clock=clock)
    walk(payer, *[ASKED, "1-2-3"] * MOST_CHALLENGES, ASKED)
    assert walk(payer, ASKED) == [Send(None)]


# Passes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "mount"),
    [
        ("https://api.example/v1/embeddings", ""),
        ("https://api.example/toll/v1/embeddings?a=/v1/b", "/toll"),
        ("https://api.example/v1/toll/v1/embeddings", "/v1/toll"),
        ("https://api.example/toll/v1", "/toll"),
        ("https://api.example/v12/embeddings", ""),
    ],
)
def test_passes_are_sold_beside_the_api(url: str, mount: str) -> None:
    """Behind a mount the route for passes is behind it too."""
    steps = walk(Payer(ahead=9), ASKED, order=ORDER._replace(url=url))
    assert steps[1] == Ask(f"https://api.example{mount}/tollkeeper/v1/challenges", b'{"inputs": 9}')


def test_a_pass_stays_behind_its_mount() -> None:
    """Another server on the same host is not shown it."""
    payer = Payer(ahead=9)
    assert walk(payer, ASKED, SOLD, "4", OK)[-1] == Send(TOKEN)
    other = ORDER._replace(url="https://api.example/other/v1/embeddings")
    assert walk(payer, OK, order=other) == [Send(None)]


def refused(message: str) -> tuple[int, bytes]:
    """Return a 400 of the route for passes."""
    return 400, json.dumps({"error": {"message": message, "param": "inputs"}}).encode()


@pytest.mark.parametrize(
    ("refusals", "asked"),
    [
        ([refused("expected at most 120 inputs for one pass")], [500, 120]),
        ([refused("too many")] * 2, [500, 250, 125]),
        ([(400, b"[1]")], [500, 250]),
        ([refused("at most 900 inputs")], [500, 250]),
        ([refused("at most 0 inputs")], [500, 250]),
    ],
)
def test_a_pass_that_is_too_large_is_asked_for_smaller(
    refusals: list[Any], asked: list[int]
) -> None:
    """As large as the refusal allows or else half as large, and the next one at once so."""
    payer = Payer(ahead=500)
    steps = walk(payer, ASKED, *refusals, SOLD, "4", OK)
    assert wishes(steps) == asked
    assert steps[-1] == Send(TOKEN)
    assert wishes(walk(payer, ASKED)) == asked[-1:]


def test_a_pass_that_is_declined_is_asked_for_smaller() -> None:
    """Half of what would take too long to solve may not."""
    payer = Payer(ahead=500)
    steps = walk(payer, ASKED, SOLD, None, SOLD, "4", OK)
    assert wishes(steps) == [500, 250]
    assert steps[-1] == Send(TOKEN)


@pytest.mark.parametrize("answers", [[SOLD, None] * MOST_CHALLENGES, [(404, b"")]])
def test_where_no_pass_can_be_had_is_left_for_a_while(
    answers: list[Any], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests pay for themselves meanwhile; the log says so once, without the key."""
    payer = Payer(ahead=10**6, clock=clock)
    with caplog.at_level(logging.WARNING):
        assert walk(payer, ASKED, *answers, "1-2-3", OK)[-1] == Send(PROOF)
        assert walk(payer, ASKED, "1-2-3", OK) == [Send(None), Solve(ONE.puzzle), Send(PROOF)]
        clock.advance(BACK_OFF_S)
        steps = walk(payer, ASKED, *answers, "1-2-3", OK)
    assert isinstance(steps[1], Ask)
    (line,) = caplog.messages
    assert line.startswith("no pass can be had at https://api.example (")
    assert "sk-1" not in line


def test_a_pass_is_never_smaller_than_its_request() -> None:
    """Where not even that can be had, the request pays for itself."""
    steps = walk(Payer(ahead=3), ASKED, refused("no"), refused("no"), "1-2-3", OK)
    assert wishes(steps) == [3, 2]
    assert steps[-1] == Send(PROOF)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # from 3.12 on
def test_a_forked_child_waits_for_nobody() -> None:
    """A pass that its parent is buying is none of its own."""
    payer = Payer(ahead=9)
    buying = payer.steps(ORDER)
    next(buying)
    assert isinstance(buying.send(ASKED), Ask)
    child = os.fork()
    if child == 0:
        alone = payer.steps(ORDER)
        next(alone)
        os._exit(0 if isinstance(alone.send(ASKED), Ask) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    buying.close()


# Memory ---------------------------------------------------------------------------------------


def test_the_oldest_is_forgotten_first(clock: FakeClock) -> None:
    """However many requests there are, only so many are remembered."""
    memory: Remembered[int] = Remembered(1.0, clock=clock)
    for i in range(_MOST + 1):
        memory.put(i, i)
    assert (memory.get(0), memory.get(1), memory.take(_MOST)) == (None, 1, _MOST)
    assert memory.get(_MOST) is None
    clock.advance(1.0)
    assert memory.get(1) is None
