"""A ledger in memory: for tests, trials and as the model of what a ledger does."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Final, Self

from tollkeeper.errors import ConflictError, LedgerError
from tollkeeper.ledger.base import Move, Submission
from tollkeeper.ledger.commits import Commit, new_commit, settle
from tollkeeper.ledger.rows import (
    key_row,
    moved_tenant,
    number,
    record_row,
    row_record,
    row_tenant,
    tenant_row,
)
from tollkeeper.types import Entry, KeyInfo, Record, Tenant

MAX_RECORDS: Final = 100_000
"""A process that serves for weeks must not fill its memory with records."""


class MemoryLedger:
    """A ledger that forgets everything when the process ends.

    It keeps the `MAX_RECORDS` records stored last; totals and sketches lose nothing.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._closed = False
        self._entries: dict[str, Entry] = {}
        self._records: deque[Record] = deque(maxlen=MAX_RECORDS)
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[str, KeyInfo] = {}
        self._standing = 0
        self._facts: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Refuse further use; what was stored is gone with the object."""
        self._closed = True

    def read(self, pool: str) -> Entry:
        """Return the newest entry."""
        self._must_be_open()
        return self._entries.get(pool, Entry(pool))

    def commit(self, pool: str, record: Record, sketch: bytes, *, expected: int) -> Entry:
        """Store a record and the new sketch."""
        (future,) = self.submit([Submission(pool, [record], sketch, expected)])
        return future.result()

    def submit(self, submissions: Sequence[Submission]) -> list[Future[Entry]]:
        """Commit at once; the futures are done."""
        return [self._settled(submission) for submission in submissions]

    def _settled(self, submission: Submission) -> Future[Entry]:
        future: Future[Entry] = Future()
        try:
            future.set_result(self._apply(new_commit(submission)))
        except LedgerError as error:
            future.set_exception(error)
        return future

    def _apply(self, commit: Commit) -> Entry:
        with self._lock:
            self._must_be_open()
            pools = [part.pool for part in commit.parts]
            heads = {pool: self._entries.get(pool, Entry(pool)) for pool in pools}
            (outcome,) = settle(heads, [commit])
            if isinstance(outcome, ConflictError):
                raise outcome
            self._entries |= heads
            self._records.extend(row_record(row) for row in commit.rows)
            return outcome

    def note(self, records: Sequence[Record]) -> None:
        """Append records that belong to no commit."""
        checked = [row_record(record_row(record)) for record in records]
        with self._lock:
            self._must_be_open()
            self._records.extend(checked)

    def records(
        self, *, tenant: str | None = None, since: float | None = None, limit: int = 1000
    ) -> Iterator[Record]:
        """Return the newest records first; of the same time, the one stored last."""
        with self._lock:
            self._must_be_open()
            found = [
                record
                for record in reversed(self._records)
                if (tenant is None or record.tenant == tenant)
                and (since is None or record.at >= since)
            ]
        found.sort(key=lambda record: record.at, reverse=True)
        return iter(found[: max(limit, 0)])

    def prune(self, before: float) -> int:
        """Delete the records older than `before`; totals stay."""
        before = number("before", before)
        with self._lock:
            self._must_be_open()
            kept = [record for record in self._records if record.at >= before]
            deleted = len(self._records) - len(kept)
            self._records = deque(kept, maxlen=MAX_RECORDS)
            return deleted

    def check(self) -> None:
        """Return, unless the ledger is closed."""
        self._must_be_open()

    def add_key(self, key: KeyInfo) -> None:
        """Store a key."""
        key = KeyInfo(*key_row(key))
        with self._lock:
            self._must_be_open()
            if key.tenant not in self._tenants:
                raise LedgerError(f"there is no tenant {key.tenant!r}; add it before its keys")
            if key.id in self._keys or any(k.digest == key.digest for k in self._keys.values()):
                raise LedgerError(
                    f"a key with the id {key.id!r} or its digest exists; make a new one"
                )
            self._keys[key.id] = key
            self._standing += 1

    def find_key(self, digest: str) -> KeyInfo | None:
        """Return the key with this digest, or None."""
        with self._lock:
            self._must_be_open()
            return next((key for key in self._keys.values() if key.digest == digest), None)

    def keys(self, *, tenant: str | None = None) -> Sequence[KeyInfo]:
        """Return all keys, oldest first."""
        with self._lock:
            self._must_be_open()
            found = [key for key in self._keys.values() if tenant is None or key.tenant == tenant]
        return sorted(found, key=lambda key: key.created_at)

    def revoke_key(self, key_id: str, *, at: float) -> KeyInfo:
        """Mark a key revoked; the first time counts."""
        at = number("at", at)
        with self._lock:
            self._must_be_open()
            key = self._keys.get(key_id)
            if key is None:
                raise LedgerError(f"there is no key {key_id!r}; list the keys to see their ids")
            if key.revoked_at is None:
                key = self._keys[key_id] = replace(key, revoked_at=at)
                self._standing += 1
            return key

    def add_tenant(self, tenant: Tenant) -> None:
        """Store a tenant."""
        tenant = row_tenant(tenant_row(tenant))
        with self._lock:
            self._must_be_open()
            if tenant.name in self._tenants:
                raise LedgerError(f"there is a tenant {tenant.name!r} already; choose another name")
            self._tenants[tenant.name] = tenant
            self._standing += 1

    def find_tenant(self, name: str) -> Tenant | None:
        """Return the tenant, or None."""
        self._must_be_open()
        return self._tenants.get(name)

    def tenants(self) -> Sequence[Tenant]:
        """Return all tenants by name."""
        with self._lock:
            self._must_be_open()
            return sorted(self._tenants.values(), key=lambda tenant: tenant.name)

    def update_tenant(self, tenant: Tenant) -> None:
        """Replace a tenant's fields."""
        tenant = row_tenant(tenant_row(tenant))
        with self._lock:
            self._must_be_open()
            if tenant.name not in self._tenants:
                raise LedgerError(f"there is no tenant {tenant.name!r}; add it first")
            self._tenants[tenant.name] = tenant
            self._standing += 1

    def move_tenants(self, moves: Sequence[Move]) -> None:
        """Change pools and budgets of tenants, all or none."""
        with self._lock:
            self._must_be_open()
            moved = dict(self._tenants)
            for move in moves:
                name = move.tenant.name
                moved[name] = moved_tenant(moved.get(name), move)
            self._tenants = moved
            self._standing += 1

    def standing_version(self) -> int:
        """Return the change counter of keys and tenants."""
        self._must_be_open()
        return self._standing

    def remember(self, name: str, value: str) -> str:
        """Store `value` under `name` unless something is stored; return what is stored."""
        with self._lock:
            self._must_be_open()
            return self._facts.setdefault(name, value)

    def recall(self, name: str) -> str | None:
        """Return what is stored under `name`, or None."""
        self._must_be_open()
        return self._facts.get(name)

    def _must_be_open(self) -> None:
        if self._closed:
            raise LedgerError("the ledger is closed; open it again")
