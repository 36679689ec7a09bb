"""Promises of the payer: who pays what and when, decided without sending anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tollkeeper.challenge.protocol import Challenge, Issuer, body_digest
from tollkeeper.challenge.puzzle import HashPuzzle
from tollkeeper.client.paying import (
    MOST_CHALLENGES,
    Answer,
    Ask,
    Order,
    Payer,
    Send,
    Solve,
    Wait,
    asking_headers,
)
from tollkeeper.errors import ConfigurationError

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


def walk(payer: Payer, *results: Any, order: Order = ORDER) -> list[Any]:
    """Take a request's steps, each with the next result; return the steps."""
    steps = payer.steps(order)
    taken = [next(steps)]
    for result in results:
        try:
            taken.append(steps.send(result))
        except StopIteration:
            break
    else:
        with pytest.raises(StopIteration):
            steps.send(None)
    return taken


def bought(payer: Payer, salt: str = "pass") -> str:
    """Let a payer buy a pass; return it."""
    one = challenge(salt, "")
    walk(payer, asked(challenge()), sold(one), "1-2-3", OK)
    return one.proof("1-2-3")


def test_an_answer_is_an_answer() -> None:
    """What is not challenged is sent once, without a proof."""
    for answer in (OK, BAD, Answer(429, ""), Answer(401, "Bearer")):
        assert walk(Payer(), answer) == [Send(None)]


def test_a_challenge_is_solved_and_the_order_sent_again() -> None:
    """The proof repeats the challenge character by character."""
    one = challenge()
    steps = walk(Payer(), asked(one), "1-2-3", OK)
    proof = f"{one.id}.{one.request}.{one.expires}.{one.digest}.1-2-3"
    assert steps == [Send(None), Solve(one.puzzle), Send(proof)]


def test_a_new_challenge_is_solved_too_but_not_without_end() -> None:
    """After three in a row the last answer is the caller's."""
    answers: list[Any] = []
    for i in range(MOST_CHALLENGES + 2):
        answers += [asked(challenge(f"s{i}")), "1-2-3"]
    steps = walk(Payer(), *answers)
    assert [type(step) for step in steps] == [Send] + [Solve, Send] * MOST_CHALLENGES


def test_what_is_declined_goes_to_the_caller() -> None:
    """No solution means no second request."""
    assert walk(Payer(), asked(challenge()), None) == [Send(None), Solve(challenge().puzzle)]


def test_a_402_that_is_not_ours_goes_to_the_caller() -> None:
    """Other schemes and garbage are left alone."""
    for told in ("", "Bearer", "Payment id=1", "ÿ"):
        assert walk(Payer(ahead=5), Answer(402, told)) == [Send(None)]


def test_a_bulk_job_pays_ahead() -> None:
    """The first challenge buys a pass at the request's origin; later requests carry it."""
    payer = Payer(ahead=500)
    one = challenge("pass", "")
    steps = walk(payer, asked(challenge()), sold(one), "1-2-3", OK)
    token = one.proof("1-2-3")
    ask = Ask("https://api.example/tollkeeper/v1/challenges", b'{"inputs": 500}')
    assert steps == [Send(None), ask, Solve(one.puzzle), Send(token)]
    assert ".." in token
    assert walk(payer, OK) == [Send(token)]


def test_a_request_larger_than_what_is_paid_ahead_is_paid_whole() -> None:
    """A pass covers at least the request that it was bought for."""
    for body, inputs in (
        ({"input": ["a"] * 7}, 7),
        ({"input": [[1, 2], [3]]}, 2),
        ({"input": [1, 2, 3]}, 1),
        ({"input": "text"}, 1),
        ({"input": []}, 1),
        ({}, 1),
        ([], 1),
    ):
        order = ORDER._replace(body=json.dumps(body).encode())
        steps = walk(Payer(ahead=1), asked(challenge()), (404, b""), None, order=order)
        assert steps[1] == Ask(
            "https://api.example/tollkeeper/v1/challenges", b'{"inputs": %d}' % inputs
        )
    assert ORDER._replace(body=b"[" * 10_000).inputs == 1
    assert ORDER._replace(body=b"\xff").inputs == 1


@pytest.mark.parametrize(
    "other",
    [
        ORDER._replace(url="https://elsewhere.example/v1/embeddings"),
        ORDER._replace(url="http://api.example/v1/embeddings"),
        ORDER._replace(url="https://api.example:8443/v1/embeddings"),
        ORDER._replace(credential="Bearer sk-2"),
        ORDER._replace(credential=""),
        ORDER._replace(method="GET"),
    ],
)
def test_a_pass_is_shown_to_nobody_else(other: Order) -> None:
    """Another host, scheme, port or credential gets no proof; nor does what embeds nothing."""
    payer = Payer(ahead=5)
    bought(payer)
    assert walk(payer, OK, order=other) == [Send(None)]


def test_a_password_in_the_address_is_not_of_the_origin() -> None:
    """The route for passes is asked at the host alone."""
    order = ORDER._replace(url="https://Me:pw@API.example/v1/embeddings")
    assert order.origin == ORDER.origin


def test_a_pass_that_is_used_up_is_replaced() -> None:
    """The request that finds out buys the next one."""
    payer = Payer(ahead=5)
    old = bought(payer)
    new = challenge("new", "")
    steps = walk(payer, asked(challenge()), sold(new), "4-5-6", OK)
    assert steps[0] == Send(old)
    assert steps[-1] == Send(new.proof("4-5-6"))
    assert walk(payer, OK) == [Send(new.proof("4-5-6"))]


def test_a_fresh_pass_that_does_not_cover_a_request_is_kept() -> None:
    """That request pays for itself, and no second pass is bought for it."""
    payer = Payer(ahead=5)
    one = challenge("pass", "")
    alone = challenge("alone")
    steps = walk(payer, asked(challenge()), sold(one), "1", asked(alone), "2", OK)
    assert steps[-2:] == [Solve(alone.puzzle), Send(alone.proof("2"))]
    assert walk(payer, OK) == [Send(one.proof("1"))]


@pytest.mark.parametrize(
    ("answer", "asks_again"),
    [
        ((404, b""), False),
        ((503, b""), True),
        ((429, b"{}"), True),
        ((200, b"not JSON"), True),
        ((200, b'"x"'), True),
        ((200, b"[" * 5000), True),
        ((200, b'{"challenge": 5}'), True),
        ((200, b'{"challenge": "Payment nothing"}'), True),
        (sold(None), True),
        (sold(challenge("bound to a body")), True),
    ],
)
def test_without_a_pass_each_request_pays_for_itself(
    answer: tuple[int, bytes], asks_again: bool
) -> None:
    """What the route answers instead of a pass is no error; a missing route is not asked again."""
    payer = Payer(ahead=5)
    one = challenge()
    steps = walk(payer, asked(one), answer, "1-2-3", OK)
    assert steps[2:] == [Solve(one.puzzle), Send(one.proof("1-2-3"))]
    again = walk(payer, asked(one), *[answer] * asks_again, "1-2-3", OK)
    assert isinstance(again[1], Ask) == asks_again


def test_bad_input_does_not_cost_a_pass() -> None:
    """A 400 that comes without the pass too is the input's fault."""
    payer = Payer(ahead=5)
    token = bought(payer)
    assert walk(payer, BAD, BAD) == [Send(token), Send(None)]
    assert walk(payer, OK) == [Send(token)]


def test_a_pass_that_the_server_does_not_know_is_forgotten() -> None:
    """A server with another secret calls it forged; the request goes on without."""
    payer = Payer(ahead=5)
    token = bought(payer)
    one, new = challenge(), challenge("new", "")
    steps = walk(payer, BAD, asked(one), sold(new), "9", OK)
    assert steps[:2] == [Send(token), Send(None)]
    assert steps[-1] == Send(new.proof("9"))


def test_of_many_requests_one_buys_the_pass() -> None:
    """The others wait for it and use it."""
    payer = Payer(ahead=5)
    first, second = payer.steps(ORDER), payer.steps(ORDER)
    next(first), next(second)
    assert isinstance(first.send(asked(challenge())), Ask)
    waiting = second.send(asked(challenge()))
    assert isinstance(waiting, Wait)
    assert not waiting.bought.done()
    one = challenge("pass", "")
    first.send(sold(one))
    assert first.send("1") == Send(one.proof("1"))
    assert waiting.bought.done()
    assert second.send(None) == Send(one.proof("1"))
    late = payer.steps(ORDER)
    next(late)


def test_who_breaks_off_lets_the_others_go_on() -> None:
    """A buyer that fails leaves nobody waiting; they pay for themselves."""
    payer = Payer(ahead=5)
    first, second = payer.steps(ORDER), payer.steps(ORDER)
    next(first), next(second)
    first.send(asked(challenge()))
    waiting = second.send(asked(challenge()))
    assert isinstance(waiting, Wait)
    first.close()
    assert waiting.bought.done()
    assert second.send(None) == Solve(challenge().puzzle)
    assert isinstance(walk(payer, asked(challenge()), (404, b""), None)[1], Ask)


def test_a_pass_bought_meanwhile_is_used() -> None:
    """A request that was under way without one does not buy a second."""
    payer = Payer(ahead=5)
    slow = payer.steps(ORDER)
    next(slow)
    token = bought(payer)
    assert slow.send(asked(challenge())) == Send(token)


def test_less_than_one_input_ahead_is_refused() -> None:
    """The message says what was expected."""
    with pytest.raises(ConfigurationError, match="at least 1 input ahead, got 0"):
        Payer(ahead=0)


def test_the_wish_for_a_pass_has_the_requests_headers() -> None:
    """Credential and whatever a proxy wants go along, what describes the body does not."""
    sent = [("Authorization", "Bearer k"), ("X-Proxy", "1"), ("Content-Length", "5")]
    sent += [("Content-Type", "a/b"), ("Idempotency-Key", "x"), ("Content-Encoding", "gzip")]
    sent += [("Accept-Encoding", "gzip")]
    json_ = {"content-type": "application/json", "accept": "application/json"}
    json_["accept-encoding"] = "identity"
    assert asking_headers(sent) == {"Authorization": "Bearer k", "X-Proxy": "1", **json_}
