"""Marks at the gateway: for those whom the operator names, in answers, shadow views and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tollkeeper.errors import GuardError
from tollkeeper.gateway.admission import ALL
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.assembly import make_service
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Plan
from tollkeeper.gateway.service import Guarded
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.types import Account, Embeddings

DIM = 16
ENCODER = hash_encoder(DIM)
GUARD = Guard(
    profiles.get("cheapest"),
    Calibration.fit(
        ENCODER.embed([f"sample {i}" for i in range(256)]), rng=np.random.default_rng(0)
    ),
    secret=bytes(range(32)),
)
TEXTS = ("one", "two", "three")


def service(marked: Sequence[str] = (), guard: Guard = GUARD, **options: Any) -> Guarded:
    """Return a service over a memory ledger."""
    return make_service(
        ENCODER,
        guard,
        MemoryLedger(),
        clock=lambda: 1000.0,
        rng=np.random.default_rng(0),
        metrics=Metrics(),
        marked=marked,
        **options,
    )


def answer(asked: Guarded, tenant: str) -> Embeddings:
    """Return what a tenant gets."""
    account = Account(tenant=tenant, key_id="key_1", pool=tenant)
    return asked.answer(Ask(account, TEXTS, "text", None, "req_1")).embeddings


def seen(tenant: str, *, marked: bool) -> Embeddings:
    """Return what the guard says a tenant sees."""
    return GUARD.view(ENCODER.embed(TEXTS), key=GUARD.tenant_key(tenant), marked=marked)


def test_only_named_tenants_are_marked() -> None:
    """The named tenant's answers move a little; another's are the same bytes as without marks."""
    asked = service(["ada"])
    assert answer(asked, "ada").tobytes() == seen("ada", marked=True).tobytes()
    assert answer(asked, "bob").tobytes() == seen("bob", marked=False).tobytes()
    assert answer(service(), "ada").tobytes() == seen("ada", marked=False).tobytes()
    assert not np.array_equal(seen("ada", marked=True), seen("ada", marked=False))


def test_a_star_marks_everyone() -> None:
    """`*` stands for every tenant."""
    assert answer(service([ALL]), "bob").tobytes() == seen("bob", marked=True).tobytes()


def test_enforcing_a_plan_in_shadow_changes_no_marked_answer() -> None:
    """A plan in shadow shows the marked view, a server in shadow the clean embedding."""
    plans = {"quiet": Plan(mode="shadow")}
    shadowed = service(["ada"], plans=plans, plan="quiet")
    assert answer(shadowed, "ada").tobytes() == seen("ada", marked=True).tobytes()
    bare = service(["ada"], shadow=True)
    np.testing.assert_array_equal(answer(bare, "ada"), ENCODER.embed(TEXTS))


@pytest.mark.parametrize(
    ("options", "stamps"),
    [
        ({"marked": ["ada"]}, {"ada": "cheapest/1+mark", "bob": "cheapest/1"}),
        ({"marked": ["ada"], "shadow": True}, {"ada": "cheapest/1", "bob": "cheapest/1"}),
        ({}, {"ada": "cheapest/1", "bob": "cheapest/1"}),
    ],
    ids=["marked", "in shadow", "nobody"],
)
def test_records_say_which_answers_are_marked(
    options: dict[str, Any], stamps: dict[str, str]
) -> None:
    """The profile in a record carries `+mark` where the answer carried one."""
    asked = service(**options)
    for tenant in stamps:
        answer(asked, tenant)
    assert {one.tenant: one.profile for one in asked.ledger.records()} == stamps


def test_a_guard_that_cannot_mark_does_not_start() -> None:
    """Without a sample the refusal comes at the start, and only if anybody is to be marked."""
    bare = Guard(
        replace(profiles.NONE, name="bare"), Calibration.identity(DIM), secret=bytes(range(32))
    )
    with pytest.raises(GuardError, match="to mark tenants"):
        service([ALL], guard=bare)
    service(guard=bare)
