"""When a client pays and with what: the protocol of `docs/challenge.md` without the sending.

`Payer.steps` is a generator: it yields what is to be done and is sent what came of it, so that
synchronous and asynchronous transports share every decision; `driving` takes the steps.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from tollkeeper.challenge.protocol import PROOF_HEADER, Challenge
from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.client.offers import offered
from tollkeeper.errors import ConfigurationError

PASS_PATH: Final = "/tollkeeper/v1/challenges"  # noqa: S105 - a path
MOST_CHALLENGES: Final = 3
"""In a row for one request; a server that asks for more is not going to answer."""

KEPT: Final = frozenset({400, 402})
"""Statuses after which the request may be sent again: such an answer is read before it is left."""

LONGEST_KEPT: Final = 65_536
"""Bytes of such an answer; one that is longer reaches the caller as it comes."""

LONGEST_TOLD: Final = 8192
"""Bytes of an answer about a pass."""

_NO_PASSES: Final = frozenset({400, 404, 405, 501})
"""Answers to a wish for a pass that are the same the next time."""

_OF_THE_BODY: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_OF_THE_REQUEST: Final = _OF_THE_BODY | {
    "accept",
    "accept-encoding",
    "content-type",
    "expect",
    "idempotency-key",
}


class Order(NamedTuple):
    """A request as its caller made it.

    Attributes:
        method: in capitals.
        url: where to.
        credential: value of `Authorization`; empty for none.
        body: all of it.
    """

    method: str
    url: str
    credential: str
    body: bytes

    @property
    def origin(self) -> str:
        """Return scheme, host and port."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()

    @property
    def inputs(self) -> int:
        """Return how many inputs the body asks for, as far as it can be read."""
        try:
            wanted = json.loads(self.body)["input"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return 1
        is_batch = isinstance(wanted, list) and wanted and not isinstance(wanted[0], int)
        return len(wanted) if is_batch else 1


class Answer(NamedTuple):
    """What of an answer matters here.

    Attributes:
        status: HTTP status.
        challenges: value of `WWW-Authenticate`; empty for none.
    """

    status: int
    challenges: str


class Send(NamedTuple):
    """Send the order, with a proof or without; the result is an `Answer`."""

    proof: str | None


class Ask(NamedTuple):
    """Post JSON with the order's credential; the result is status and body."""

    url: str
    body: bytes


class Solve(NamedTuple):
    """Solve a puzzle; the result is the solution, or None if it is declined."""

    puzzle: HashPuzzle | ScryptPuzzle


class Wait(NamedTuple):
    """Wait until another request has bought a pass."""

    bought: Future[None]


Step = Send | Ask | Solve | Wait
Steps = Generator[Step, Any, None]
Payment = Generator[Step, Any, str | None]


Holder = tuple[str, str]
"""Origin and credential: nobody else is ever shown a pass."""


class Payer:
    """Decides for any number of requests at once, and keeps the passes that were bought."""

    def __init__(self, *, ahead: int | None = None) -> None:
        """Hold no pass yet.

        Args:
            ahead: inputs to pay for at a time, once a challenge has shown that there is
                something to pay; None pays for each request as it is challenged.

        Raises:
            ConfigurationError: `ahead` is below 1.
        """
        if ahead is not None and ahead < 1:
            raise ConfigurationError(f"expected to pay for at least 1 input ahead, got {ahead}")
        self._ahead = ahead
        self._lock = threading.Lock()
        self._passes: dict[Holder, str] = {}
        self._buying: dict[Holder, Future[None]] = {}
        self._without: set[Holder] = set()

    def steps(self, order: Order) -> Steps:
        """Yield the steps of one request; the last answer that was sent for is its answer."""
        holder = (order.origin, order.credential)
        proof = self._held(holder) if order.method == "POST" else None
        answer: Answer = yield Send(proof)
        if proof is not None and answer.status == 400:
            # Bad input, or a pass that this server does not know any more: see without it.
            answer = yield Send(None)
            if answer.status != 400:
                self._forget(holder, proof)
        for turn in range(MOST_CHALLENGES):
            offer = offered(answer.challenges) if answer.status == 402 else None
            if offer is None:
                return
            paid = None
            if turn == 0 and self._ahead is not None:
                paid = yield from self._pass(order, holder, refused=proof)
            proof = paid or (yield from _proof(offer))
            if proof is None:
                return
            answer = yield Send(proof)

    def _pass(self, order: Order, holder: Holder, *, refused: str | None) -> Payment:
        """Return a pass that is not the refused one; of many requests one buys it."""
        with self._lock:
            held = self._passes.get(holder)
            if held not in {None, refused}:
                return held
            self._passes.pop(holder, None)
            if holder in self._without:
                return None
            bought = self._buying.get(holder)
            if bought is None:
                mine = self._buying[holder] = Future()
        if bought is not None:
            yield Wait(bought)
            return self._held(holder)
        try:
            return (yield from self._buy(order, holder))
        finally:
            with self._lock:
                del self._buying[holder]
            mine.set_result(None)

    def _buy(self, order: Order, holder: Holder) -> Payment:
        inputs = max(self._ahead or 1, order.inputs)
        status, content = yield Ask(order.origin + PASS_PATH, b'{"inputs": %d}' % inputs)
        offer = _pass_offered(content) if status == 200 else None
        token = None if offer is None else (yield from _proof(offer))
        with self._lock:
            if token is not None:
                self._passes[holder] = token
            elif status in _NO_PASSES or offer is not None:  # or one that was declined
                self._without.add(holder)
        return token

    def _held(self, holder: Holder) -> str | None:
        with self._lock:
            return self._passes.get(holder)

    def _forget(self, holder: Holder, token: str) -> None:
        with self._lock:
            if self._passes.get(holder) == token:
                del self._passes[holder]


def is_own_affair(names: Any) -> bool:
    """Tell from the names of a request's headers whether its caller pays without us."""
    return any(name.lower() == PROOF_HEADER for name in names)


def asking_headers(headers: Any) -> dict[str, str]:
    """Return what of a request's headers goes with the wish for a pass: all but its body's."""
    kept = {name: value for name, value in headers if name.lower() not in _OF_THE_REQUEST}
    # Uncompressed: a few bytes may not become a thousand times as many here.
    told = {"accept": "application/json", "accept-encoding": "identity"}
    return {**kept, "content-type": "application/json", **told}


def may_tell_to_retry(headers: Any) -> bool:
    """Tell whether an answer asks the OpenAI client to repeat the request, whatever its status."""
    return bool(headers.get("x-should-retry", "false").lower() != "false")


def _proof(offer: Challenge) -> Payment:
    solution = yield Solve(offer.puzzle)
    return None if solution is None else offer.proof(solution)


def _pass_offered(content: bytes) -> Challenge | None:
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return None
    value = told.get("challenge") if isinstance(told, dict) else None
    offer = offered(value) if isinstance(value, str) else None
    return offer if offer is not None and not offer.digest else None
