"""The load generator, against a small server that answers what it is told to."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.load import Plan, request_template, run_plan, verify_body
from tollkeeper.testing.clock import FakeClock

DIM = 6
Answer = Callable[[list[str]], tuple[int, bytes]]


def plan(port: int = 1, *, inputs: int = 2, connections: int = 3, distinct: int = 10**6) -> Plan:
    """Return a plan of one second, by the fake clock."""
    return Plan(
        port=port,
        key="tk-test",
        model="m",
        inputs=inputs,
        dim=DIM,
        connections=connections,
        warm_s=0.25,
        seconds=1.0,
        first=1000,
        distinct=distinct,
    )


def good(texts: list[str], *, dim: int = DIM) -> tuple[int, bytes]:
    """Answer as the gateway would."""
    vector = base64.b64encode(np.ones(dim, "<f4").tobytes()).decode()
    return 200, json.dumps({"data": [{"embedding": vector} for _ in texts]}).encode()


@asynccontextmanager
async def server(answer: Answer, seen: list[str], *, split: bool = False) -> AsyncIterator[int]:
    """Serve HTTP on a free port; keep every text that came."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = re.search(rb"Content-Length: (\d+)", head)
            assert length is not None
            assert b"Bearer tk-test" in head
            texts = json.loads(await reader.readexactly(int(length[1])))["input"]
            seen.extend(texts)
            status, body = answer(texts)
            reply = b"HTTP/1.1 %d X\r\nContent-length: %d\r\n\r\n%s" % (status, len(body), body)
            for part in (reply[:20], reply[20:50], reply[50:]) if split else (reply,):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize("split", [False, True])
async def test_counts_answers_inside_the_window(split: bool) -> None:
    """Requests, rate and latency are those of the handed-in clock, and no text repeats."""
    seen: list[str] = []
    async with server(good, seen, split=split) as port:
        # A hundredth of a second passes with each look at the clock.
        report = await run_plan(plan(port), clock=FakeClock(step=0.01))
    assert len(set(seen)) == len(seen) == 2 * report.answered
    assert 10 <= report.requests <= 100
    assert report.per_second == report.requests
    assert 10 <= report.p50_ms <= report.p99_ms <= 100


async def test_a_round_can_repeat_its_requests() -> None:
    """With a limit on distinct requests, the first one comes again after the last."""
    seen: list[str] = []
    async with server(good, seen) as port:
        await run_plan(plan(port, distinct=5), clock=FakeClock(step=0.01))
    assert len(set(seen)) == 2 * 5 < len(seen)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda texts: (503, b'{"error": "down"}'), "503.*down"),
        (lambda texts: (200, b"{}"), "answer b'200'"),
        (lambda texts: good([*texts, "extra"]), "got 3 of widths"),
        (lambda texts: good(texts, dim=DIM + 3), r"of widths \[9\]"),
    ],
)
async def test_wrong_answers_stop_the_round(answer: Answer, complaint: str) -> None:
    """An error, a short body, a wrong count and a wrong width are never counted as speed."""
    async with server(answer, []) as port:
        with pytest.raises(BenchError, match=complaint):
            await run_plan(plan(port), clock=FakeClock(step=0.01))


async def test_a_closed_connection_stops_the_round() -> None:
    """A server that hangs up is an error."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(BenchError, match="closed a connection"):
            await run_plan(plan(port), clock=FakeClock(step=0.01))


async def test_nothing_answered_in_time_is_an_error() -> None:
    """A window that no answer falls into has no rate."""
    async with server(good, []) as port:
        with pytest.raises(BenchError, match="no request was answered in time"):
            await run_plan(plan(port, connections=1), clock=FakeClock(step=10.0))


def test_template_is_a_valid_request() -> None:
    """The announced length stays true when the number is filled in."""
    request = request_template(plan(inputs=3)).replace(b"@" * 12, b"%012d" % 7)
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    texts = json.loads(body)["input"]
    assert len(set(texts)) == 3
    assert all(text.startswith("000000000007 ") for text in texts)


def test_infinite_embeddings_are_refused() -> None:
    """An answer that decodes to infinity is no answer."""
    vector = base64.b64encode(np.full(DIM, np.inf, "<f4").tobytes()).decode()
    body = json.dumps({"data": [{"embedding": vector}]}).encode()
    with pytest.raises(BenchError, match="finite"):
        verify_body(body, plan(inputs=1))
