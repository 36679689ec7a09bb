"""Calls of a live target: allowed, paced, written down, tried again, made sense of."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from tollkeeper.client.allowance import Allowance, Spend
from tollkeeper.client.offers import offered
from tollkeeper.client.pace import Pace
from tollkeeper.client.paying import MOST_CHALLENGES
from tollkeeper.client.refusals import LOST, give_up, refuse
from tollkeeper.client.solver import Solver
from tollkeeper.client.tolls import Paid, pay
from tollkeeper.client.transcript import Answered, Call, Outcome, Transcript
from tollkeeper.encoders.inputs import estimate_tokens
from tollkeeper.encoders.upstream_ask import Asker, jsonable
from tollkeeper.encoders.upstream_http import Reply, asked_wait, backoff, is_passing, request
from tollkeeper.encoders.upstream_wire import answer_limit, parse_answer
from tollkeeper.errors import EncoderError
from tollkeeper.types import Embeddings

_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Route:
    """What a target is asked for.

    Attributes:
        path: behind the base address.
        vector: field of an answered item that holds its vector.
    """

    path: str
    vector: str


EMBEDDINGS = Route("/embeddings", "embedding")
CLASSIFY = Route("/classify", "probabilities")


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One input that is going to be asked.

    Attributes:
        position: its place in the call of `embed`.
        item: a string, a token list, an (h, w, 3) uint8 image or a (c, h, w) float32 tensor.
        digest: of the item.
        turn: how many times this run has asked it before.
    """

    position: int
    item: Any
    digest: bytes
    turn: int


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """What all calls of one account at one target have in common.

    Attributes:
        base: address up to and with `/v1`.
        route: what is asked for.
        client: sends.
        headers: with the credential.
        secret: the API key, which no message may quote.
        timeout_s: seconds that one call may take.
        retries: further tries of a call.
        max_wait_s: the longest wait between two tries.
        allowance: what may be spent.
        pace: how fast.
        transcript: where it is written down.
        solver: pays challenges; None pays none.
        clock: monotonic seconds.
        now: seconds since the epoch, for the record.
    """

    base: str
    route: Route
    client: httpx2.Client
    headers: dict[str, str]
    secret: str | None
    timeout_s: float
    retries: int
    max_wait_s: float
    allowance: Allowance
    pace: Pace
    transcript: Transcript
    solver: Solver | None
    clock: Callable[[], float]
    now: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Again:
    """Why a call is sent again.

    Attributes:
        retry: how many times it had failed; 0 if it had not.
        throttled_s: seconds by which the failure put it off.
        paid: proof to send with it.
    """

    retry: int = 0
    throttled_s: float = 0.0
    paid: Paid | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """A call that is sent and not settled.

    Attributes:
        number: in the transcript.
        held: what the allowance holds for it.
        spent: what it costs in any case.
        began: reading of the clock.
    """

    number: int
    held: Spend
    spent: Spend
    began: float


@dataclass(frozen=True, slots=True)
class Sent(Reply):
    """A reply; one of status 200 is still to be settled.

    Attributes:
        call: the call that it answers.
    """

    call: Open


class Stopped(Exception):  # noqa: N818 - no error: another call of the round failed
    """The round is over; nothing more is to be sent."""


class Round:
    """The calls of one `embed`, made from several threads."""

    def __init__(self, line: Line, asker: Asker, *, dim: int | None) -> None:
        """Begin now.

        Args:
            line: whom to call and how.
            asker: what is known of the target's dialect.
            dim: width expected; None accepts any.
        """
        self._line = line
        self._asker = asker
        self._dim = dim
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._counted = line.clock()

    def stop(self) -> None:
        """Let no call begin any more."""
        self._stop.set()

    def ask(self, asks: Sequence[Ask]) -> Iterator[tuple[Sequence[Ask], Embeddings]]:
        """Ask for one batch.

        Yields:
            Part after part of the batch with its (m, d) answers, which are on disk by then.

        Raises:
            BudgetExhausted: a cap is reached.
            RequestError: the target refused an input, or set a puzzle that has no solution.
            RefusalError: the target refuses this account.
            EncoderError: the target failed or answered garbage.
            LedgerError: the transcript cannot be written.
            Stopped: the round was stopped.
        """
        try:
            for sent, part in self._asker.ask(asks, encode=_encode, send=self._send):
                if sent.status != 200:
                    refuse(sent, secret=self._line.secret)
                yield part, self._keep(sent, part)
        except Exception:
            self.stop()  # at once: the other threads are about to send
            raise

    def _send(self, payload: bytes, asks: Sequence[Ask]) -> Sent:
        """Send a body until it is answered, or refused for good."""
        line = self._line
        throttled_s = 0.0
        paid: Paid | None = None
        for retry in range(line.retries + 1):
            again = Again(retry, throttled_s, paid)
            sent, paid = self._send_paid(payload, asks, again)
            if sent.status != LOST and not is_passing(sent.status):
                return sent
            wait_s = asked_wait(sent.headers, default=backoff(retry))
            if wait_s is None or wait_s > line.max_wait_s or retry == line.retries:
                give_up(sent, wait_s, tries=retry + 1, secret=line.secret)
            throttled_s = line.pace.hold_back(wait_s)
        raise AssertionError("the last try returns or raises")

    def _send_paid(
        self, payload: bytes, asks: Sequence[Ask], again: Again
    ) -> tuple[Sent, Paid | None]:
        """Send a body until it is not challenged; return the proof too, for a further try."""
        line = self._line
        for turn in range(MOST_CHALLENGES + 1):
            with line.pace.turn(self._may_wait):
                sent = self._try(payload, asks, again)
            wanted = sent.status == 402 and line.solver is not None and turn < MOST_CHALLENGES
            offer = offered(sent.headers.get("www-authenticate", "")) if wanted else None
            if line.solver is None or offer is None:
                break
            try:
                paid = pay(offer, solver=line.solver, allowance=line.allowance, stop=self._stop)
            except CancelledError:
                raise Stopped from None
            again = Again(paid=paid)
        return sent, None if again.paid is None else replace(again.paid, seconds=None)

    def _try(self, payload: bytes, asks: Sequence[Ask], again: Again) -> Sent:
        """Send a body once; a lost connection is a reply of status `LOST`."""
        line = self._line
        proof = {} if again.paid is None else again.paid.headers()
        call = self._open(asks, again)
        try:
            reply = request(
                line.client,
                "POST",
                line.base + line.route.path,
                content=payload,
                headers=line.headers | proof,
                timeout_s=line.timeout_s,
                limit=answer_limit(len(asks)),
                clock=line.clock,
            )
        except httpx2.RequestError as error:
            # The text of the error may hold the address; its type tells enough.
            what = type(error).__name__
            money = 0.0 if isinstance(error, _NEVER_SENT) else call.held.money
            self._settle(call, None, what, money=money)
            return Sent(LOST, {}, what.encode(), call)
        except EncoderError as error:
            self._settle(call, None, str(error), money=call.held.money)
            raise
        if reply.status != 200:
            self._settle(call, reply.status)
        return Sent(reply.status, reply.headers, reply.content, call)

    def _open(self, asks: Sequence[Ask], again: Again) -> Open:
        """Have a call allowed and written down."""
        line = self._line
        distinct = sum(ask.turn == 0 for ask in asks)
        money = line.allowance.most([ask.item for ask in asks])
        held = Spend(calls=1, distinct=distinct, repeats=len(asks) - distinct, money=money)
        line.allowance.hold(held)
        digest = hashlib.blake2b(b"".join(ask.digest for ask in asks), digest_size=16).digest()
        puzzle_s = None if again.paid is None else again.paid.seconds
        noted = (again.retry, again.throttled_s, money, puzzle_s)
        number = line.transcript.begin(Call(line.now(), len(asks), digest, *noted))
        spent = Spend(calls=1, retries=int(again.retry > 0), throttled_seconds=again.throttled_s)
        return Open(number, held, spent, line.clock())

    def _keep(self, sent: Sent, asks: Sequence[Ask]) -> Embeddings:
        """Store the answers that a reply holds and return them, (m, d)."""
        try:
            vector = self._line.route.vector
            answer = parse_answer(sent.content, n=len(asks), dim=self._dim, vector=vector)
        except EncoderError as error:
            self._settle(sent.call, sent.status, str(error), money=sent.call.held.money)
            raise EncoderError(f"the target's answer is of no use: {error}") from error
        tokens = answer.tokens
        if tokens is None:
            tokens = int(estimate_tokens([ask.item for ask in asks]).sum())
        self._settle(
            sent.call,
            sent.status,
            tokens=tokens,
            money=self._line.allowance.tariff.money(inputs=len(asks), tokens=tokens),
            answers=[
                Answered(ask.digest, ask.turn, row)
                for ask, row in zip(asks, answer.embeddings, strict=True)
            ],
        )
        if answer.classes is not None:  # a target that names others is another target
            self._line.transcript.belongs_to("classes", json.dumps(answer.classes))
        return answer.embeddings

    def _settle(
        self,
        call: Open,
        status: int | None,
        error: str = "",
        *,
        tokens: int = 0,
        money: float = 0.0,
        answers: Sequence[Answered] = (),
    ) -> None:
        """Write down how a call ended, then count it."""
        line = self._line
        latency_s = line.clock() - call.began
        seconds = self._lap()
        outcome = Outcome(status, error, latency_s, seconds, tokens, money)
        line.transcript.end(call.number, outcome, answers)
        spent = Spend(
            distinct=call.held.distinct if answers else 0,
            repeats=call.held.repeats if answers else 0,
            tokens=tokens,
            money=money,
            seconds=seconds,
        )
        line.allowance.settle(call.held, call.spent + spent)

    def _may_wait(self, wait_s: float) -> None:
        """Raise instead of waiting in vain."""
        if self._stop.is_set():
            raise Stopped
        with self._lock:
            since_s = self._line.clock() - self._counted
        self._line.allowance.check(Spend(seconds=since_s + wait_s))

    def _lap(self) -> float:
        """Return the seconds since the last call of this round ended."""
        with self._lock:
            before, self._counted = self._counted, self._line.clock()
            return self._counted - before


def _encode(ask: Ask) -> Any:
    return jsonable(ask.item)
