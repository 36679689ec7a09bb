"""API keys: shown once, stored as keyed hashes, three outcomes, noticed across processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tollkeeper.errors import AuthenticationError, LedgerError
from tollkeeper.gateway.auth import KEY_PREFIX, KeyRing
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.sqlite import SqliteLedger


def ring(store: MemoryLedger | SqliteLedger, pepper: bytes = b"p" * 32) -> KeyRing:
    """A key ring with a clock that stands still."""
    return KeyRing(store, pepper=pepper, clock=lambda: 5.0)


def test_three_outcomes() -> None:
    """A known key is an account, no bearer credential is None, anything else is refused."""
    keyring = ring(MemoryLedger())
    secret, info = keyring.create("acme")
    account = keyring.authenticate(f"Bearer {secret}")
    assert account is not None
    assert (account.tenant, account.key_id, account.pool) == ("acme", info.id, "acme")
    assert keyring.authenticate(None) is None
    assert keyring.authenticate("Basic xyz") is None
    assert keyring.authenticate("Bearer ") is None
    for wrong in (secret + "x", secret[:-1], "sk-1", "\udce9", "a" * 10_000):
        with pytest.raises(AuthenticationError):
            keyring.authenticate(f"Bearer {wrong}")


def test_keys_are_not_stored() -> None:
    """The store holds a keyed hash: neither the key nor a plain hash of it, and useless elsewhere."""
    store = MemoryLedger()
    keyring = ring(store)
    secret, info = keyring.create("acme")
    assert secret.startswith(KEY_PREFIX)
    assert secret not in repr(store.keys())
    assert info.digest != ring(store, b"q" * 32).digest(secret)
    with pytest.raises(AuthenticationError):
        ring(store, b"q" * 32).authenticate(f"Bearer {secret}")


def test_many_keys_per_tenant() -> None:
    """Keys of one tenant are distinct and share its pool."""
    keyring = ring(MemoryLedger())
    pairs = [keyring.create("acme") for _ in range(3)]
    accounts = [keyring.authenticate(f"Bearer {secret}") for secret, _ in pairs]
    assert len({account.key_id for account in accounts if account}) == 3
    assert {account.pool for account in accounts if account} == {"acme"}


def test_another_process_changes_keys(tmp_path: Path) -> None:
    """A new key works at once; a revoked one is refused after `refresh` (polled twice a second)."""
    with SqliteLedger(tmp_path / "l.sqlite3") as mine, SqliteLedger(tmp_path / "l.sqlite3") as cli:
        server, operator = ring(mine), ring(cli)
        secret, info = operator.create("acme")
        assert server.authenticate(f"Bearer {secret}") is not None
        server.refresh()
        assert not server.refresh()
        cli.revoke_key(info.id, at=6.0)
        assert server.refresh()
        with pytest.raises(AuthenticationError):
            server.authenticate(f"Bearer {secret}")


def test_another_process_changes_a_tenants_plan(tmp_path: Path) -> None:
    """Plan, mode and grant reach the account, and a change is seen after `refresh`."""
    with SqliteLedger(tmp_path / "l.sqlite3") as mine, SqliteLedger(tmp_path / "l.sqlite3") as cli:
        server = ring(mine)
        secret, _ = ring(cli).create("acme")
        fresh = server.authenticate(f"Bearer {secret}")
        assert fresh is not None
        assert (fresh.plan, fresh.mode, fresh.grant) == ("", "", "")
        server.refresh()
        tenant = cli.find_tenant("acme")
        assert tenant is not None
        cli.update_tenant(replace(tenant, plan="bulk", mode="enforce", grant="signed"))
        assert server.refresh()
        changed = server.authenticate(f"Bearer {secret}")
        assert changed == replace(fresh, plan="bulk", mode="enforce", grant="signed")


def test_stale_lookup_does_not_survive_a_refresh() -> None:
    """A look-up that raced with a revocation leaves nothing in the new cache."""

    class Racing(MemoryLedger):
        hook = staticmethod(lambda: None)

        def find_tenant(self, name: str):  # type: ignore[no-untyped-def]  # passes through
            found = super().find_tenant(name)
            self.hook()
            return found

    store = Racing()
    keyring = ring(store)
    secret, info = keyring.create("acme")

    def revoke_meanwhile() -> None:
        store.hook = staticmethod(lambda: None)
        store.revoke_key(info.id, at=6.0)
        keyring.refresh()

    store.hook = staticmethod(revoke_meanwhile)
    keyring.authenticate(f"Bearer {secret}")
    with pytest.raises(AuthenticationError):
        keyring.authenticate(f"Bearer {secret}")


def test_key_without_tenant_is_a_ledger_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged ledger fails closed."""
    store = MemoryLedger()
    keyring = ring(store)
    secret, _ = keyring.create("acme")
    monkeypatch.setattr(store, "find_tenant", lambda _: None)
    with pytest.raises(LedgerError):
        keyring.authenticate(f"Bearer {secret}")
