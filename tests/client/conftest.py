"""Fakes on loopback: a server that misbehaves as told, and one that asks for proof of work."""

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

from tollkeeper.challenge.protocol import STALE, Challenge, Issuer, body_digest
from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.client import Pace, Solver, Target, open_target
from tollkeeper.errors import ProofError
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


# A gateway that asks for proof of work --------------------------------------------------------

NOW = 1.8e9
"""The fake gateway's time."""


@dataclass(frozen=True)
class Heard:
    """One request that arrived.

    Attributes:
        path: of the URL.
        headers: names in small letters.
        body: its bytes.
        proof: value of the proof's header.
        client: port it came from, one for each connection.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    proof: str | None
    client: int


class _Patient(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # many clients at once are not turned away


class FakeToll:
    """A fake gateway with real challenges: what is not paid for gets a 402.

    Attributes:
        work: evaluations that one input costs; 0 is free.
        puzzle: makes the puzzle of some work.
        policy: version; proofs of another one are refused.
        sells_passes: whether there is a route for passes.
        most_ahead: inputs that a pass may be for.
        redirects: path to address, answered with 307.
        heard: requests in order.
    """

    def __init__(self) -> None:
        self.work = 300
        self.puzzle: Callable[[int], HashPuzzle | ScryptPuzzle] = self.hashes
        self.policy = "p1"
        self.sells_passes = True
        self.most_ahead = 1000
        self.redirects: dict[str, str] = {}
        self.heard: list[Heard] = []
        self.entropy = np.random.default_rng(0)
        self.issuer = Issuer(bytes(32), entropy=self.entropy.bytes)
        self._used: dict[str, int] = {}
        self._lock = threading.Lock()
        self.http = _Patient(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self._thread.start()

    def hashes(self, work: int) -> HashPuzzle:
        """Return a hash puzzle."""
        return HashPuzzle.of(work, self.issuer.salt())

    def scrypt(self, work: int) -> ScryptPuzzle:
        """Return a memory-hard puzzle; small, as tests are."""
        made = ScryptPuzzle.make(self.issuer.salt(), 10**6, secret=bytes(32), n=16)
        return made.over(work, int(self.entropy.integers(2 * work - 1)))

    def embeddings(self) -> list[Heard]:
        """Return the requests for embeddings."""
        return [one for one in self.heard if one.path.endswith("/embeddings")]

    def close(self) -> None:
        """Stop."""
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()

    def answer(self, one: Heard) -> Reply:
        """Answer a request as the page says."""
        if one.path in self.redirects:
            return Reply(307, b"", {"location": self.redirects[one.path]})
        if one.path == "/tollkeeper/v1/challenges":
            return self._sell(one)
        inputs = json.loads(one.body)["input"]
        inputs = inputs if isinstance(inputs, list) else [inputs]
        if "bad" in inputs:
            return self._error(400, "invalid_input")
        with self._lock:
            refusal = self._charge(one, self.work * len(inputs))
        return refusal or self._good(inputs)

    def _charge(self, one: Heard, price: int) -> Reply | None:
        account = one.headers.get("authorization", "")
        if price == 0:
            return None
        if one.proof is None:
            return self._challenge(one, price, "challenge_required")
        try:
            proof = self.issuer.verify(
                one.proof,
                account=account,
                policy=self.policy,
                digest=lambda: body_digest(one.body),
                now=NOW,
            )
        except ProofError as error:
            code = str(error.code)
            return self._challenge(one, price, code) if code in STALE else self._error(400, code)
        used = self._used.get(proof.id, 0)
        # The work of hash puzzles is rounded, as targets are whole numbers.
        if used + price > proof.work * 1.001 or (used and not proof.is_pass):
            return self._challenge(one, price, "proof_spent")
        self._used[proof.id] = used + price
        return None

    def _challenge(self, one: Heard, price: int, code: str) -> Reply:
        challenge = self._issue(one, self.puzzle(price), body_digest(one.body))
        reply = self._error(402, code)
        reply.headers["www-authenticate"] = f'Bearer realm="x", {challenge.header()}'
        return reply

    def _issue(self, one: Heard, puzzle: HashPuzzle | ScryptPuzzle, digest: str) -> Challenge:
        account = one.headers.get("authorization", "")
        return self.issuer.issue(
            puzzle, account=account, policy=self.policy, digest=digest, expires_at=NOW + 60
        )

    def _sell(self, one: Heard) -> Reply:
        if not self.sells_passes:
            return self._error(404, "unknown_url")
        inputs = json.loads(one.body)["inputs"]
        if inputs > self.most_ahead:
            return self._error(400, "too_many")
        challenge = None
        if self.work:
            challenge = self._issue(one, self.puzzle(self.work * inputs), "").header()
        return Reply(200, {"challenge": challenge, "inputs": inputs})

    @staticmethod
    def _good(inputs: list[Any]) -> Reply:
        rows = [base64.b64encode(Server.vector(item).tobytes()).decode() for item in inputs]
        data = [{"index": i, "embedding": row, "object": "embedding"} for i, row in enumerate(rows)]
        usage = {"prompt_tokens": len(rows), "total_tokens": len(rows)}
        return Reply(200, {"object": "list", "model": MODEL, "data": data, "usage": usage})

    @staticmethod
    def _error(status: int, code: str) -> Reply:
        error = {"message": f"{code}; see docs/challenge.md", "type": "t", "code": code}
        headers = {"content-type": "application/json", "x-should-retry": "false"}
        return Reply(status, {"error": {**error, "param": None}}, headers)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        toll = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(Reply(body={"object": "list", "data": [{"id": MODEL}]}))

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = b"".join(self._chunks(headers))
                proof = headers.get("tollkeeper-proof")
                one = Heard(self.path, headers, body, proof, self.client_address[1])
                toll.heard.append(one)
                self._send(toll.answer(one))

            def _chunks(self, headers: dict[str, str]) -> Iterator[bytes]:
                if "content-length" in headers:
                    yield self.rfile.read(int(headers["content-length"]))
                    return
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            def _send(self, reply: Reply) -> None:
                body = (
                    reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                )
                self.send_response(reply.status)
                given = {"content-type": "application/json", "content-length": str(len(body))}
                for name, value in {**given, **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def toll() -> Iterator[FakeToll]:
    """Run a fake gateway that asks for proof of work."""
    running = FakeToll()
    yield running
    running.close()


@pytest.fixture
def solver() -> Iterator[Solver]:
    """Solve in the calling thread."""
    with Solver(processes=0) as here:
        yield here
