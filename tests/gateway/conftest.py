"""A service that takes tolls, with clocks that are set by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from tollkeeper.challenge.puzzle import SCRYPT, SHA_256
from tollkeeper.challenge.solve import solve
from tollkeeper.client.offers import offered
from tollkeeper.errors import (
    ChallengeRequired,
)
from tollkeeper.gateway.archive import Archive
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.assembly import make_service
from tollkeeper.gateway.desk import Desk
from tollkeeper.gateway.grants import Grant, Grants
from tollkeeper.gateway.links import Links
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Plan, Plans
from tollkeeper.gateway.service import Guarded
from tollkeeper.guard import keys, profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.price import Geometric
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.spent import MemorySpent, SpentStore
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.types import Account, Entry, Tenant

DIM = 16
ENCODER = hash_encoder(DIM)
SECRET = bytes(range(32))
SAMPLE = ENCODER.embed([f"sample {i}" for i in range(256)])
CALIBRATION = Calibration.fit(SAMPLE, rng=np.random.default_rng(0))
# Many buckets, so that every input of these tests opens some.
PROFILE = replace(
    profiles.get("cheapest"),
    tables=8,
    bits=10,
    price=Geometric(knee=0.03, first=0.5, step=0.02, levels=4),
    ceiling=0.2,
)
GUARD = Guard(PROFILE, CALIBRATION, secret=SECRET)
RATES = {SHA_256: 1000.0, SCRYPT: 20.0}
PAYS = Plan(challenge=0.0, first_seconds=0.01, last_seconds=0.08, noise=None)
BODY = b"the body"
"""Requests of these tests need not be JSON: what a proof is bound to are bytes."""


ACCOUNT = Account("acme", "key_1", "acme")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Shop:
    """A service with its desk and its clocks."""

    plan: Plan = PAYS
    ledger: Any = field(default_factory=MemoryLedger)
    spent: SpentStore = field(default_factory=MemorySpent)
    account: Account = ACCOUNT
    clock: Clock = field(default_factory=Clock)
    ticks: Clock = field(default_factory=Clock)
    guard: Guard = GUARD

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.service: Guarded = make_service(
            ENCODER,
            self.guard,
            self.ledger,
            clock=self.clock,
            ticks=self.ticks,
            rng=np.random.default_rng(0),
            metrics=self.metrics,
            plans={"plan": self.plan},
            plan="plan",
            spent=self.spent,
            secret=SECRET,
            rates=RATES,
        )
        self.desk = Desk(self.service)

    def ask(self, *texts: str, token: str = "", body: bytes = BODY, **who: Any) -> Any:
        """Let an account ask texts, with the header of a proof."""
        account = replace(self.account, **who)
        ask = Ask(account, texts, "text", request_id="req", body=body)
        if token:
            paid = self.desk.verify(token, account, body)
            ask.proof, ask.fault = paid.proof, paid.fault
        return self.service.answer(ask)

    def change(self, plan: Plan) -> None:
        """Let another plan hold, as a reload does."""
        admission = self.service.admission
        admission.plans = Plans({"plan": plan}, "plan", admission.plans.scale)

    def walk(self, count: int = 60, name: str = "walk", **who: Any) -> None:
        """Let the account pass the knee, for nothing: under an allowance of its plan's maker."""
        plans = self.service.admission.plans
        self.change(Plan(noise=None, refuse=None))
        self.ask(*[f"{name} {i}" for i in range(count)], **who)
        self.service.admission.plans = plans

    def challenge(self, *texts: str, **options: Any) -> ChallengeRequired:
        """Ask without a proof, and get the challenge."""
        with pytest.raises(ChallengeRequired) as caught:
            self.ask(*texts, **options)
        return caught.value

    def records(self) -> list[Any]:
        """All records, the newest first."""
        self.service.journal.flush()
        return list(self.ledger.records())

    def token(self, header: str) -> str:
        """Solve the challenge of a header."""
        offer = offered(header)
        assert offer is not None
        return offer.proof(solve(offer.puzzle))

    def entry(self) -> Entry:
        """What the ledger holds of the tenant."""
        found: Entry = self.ledger.read(f"acme@{self.guard.fingerprint}")
        return found

    def covered(self) -> float:
        """What the tenant covers, granted or not."""
        sketch = self.entry().sketch[: self.guard.sketch_bytes]
        return self.guard.fraction(self.guard.load(sketch))

    def grant(self, inputs: int) -> str:
        """Return a signed grant for the tenant, for a day from now."""
        now = self.clock.now
        grants = Grants(keys.derive(SECRET, "grants"))
        return grants.sign(Grant(f"g{inputs}", "acme", inputs, now, now + 86400))

    def keep_tenant(self) -> None:
        """Let the ledger know the tenant."""
        self.ledger.add_tenant(Tenant("acme", "acme"))

    def links(self) -> Links:
        """The operator's hand on pools."""
        archive = Archive(self.guard.profile.layout, None, self.guard.fingerprint)
        return Links(self.ledger, archive, version="t/1", clock=self.clock, sleep=lambda _: None)

    def record(self, decision: str) -> Any:
        """The only record of a decision."""
        (found,) = [row for row in self.records() if row.decision == decision]
        return found


@pytest.fixture
def open_shop() -> type[Shop]:
    """Opens services that take tolls."""
    return Shop
