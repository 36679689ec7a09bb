"""A real HTTP server on loopback that misbehaves as told, and targets that never really wait."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.client import Pace, Target, open_target
from tollkeeper.testing import FakeClock

DIM = 4
MODEL = "fake-1"


@dataclass
class Reply:
    """What the server answers.

    Attributes:
        status: HTTP status; 0 closes the connection without an answer.
        body: bytes as they are, anything else as JSON.
        headers: on top of the content length, or in its place.
    """

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)


Behavior = Callable[[dict[str, Any]], Reply]


class Server:
    """Answers with what is queued, then as `behavior` says; keeps what it was asked."""

    def __init__(self) -> None:
        self.behavior: Behavior = self.good
        self.queue: list[Reply] = []
        self.models: Reply = Reply(body={"object": "list", "data": [{"id": MODEL}]})
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lists = 0
        self.http = _http(self)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self._thread.start()

    @staticmethod
    def vector(item: Any) -> NDArray[np.float32]:
        """Return the embedding that the server gives an item: from a hash of its JSON."""
        digest = hashlib.sha256(json.dumps(item).encode()).digest()
        return np.frombuffer(digest[:DIM], np.uint8).astype(np.float32) / np.float32(7)

    def good(self, request: dict[str, Any]) -> Reply:
        """Answer as OpenAI does, ten tokens an item."""
        rows = [self.vector(item).tobytes() for item in request["input"]]
        data = [
            {"index": index, "embedding": base64.b64encode(row).decode()}
            for index, row in enumerate(rows)
        ]
        return Reply(body={"data": data, "usage": {"prompt_tokens": 10 * len(rows)}})

    @staticmethod
    def reply(status: int = 200, body: Any = b"", **headers: str) -> Reply:
        """Make a reply; text becomes an error as OpenAI writes it."""
        if isinstance(body, str):
            body = {"error": {"message": body, "type": "t", "param": None, "code": "c"}}
        return Reply(status, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def asked(self) -> list[Any]:
        """Return all inputs that arrived, in order."""
        return [item for request in self.requests for item in request["input"]]

    def sizes(self) -> list[int]:
        """Return how many inputs each request had."""
        return [len(request["input"]) for request in self.requests]

    def close(self) -> None:
        """Stop."""
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()


def _http(server: Server) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.lists += 1
            self._send(server.models)

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            server.requests.append(request)
            self._send(server.queue.pop(0) if server.queue else server.behavior(request))

        def _send(self, reply: Reply) -> None:
            if reply.status == 0:
                self.close_connection = True
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"content-length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    return http


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server for one test."""
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="session")
def http() -> Iterator[httpx2.Client]:
    """Share one client: loading certificates takes longer than a test."""
    with httpx2.Client() as shared:
        yield shared


@pytest.fixture
def clock() -> FakeClock:
    """The time of a test, which passes by sleeping only."""
    return FakeClock(1000.0)


@pytest.fixture
def waited(clock: FakeClock) -> Callable[[], float]:
    """Tell the seconds slept so far."""
    return lambda: clock.now - 1000.0


Open = Callable[..., Target]


@pytest.fixture
def connect(
    server: Server, http: httpx2.Client, clock: FakeClock, tmp_path: Path
) -> Iterator[Open]:
    """Open targets that ask one call after the other; all close with the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Target:
            given = {
                "url": server.url,
                "transcript": tmp_path / "transcript.sqlite",
                "dim": DIM,
                "client": http,
                "clock": clock,
                "now": lambda: 1.7e9,
                "pace": Pace(concurrency=1, clock=clock, sleep=clock.advance),
                **options,
            }
            target = open_target(given.pop("url"), **given)
            stack.callback(target.close)
            return target

        yield make
