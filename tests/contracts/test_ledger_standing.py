"""What every ledger promises of tenants, keys and facts; see `test_ledgers.py` for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tollkeeper.errors import ConflictError, LedgerError
from tollkeeper.ledger.base import Move
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.types import KeyInfo, Record, Tenant

AnyLedger = MemoryLedger | SqliteLedger

RECORD = Record(1_000.0, "acme", "k1", "r1", "m", 3, 17, 2.0, 0.25, 0.5, "recommended/1")
TENANT = Tenant(
    "acme",
    "acme",
    budget=10.0,
    created_at=5.0,
    note="first",
    plan="bulk",
    mode="shadow",
    grant="signed",
)
KEY = KeyInfo("k1", "acme", "d1", created_at=6.0)


def check_tenants_are_kept(ledger: AnyLedger) -> None:
    """Tenants are stored, found, listed by name and replaced; names are unique."""
    ledger.add_tenant(TENANT)
    ledger.add_tenant(Tenant("Zeta", "shared"))
    assert ledger.find_tenant("acme") == TENANT
    assert ledger.find_tenant("nobody") is None
    assert [tenant.name for tenant in ledger.tenants()] == ["Zeta", "acme"]
    with pytest.raises(LedgerError, match="already"):
        ledger.add_tenant(replace(TENANT, note="second"))
    changed = Tenant("acme", "shared", suspended=True, plan="free", mode="enforce", grant="other")
    ledger.update_tenant(changed)
    assert ledger.find_tenant("acme") == changed
    with pytest.raises(LedgerError, match="no tenant"):
        ledger.update_tenant(replace(TENANT, name="nobody"))


def check_unstorable_tenants_are_refused(ledger: AnyLedger) -> None:
    """A tenant that no store can keep raises LedgerError naming the field."""
    unfit = {
        "budget": replace(TENANT, budget=math.nan),
        "plan": replace(TENANT, plan="\ud800"),
        "mode": replace(TENANT, mode="\ud800"),
        "grant": replace(TENANT, grant="\ud800"),
    }
    for field, tenant in unfit.items():
        with pytest.raises(LedgerError, match=field):
            ledger.add_tenant(tenant)
    assert not ledger.tenants()


def check_keys_are_kept(ledger: AnyLedger) -> None:
    """Keys are found by digest, many per tenant, listed oldest first, unique in id and digest."""
    ledger.add_tenant(TENANT)
    ledger.add_tenant(Tenant("other", "other"))
    newer = KeyInfo("k2", "acme", "d2", created_at=9.0)
    oldest = KeyInfo("k3", "other", "d3", created_at=1.0)
    for key in (newer, KEY, oldest):
        ledger.add_key(key)
    assert ledger.find_key("d1") == KEY
    assert ledger.find_key("d9") is None
    assert list(ledger.keys()) == [oldest, KEY, newer]
    assert list(ledger.keys(tenant="acme")) == [KEY, newer]
    for double in (replace(KEY, digest="d9"), replace(KEY, id="k9")):
        with pytest.raises(LedgerError, match="exists"):
            ledger.add_key(double)
    with pytest.raises(LedgerError, match="no tenant"):
        ledger.add_key(KeyInfo("k9", "nobody", "d9"))
    assert len(ledger.keys()) == 3


def check_revoking_is_idempotent(ledger: AnyLedger) -> None:
    """A revoked key is still found and keeps the time of its first revocation."""
    ledger.add_tenant(TENANT)
    ledger.add_key(KEY)
    revoked = replace(KEY, revoked_at=7.0)
    assert ledger.revoke_key("k1", at=7.0) == revoked
    assert ledger.revoke_key("k1", at=8.0) == revoked
    assert ledger.find_key("d1") == revoked
    with pytest.raises(LedgerError, match="no key"):
        ledger.revoke_key("k9", at=7.0)


def check_standing_version_follows_keys_and_tenants_only(ledger: AnyLedger) -> None:
    """The number changes with each change of a key or tenant, and not with commits or refusals."""
    seen = [ledger.standing_version()]

    def changed() -> bool:
        seen.append(ledger.standing_version())
        return seen[-1] != seen[-2]

    assert not changed()
    ledger.add_tenant(TENANT)
    assert changed()
    ledger.add_key(KEY)
    assert changed()
    ledger.revoke_key("k1", at=7.0)
    assert changed()
    ledger.update_tenant(replace(TENANT, suspended=True))
    assert changed()
    ledger.commit("acme", RECORD, b"", expected=0)
    assert not changed()
    with pytest.raises(LedgerError):
        ledger.add_tenant(TENANT)
    assert not changed()
    assert len(set(seen)) == 5, "a number came back"


def check_tenants_move_together_or_not_at_all(ledger: AnyLedger) -> None:
    """Pools and budgets change for all or for none; nothing else of a tenant does."""
    other = replace(TENANT, name="bolt", pool="bolt", budget=None)
    ledger.add_tenant(TENANT)
    ledger.add_tenant(other)
    before = ledger.standing_version()
    ledger.update_tenant(replace(TENANT, suspended=True, note="later"))
    ledger.move_tenants([Move(TENANT, "x/1", 5.0), Move(other, "x/1", None)])
    assert ledger.find_tenant("acme") == replace(
        TENANT, pool="x/1", budget=5.0, suspended=True, note="later"
    )
    assert ledger.standing_version() == before + 2
    now = ledger.find_tenant("bolt")
    assert now == replace(other, pool="x/1")
    for stale in (TENANT, replace(TENANT, pool="x/1", budget=6.0)):
        with pytest.raises(ConflictError):
            ledger.move_tenants([Move(now, "y/1", 1.0), Move(stale, "y/1", 1.0)])
    with pytest.raises(LedgerError, match="no tenant"):
        ledger.move_tenants([Move(now, "y/1", 1.0), Move(replace(now, name="z"), "y/1", 1.0)])
    assert ledger.find_tenant("bolt") == now


def check_remembers_the_first_value(ledger: AnyLedger) -> None:
    """A fact is written once; later values do not replace it."""
    assert ledger.remember("fact", "one") == "one"
    assert ledger.remember("fact", "two") == "one"
    assert ledger.remember("other", "two") == "two"
    assert ledger.recall("fact") == "one"
    assert ledger.recall("nothing") is None


CHECKS: list[Callable[[AnyLedger], None]] = [
    check for name, check in list(globals().items()) if name.startswith("check_")
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[AnyLedger], None], ledger: AnyLedger) -> None:
    """Each ledger keeps each promise about standing."""
    check(ledger)
