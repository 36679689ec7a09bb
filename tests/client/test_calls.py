"""Promises of calls: tried again politely and within bounds, and nothing unusable gets through."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.client import Allowance, Caps, Spend, Tariff
from tollkeeper.errors import (
    AuthenticationError,
    BudgetExhausted,
    EncoderError,
    RefusalError,
    ThrottledError,
)

Open = Callable[..., Any]
Waited = Callable[[], float]


@pytest.mark.parametrize("status", [408, 424, 429, 500, 502, 503, 504])
def test_passing_trouble_is_tried_again(
    server: Any, connect: Open, waited: Waited, status: int
) -> None:
    """Overload and failures are retried with doubled waits, and the answer is as ever."""
    server.queue = [server.reply(status), server.reply(status, "busy")]
    target = connect()
    np.testing.assert_array_equal(target.embed(["a"]), [server.vector("a")])
    assert waited() == 0.5 + 1.0
    spend = target.spend()
    assert (spend.calls, spend.retries, spend.distinct) == (3, 2, 1)
    assert spend.throttled_seconds == spend.seconds == 1.5


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        ({"status": 429, "retry_after": "7"}, 7.0),
        ({"status": 503, "retry_after": "7"}, 7.0),
        ({"status": 429, "retry_after_ms": "250", "retry_after": "7"}, 0.25),
        ({"status": 429, "retry_after": "120"}, 120.0),
        ({"status": 429, "retry_after": "soon"}, 0.5),
    ],
)
def test_retry_after_is_honored(
    server: Any, connect: Open, waited: Waited, trouble: dict[str, Any], expected: float
) -> None:
    """The wait that the target asks for replaces ours, on 429 and 5xx alike."""
    server.queue = [server.reply(**trouble)]
    connect().embed(["a"])
    assert waited() == expected


@pytest.mark.parametrize(
    "reply",
    [
        {"status": 0},
        {"body": b'{"data": [', "content_length": "999", "connection": "close"},
    ],
    ids=["before the answer", "in mid-body"],
)
def test_a_dropped_connection_is_tried_again(
    server: Any, connect: Open, waited: Waited, reply: dict[str, Any]
) -> None:
    """A connection that breaks, before the answer or within it, is a passing trouble."""
    server.queue = [server.reply(**reply)]
    np.testing.assert_array_equal(connect().embed(["a"]), [server.vector("a")])
    assert waited() == 0.5


def test_tries_are_bounded(server: Any, connect: Open, waited: Waited) -> None:
    """A target that keeps failing is left alone after the retries, with one line."""
    server.behavior = lambda _: server.reply(503, "down")
    with pytest.raises(EncoderError, match="answered 503 3 times: down"):
        connect(retries=2).embed(["a"])
    assert len(server.requests) == 3
    assert waited() == 0.5 + 1.0


def test_a_target_that_keeps_dropping_is_told(server: Any, connect: Open) -> None:
    """The error of a broken connection counts the tries and does not show the address."""
    server.behavior = lambda _: server.reply(0)
    with pytest.raises(EncoderError, match="broke 2 times") as caught:
        connect(retries=1).embed(["a"])
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize("wait", ["121", "1e9"])
def test_a_long_wait_is_not_waited(server: Any, connect: Open, waited: Waited, wait: str) -> None:
    """A target that asks for more than the longest wait is not asked again, and not slept for."""
    server.behavior = lambda _: server.reply(429, "come back later", retry_after=wait)
    with pytest.raises(ThrottledError, match="come back later") as caught:
        connect().embed(["a"])
    assert caught.value.retry_after_s == float(wait)
    assert (len(server.requests), waited()) == (1, 0)


@pytest.mark.parametrize(("status", "kind"), [(429, RefusalError), (503, EncoderError)])
def test_a_plain_no_is_taken(
    server: Any, connect: Open, waited: Waited, status: int, kind: type[Exception]
) -> None:
    """`x-should-retry: false` ends the call at once, whatever the status."""
    server.behavior = lambda _: server.reply(status, "budget is spent", x_should_retry="false")
    with pytest.raises(kind, match="budget is spent"):
        connect().embed(["a"])
    assert (len(server.requests), waited()) == (1, 0)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (402, RefusalError, "proof of work: .*; allow that with --solve SECONDS"),
        (401, AuthenticationError, "API key"),
        (403, RefusalError, "refuses this account"),
        (302, EncoderError, "answered 302"),
    ],
)
def test_refusals_are_not_tried_again(
    server: Any, connect: Open, status: int, kind: type[Exception], words: str
) -> None:
    """A challenge, a wrong key and a suspension are one line after one call, even if told to retry."""
    server.behavior = lambda _: server.reply(
        status, "sk-abcdefgh is bad", x_should_retry="true", location=f"{server.url}/other"
    )
    target = connect(api_key="sk-abcdefgh", allowance=Allowance(tariff=Tariff(per_call=1.0)))
    with pytest.raises(kind, match=words) as caught:
        target.embed(["a"])
    assert "sk-abcdefgh" not in str(caught.value)
    assert len(server.requests) == 1
    assert target.spend() == Spend(calls=1)


def b64(*values: float) -> str:
    """Return an embedding as base64."""
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[None, 0, 0, 0]], "neither base64 nor floats"),
        ([b64(np.nan, 0, 0, 0)], "NaN or infinity"),
        ([[1e39, 0, 0, 0]], "NaN or infinity"),
        ([[1.0, 2.0]], "width 4, got 2"),
        ([b64(1, 2)], "width 4, got 2"),
        ([], "0 embeddings for 1 inputs"),
        ([[0, 0, 0, 0]] * 2, "2 embeddings for 1 inputs"),
    ],
)
def test_an_unusable_answer_is_one_line_and_not_kept(
    server: Any, connect: Open, rows: list[Any], words: str
) -> None:
    """NaN, a changed width or a wrong count is never returned, stored or asked for again."""
    server.behavior = lambda _: server.reply(
        body={"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}
    )
    target = connect()
    with pytest.raises(EncoderError, match=f"of no use: .*{words}") as caught:
        target.embed(["a"])
    assert "\n" not in str(caught.value)
    assert (len(server.requests), target.spend().distinct) == (1, 0)
    server.behavior = server.good
    np.testing.assert_array_equal(target.embed(["a"]), [server.vector("a")])


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"\xff", b'{"data": [{"embedding": [NaN]}]}']
)
def test_a_malformed_body_is_one_line(server: Any, connect: Open, body: bytes) -> None:
    """A 200 without an answer in it is the target's failure, not a traceback."""
    server.behavior = lambda _: server.reply(body=body)
    with pytest.raises(EncoderError, match="of no use") as caught:
        connect().embed(["a"])
    assert str(caught.value).isprintable()


def test_an_endless_body_is_cut_off(server: Any, connect: Open) -> None:
    """An answer far larger than any embedding is not read to its end."""
    server.behavior = lambda _: server.reply(body=b" " * 2**21)
    target = connect()
    with pytest.raises(EncoderError, match="larger than"):
        target.embed(["a"])
    assert target.spend().calls == 1


def test_money_is_counted_for_what_may_have_been_billed(server: Any, connect: Open) -> None:
    """Answers cost their price, refusals nothing, and a call without an answer the most it can."""
    tariff = Tariff(per_input=1.0, per_call=10.0, per_1k_tokens=100.0)
    allowance = Allowance(tariff=tariff)
    target = connect(allowance=allowance)
    target.embed(["a", "b"])  # the server counts ten tokens an input
    assert target.spend().money == pytest.approx(2 + 10 + 2.0)
    server.queue = [server.reply(503), server.reply(400, "no")]
    with pytest.raises(Exception, match="no"):
        target.embed(["c"])
    assert target.spend().money == pytest.approx(14)
    server.queue = [server.reply(0)]
    target.embed(["d"])
    worst = 1 + 10 + 0.6  # six tokens: four for a byte's estimate, and two marks
    assert target.spend().money == pytest.approx(14 + worst + 1 + 10 + 1)
    assert target.spend().tokens == 30
    assert allowance.spend() == target.spend()


def test_a_call_that_never_left_costs_nothing(server: Any, connect: Open) -> None:
    """When nobody listens there is nothing to be billed for."""
    allowance = Allowance(tariff=Tariff(per_call=1.0))
    target = connect(url=f"{server.url}#named", allowance=allowance, retries=0)
    server.close()
    with pytest.raises(EncoderError, match="ConnectError"):
        target.embed(["a"])
    assert target.spend() == Spend(calls=1)


def test_tokens_are_estimated_where_none_are_reported(server: Any, connect: Open) -> None:
    """A target without usage is billed by a quarter of the bytes."""

    def silent(request: dict[str, Any]) -> Any:
        reply = server.good(request)
        del reply.body["usage"]
        return reply

    server.behavior = silent
    target = connect()
    target.embed(["four", "fünf5"])
    assert target.spend().tokens == 1 + 2


def test_a_wait_beyond_the_cap_on_seconds_is_not_begun(
    server: Any, connect: Open, waited: Waited
) -> None:
    """A retry that could only be sent after the cap ends the run at once."""
    server.behavior = lambda _: server.reply(429, retry_after="60")
    with pytest.raises(BudgetExhausted, match="cap of 59 seconds"):
        connect(allowance=Allowance(Caps(seconds=59))).embed(["a"])
    assert (len(server.requests), waited()) == (1, 0)


def test_retries_count_as_calls_under_the_cap(server: Any, connect: Open) -> None:
    """A cap of three calls is three requests, whatever they bring."""
    server.behavior = lambda _: server.reply(500)
    with pytest.raises(BudgetExhausted, match="cap of 3 calls"):
        connect(allowance=Allowance(Caps(calls=3))).embed(["a"])
    assert len(server.requests) == 3


def test_the_transcript_tells_of_every_call(
    server: Any, connect: Open, tmp_path: Path, clock: Any
) -> None:
    """Each request is a row: when, how many, which try, how it ended, how long, and the wait."""
    server.queue = [server.reply(429, retry_after="2"), server.reply(0)]
    target = connect()
    target.embed(["a", "b"])
    target.close()
    with sqlite3.connect(tmp_path / "transcript.sqlite") as file:
        rows = file.execute(
            "SELECT at, inputs, retry, throttled_s, status, error, tokens FROM calls ORDER BY id"
        ).fetchall()
        digests = {row[0] for row in file.execute("SELECT digest FROM calls")}
    file.close()
    assert rows[0] == (1.7e9, 2, 0, 0.0, 429, "", 0)
    assert rows[1][:5] == (1.7e9, 2, 1, 2.0, None)
    assert rows[1][5] in {"RemoteProtocolError", "ReadError"}
    assert rows[2] == (1.7e9, 2, 2, 1.0, 200, "", 20)
    assert len(digests) == 1


def test_the_file_holds_no_inputs_and_no_key(server: Any, connect: Open, tmp_path: Path) -> None:
    """What was asked is there as a digest only, and the credential not at all."""
    target = connect(api_key="sk-very-secret-key", account="sybil-1")
    target.embed(["a most private sentence"])
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"sybil-1" in files
    assert b"private" not in files
    assert b"very-secret" not in files
