"""Load of which a few requests are of another account, that is asked to pay and does.

Inputs are digits of hashes, which spread over the space of every encoder, so that a new input is
nearly always a new place and has a price.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from typing import Any

import msgspec

from tollkeeper.bench.experiment import BenchError, Progress
from tollkeeper.bench.load import Connection, Plan, Report, Round, request_bytes, run_round
from tollkeeper.challenge.protocol import PROOF_HEADER
from tollkeeper.challenge.solve import solve
from tollkeeper.client.offers import offered

_DIGEST_BYTES = 20


@dataclass(frozen=True, slots=True)
class MixedPlan(Plan):
    """One round of load by two accounts.

    Attributes:
        other: API key of the other account.
        every: each so many requests one is of the other account.
    """

    other: str
    every: int


@dataclass(frozen=True, slots=True)
class MixedReport(Report):
    """What such a round saw; a request that had to pay counts once, when it was answered.

    Attributes:
        challenged: answers 402, over the whole round as `answered` is.
    """

    challenged: int


def generate(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Run one `MixedPlan` given as JSON; the child's side of `run_apart`."""
    del progress
    plan = msgspec.convert(payload, MixedPlan)
    return asdict(asyncio.run(run_mixed(plan, clock=time.perf_counter)))


async def run_mixed(plan: MixedPlan, *, clock: Callable[[], float]) -> MixedReport:
    """Put load on the server and report.

    Raises:
        BenchError: an answer was neither a 200 of the expected size nor a challenge that its
            solution settled, or a connection broke.
    """
    round_ = _MixedRound(plan, clock)
    await run_round(round_, _Paying)
    return MixedReport(**asdict(round_.report()), challenged=round_.challenged)


class _MixedRound(Round):
    """Gives requests of both accounts."""

    def __init__(self, plan: MixedPlan, clock: Callable[[], float]) -> None:
        super().__init__(plan, clock)
        self._every = plan.every
        self._other = replace(plan, key=plan.other)
        self.challenged = 0

    def next_request(self) -> bytes:
        number = self.plan.first + self._sent % self.plan.distinct
        texts = [_text(number, i) for i in range(self.plan.inputs)]
        plan = self.plan if self._sent % self._every else self._other
        self._sent += 1
        return request_bytes(plan, texts)


class _Paying(Connection):
    """Solves what it is asked to solve, at once, and sends the request again."""

    _round: _MixedRound
    _has_paid = False

    def _finish(self) -> None:
        if self._buffer[9:12] != b"402" or self._has_paid:
            self._has_paid = False
            super()._finish()
            return
        paid = with_proof(self._request, bytes(self._buffer[: self._body_start]))
        self._forget()
        self._has_paid = True
        self._round.challenged += 1
        self._transport.write(paid)


def with_proof(request: bytes, head: bytes) -> bytes:
    """Return a request with the proof that the head of a 402 asks for.

    Raises:
        BenchError: there is no challenge in it.
    """
    found = [line for line in head.decode("latin-1").split("\r\n") if ":" in line]
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in found)}
    challenge = offered(headers.get("www-authenticate", ""))
    if challenge is None:
        raise BenchError(f"a 402 without a challenge: {head[:300]!r}")
    proof = challenge.proof(solve(challenge.puzzle))
    return request.replace(b"\r\n", f"\r\n{PROOF_HEADER}: {proof}\r\n".encode(), 1)


def _text(number: int, i: int) -> str:
    return blake2b(b"%d.%d" % (number, i), digest_size=_DIGEST_BYTES).hexdigest()
