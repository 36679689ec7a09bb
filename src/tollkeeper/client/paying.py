"""When a client pays and with what: the protocol of `docs/challenge.md` without the sending.

`Payer.steps` is a generator: it yields what is to be done and is sent what came of it, so that
synchronous and asynchronous transports share every decision; `driving` takes the steps.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from tollkeeper.challenge.protocol import PROOF_HEADER, Challenge
from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.client.offers import offered
from tollkeeper.client.remembered import Remembered
from tollkeeper.errors import ConfigurationError

_log = logging.getLogger("tollkeeper.client")

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

_FAILED: Final = frozenset({408, 409, 429})
"""Answers, like all from 500 on, after which a client may send the same again: nothing was paid."""

KEPT_S: Final = 900.0
"""Seconds for which a proof is kept that paid for nothing; a proof that is too late does no harm."""

DECLINED_S: Final = 10.0
"""Seconds in which a request is not paid that was declined: those in which callers repeat it."""

BACK_OFF_S: Final = 300.0
"""Seconds in which no pass is asked for where none could be had."""

SMALLER_S: Final = 3600.0
"""Seconds in which passes are asked for of the size that could be had."""

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
    def mount(self) -> str:
        """Return the address of the server: all before the last `/v1`, or else the origin."""
        path = urlsplit(self.url).path
        return self.origin + path[: max(0, f"{path}/".rfind("/v1/"))]

    @property
    def key(self) -> tuple[str, str, bytes]:
        """Return what a proof for this order is good for."""
        return self.mount, self.credential, hashlib.sha256(self.body).digest()

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
Sending = Generator[Step, Any, Answer]
Payment = Generator[Step, Any, str | None]


Holder = tuple[str, str]
"""Mount and credential: nobody else is ever shown a pass."""


class Payer:
    """Decides for any number of requests at once, and keeps the passes that were bought."""

    def __init__(
        self, *, ahead: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Hold no pass yet.

        Args:
            ahead: inputs to pay for at a time, once a challenge has shown that there is
                something to pay; None pays for each request as it is challenged.
            clock: monotonic seconds.

        Raises:
            ConfigurationError: `ahead` is below 1.
        """
        if ahead is not None and ahead < 1:
            raise ConfigurationError(f"expected to pay for at least 1 input ahead, got {ahead}")
        self.ahead = ahead
        self._passes: dict[Holder, str] = {}
        self._kept: Remembered[str] = Remembered(KEPT_S, clock=clock)
        self._declined: Remembered[bool] = Remembered(DECLINED_S, clock=clock)
        self._without: Remembered[bool] = Remembered(BACK_OFF_S, clock=clock)
        self._smaller: Remembered[int] = Remembered(SMALLER_S, clock=clock)
        self._told: set[Holder] = set()
        self._begin()

    def _begin(self) -> None:
        """Have a lock and buyers of this process."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._buying: dict[Holder, Future[None]] = {}

    def steps(self, order: Order) -> Steps:
        """Yield the steps of one request; the last answer that was sent for is its answer."""
        if self._pid != os.getpid():  # a forked child: nobody here frees what its parent holds
            self._begin()
        holder, key = (order.mount, order.credential), order.key
        proof = self._at_hand(holder, key) if order.method == "POST" else None
        answer = yield from self._sent(key, proof)
        if proof is not None and answer.status == 400:
            # Bad input, or a pass that this server does not know any more: see without it.
            answer = yield Send(None)
            if answer.status != 400:
                self._forget(holder, proof)
        with self._lock:
            if self._declined.get(key):
                return
        for turn in range(MOST_CHALLENGES):
            offer = offered(answer.challenges) if answer.status == 402 else None
            if offer is None:
                return
            paid = None
            if turn == 0 and self.ahead is not None:
                paid = yield from self._pass(order, holder, refused=proof)
            proof = paid or (yield from _proof(offer))
            if proof is None:
                break
            answer = yield from self._sent(key, proof)
        if answer.status == 402:
            with self._lock:
                self._declined.put(key, True)

    def _at_hand(self, holder: Holder, key: tuple[str, str, bytes]) -> str | None:
        """Return a pass, or a proof for this very order that was sent in vain."""
        with self._lock:
            return self._passes.get(holder) or self._kept.take(key)

    def _sent(self, key: tuple[str, str, bytes], proof: str | None) -> Sending:
        """Send an order; keep its proof if nothing comes of it, for when it is sent again."""
        in_vain = True  # also if sending raises: then this generator is closed
        try:
            answer: Answer = yield Send(proof)
            in_vain = answer.status >= 500 or answer.status in _FAILED
            return answer
        finally:
            if in_vain and proof is not None and not _is_pass(proof):
                with self._lock:
                    self._kept.put(key, proof)

    def _pass(self, order: Order, holder: Holder, *, refused: str | None) -> Payment:
        """Return a pass that is not the refused one; of many requests one buys it."""
        with self._lock:
            held = self._passes.get(holder)
            if held not in {None, refused}:
                return held
            self._passes.pop(holder, None)
            if self._without.get(holder):
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
        """Buy a pass, of fewer inputs if it cannot be had of as many; return it, or None."""
        with self._lock:
            wanted = self._smaller.get(holder) or self.ahead or 1
        for _ in range(MOST_CHALLENGES):
            wanted = max(wanted, order.inputs)
            status, content = yield Ask(order.mount + PASS_PATH, b'{"inputs": %d}' % wanted)
            offer = _pass_offered(content) if status == 200 else None
            token = None if offer is None else (yield from _proof(offer))
            if token is not None:
                self._hold(holder, token)
                return token
            if offer is None and status not in _NO_PASSES:
                return None  # for now
            smaller = _smaller(wanted, content if status == 400 else b"")
            if status not in {200, 400} or wanted <= order.inputs:
                break
            wanted = smaller
            with self._lock:
                self._smaller.put(holder, wanted)
        self._go_without(holder, status)
        return None

    def _hold(self, holder: Holder, token: str) -> None:
        with self._lock:
            self._passes[holder] = token
            self._told.discard(holder)

    def _go_without(self, holder: Holder, status: int) -> None:
        with self._lock:
            self._without.put(holder, True)
            is_news = holder not in self._told
            self._told.add(holder)
        if is_news:
            _log.warning(
                "no pass can be had at %s (%s): each request is paid by itself, and a pass is "
                "asked for again every %.0f s",
                holder[0],
                "its puzzle is declined" if status == 200 else f"status {status}",
                BACK_OFF_S,
            )

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


def _is_pass(proof: str) -> bool:
    return not proof.split(".")[3]


_MOST_INPUTS = re.compile(r"at most ([0-9]{1,15})\b")


def _smaller(wanted: int, content: bytes) -> int:
    """Return how many inputs to ask for next: what a 400 allows, or half."""
    try:
        found = _MOST_INPUTS.search(str(json.loads(content)["error"]["message"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    allowed = int(found[1]) if found else 0
    return allowed if 1 <= allowed < wanted else max(1, wanted // 2)
