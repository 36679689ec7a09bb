"""A closed-loop load generator: raw sockets, prebuilt requests, one process of its own.

Each connection sends its next request as soon as it has read the last answer. A
request costs the generator one `bytes.replace` and a header scan, so that it does
not measure itself. All inputs of all requests differ, up to the plan's number of requests.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np

from tollkeeper.bench.experiment import BenchError, Progress

_MARK = b"@@@@@@@@@@@@"
"""Stands in the template where each request's number goes; same width, so the
`Content-Length` stays true."""

GRACE_S = 30.0
"""A connection that is still waiting this long after the end is given up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One round of load.

    Attributes:
        port: of the server, on 127.0.0.1.
        key: API key.
        model: model to ask for.
        inputs: texts per request.
        dim: embedding width that must come back.
        connections: keep-alive connections, each with one request in flight.
        warm_s: seconds of load before counting starts.
        seconds: seconds that count.
        first: number of the first request; rounds must not share numbers.
        distinct: requests until the first one comes again.
    """

    port: int
    key: str
    model: str
    inputs: int
    dim: int
    connections: int
    warm_s: float
    seconds: float
    first: int
    distinct: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a round saw.

    Attributes:
        requests: answered with 200 and a full body inside the counted seconds.
        per_second: requests per second.
        p50_ms: median time from request to last byte of the answer.
        p99_ms: 99th percentile of the same.
        answered: all answers, with those before and after the counted seconds.
    """

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    answered: int


def generate(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Run one `Plan` given as JSON; the child's side of `run_apart`."""
    del progress
    plan = msgspec.convert(payload, Plan)
    return asdict(asyncio.run(run_plan(plan, clock=time.perf_counter)))


async def run_plan(plan: Plan, *, clock: Callable[[], float]) -> Report:
    """Put load on the server and report.

    Raises:
        BenchError: an answer was not a 200 of the expected size, or a connection broke.
    """
    round_ = Round(plan, clock)
    await run_round(round_, Connection)
    return round_.report()


async def run_round(round_: Round, connection: type[Connection]) -> None:
    """Put the load of a round on the server.

    Args:
        round_: says what to send, and counts the answers.
        connection: what each connection is.

    Raises:
        BenchError: see `run_plan`.
    """
    plan, loop = round_.plan, asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: connection(round_), "127.0.0.1", plan.port))[1]
        for _ in range(plan.connections)
    ]
    round_.begin()
    for one in connections:
        one.send()
    async with asyncio.timeout(plan.warm_s + plan.seconds + GRACE_S):
        await asyncio.gather(*(one.done for one in connections))


def request_template(plan: Plan) -> bytes:
    """Return the bytes of a request with `_MARK` in every input."""
    texts = [
        f"{_MARK.decode()} {i:04d} please tell me when the order I placed last week will arrive"
        for i in range(plan.inputs)
    ]
    return request_bytes(plan, texts)


def request_bytes(plan: Plan, texts: Sequence[str]) -> bytes:
    """Return the bytes of a request."""
    body = json.dumps({"model": plan.model, "input": texts, "encoding_format": "base64"})
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\n"
        f"Authorization: Bearer {plan.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


class Round:
    """What the connections of one round share."""

    def __init__(self, plan: Plan, clock: Callable[[], float]) -> None:
        """Begin none yet."""
        self.plan = plan
        self.clock = clock
        self.smallest_body = plan.inputs * len(base64.b64encode(bytes(4 * plan.dim)))
        self._template = request_template(plan)
        self._sent = self._answered = 0
        self._latencies: list[float] = []
        self._count_from = self._count_to = 0.0

    def begin(self) -> None:
        """Start the clock."""
        self._count_from = self.clock() + self.plan.warm_s
        self._count_to = self._count_from + self.plan.seconds

    def next_request(self) -> bytes:
        """Return the bytes of a request that was not sent before."""
        number = self.plan.first + self._sent % self.plan.distinct
        self._sent += 1
        return self._template.replace(_MARK, b"%012d" % number)

    def answered(self, sent: float, now: float) -> bool:
        """Count an answer; return whether to go on."""
        self._answered += 1
        if self._count_from <= now <= self._count_to:
            self._latencies.append(now - sent)
        return now < self._count_to

    def report(self) -> Report:
        """Return what was seen.

        Raises:
            BenchError: nothing was answered in time.
        """
        if not self._latencies:
            raise BenchError("no request was answered in time; measure for more seconds")
        p50, p99 = np.quantile(self._latencies, (0.5, 0.99)) * 1e3
        count = len(self._latencies)
        rate = count / self.plan.seconds
        return Report(count, rate, float(p50), float(p99), self._answered)


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self, round_: Round) -> None:
        """Take requests from `round_`, and tell it of answers."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._round = round_
        self._buffer = bytearray()
        self._body_start = -1
        self._end = 0
        self._verified = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self) -> None:
        """Send the next request."""
        self._sent = self._round.clock()
        self._request = self._round.next_request()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Send again as soon as an answer is whole."""
        self._buffer += data
        try:
            if self._whole():
                self._finish()
        except BenchError as error:
            self._stop(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the round with an error, if it has not ended."""
        self._stop(BenchError(f"the server closed a connection: {exc or 'no reason given'}"))

    def _stop(self, error: BenchError | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
        self._transport.close()

    def _whole(self) -> bool:
        """Return whether the answer is complete; reads its head as soon as that is there."""
        if self._body_start < 0:
            head_end = self._buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return False
            self._body_start = head_end + 4
            self._end = self._body_start + _content_length(bytes(self._buffer[:head_end]))
        return len(self._buffer) >= self._end

    def _finish(self) -> None:
        now = self._round.clock()
        body_bytes = self._end - self._body_start
        if self._buffer[9:12] != b"200" or body_bytes < self._round.smallest_body:
            shown = bytes(self._buffer[self._body_start : self._body_start + 300])
            raise BenchError(f"answer {bytes(self._buffer[9:12])!r}: {shown!r}")
        if not self._verified:
            verify_body(bytes(self._buffer[self._body_start :]), self._round.plan)
            self._verified = True
        self._forget()
        if self._round.answered(self._sent, now):
            self.send()
        else:
            self._stop(None)

    def _forget(self) -> None:
        del self._buffer[:]
        self._body_start = -1


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise BenchError("an answer without Content-Length")


def verify_body(body: bytes, plan: Plan) -> None:
    """Check one answer in full: as many embeddings as inputs, finite, of the right width.

    Raises:
        BenchError: the body is something else.
    """
    data = json.loads(body)["data"]
    widths = set()
    for item in data:
        vector = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
        widths.add(len(vector) if np.isfinite(vector).all() else -1)
    if len(data) != plan.inputs or widths != {plan.dim}:
        raise BenchError(
            f"expected {plan.inputs} finite embeddings of width {plan.dim}, "
            f"got {len(data)} of widths {sorted(widths)}"
        )
