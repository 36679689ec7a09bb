"""What a ledger is: four methods, and capabilities beyond them as mixins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tollkeeper.types import Entry, KeyInfo, Record, Tenant


@runtime_checkable
class Ledger(Protocol):
    """Durable state of every pool: its sketch, what it spent, and the records behind it.

    The ledger stores sketches as bytes it does not understand. It never holds an
    input, an embedding or an API key.
    """

    def read(self, pool: str) -> Entry:
        """Return the newest committed entry; version 0 and no sketch if there is none.

        Raises:
            LedgerError: the store cannot be read.
        """
        ...

    def commit(self, pool: str, record: Record, sketch: bytes, *, expected: int) -> Entry:
        """Store a record and the new sketch durably, then return the new entry.

        Args:
            pool: whose sketch.
            record: what happened; its charge and inputs are added to the totals.
            sketch: the guard's bytes after this request.
            expected: the version that was read; the new version is `expected + 1`.

        Raises:
            ConflictError: the stored version is not `expected`; nothing was stored.
            LedgerError: the store failed; nothing was stored.
        """
        ...

    def records(
        self, *, tenant: str | None = None, since: float | None = None, limit: int = 1000
    ) -> Iterator[Record]:
        """Yield the newest records first.

        Args:
            tenant: only this tenant's; None means all.
            since: only records at or after this time, in seconds since the epoch.
            limit: at most this many.
        """
        ...

    def check(self) -> None:
        """Return if the store is healthy.

        Raises:
            LedgerError: one sentence saying what is wrong and what to do.
        """
        ...


@dataclass(frozen=True, slots=True)
class Beside:
    """A second entry that a commit changes, with the first or not at all.

    Attributes:
        pool: whose sketch.
        sketch: the guard's bytes afterwards.
        expected: the version that was read; the new version is `expected + 1`.
        charge: added to the entry's total.
        inputs: added to the entry's total.
    """

    pool: str
    sketch: bytes
    expected: int
    charge: float
    inputs: int


@dataclass(frozen=True, slots=True)
class Submission:
    """One commit that holds several requests of one pool.

    Attributes:
        pool: whose sketch.
        records: what happened, in order; at least one. All are stored or none.
        sketch: the guard's bytes after the last of them.
        expected: the version that was read; the new version is `expected + 1` however
            many records there are.
        beside: other entries that change with it: all of them or none.
    """

    pool: str
    records: Sequence[Record]
    sketch: bytes
    expected: int
    beside: Sequence[Beside] = ()


@runtime_checkable
class GroupCommits(Protocol):
    """Capability: several commits share one fsync."""

    def submit(self, submissions: Sequence[Submission]) -> list[Future[Entry]]:
        """Commit in the given order, together with whatever else waits.

        Returns:
            A future for each submission. It ends as `Ledger.commit` would return or
            raise, after the commit is durable. Failures of the store arrive there,
            never as an exception of this call, and one conflict fails no neighbor.
        """
        ...


@runtime_checkable
class Notes(Protocol):
    """Capability: records that belong to no commit, such as refusals and operator's notes."""

    def note(self, records: Sequence[Record]) -> None:
        """Append records in order; no entry changes, whatever charge they name.

        Raises:
            LedgerError: a record cannot be stored or the store failed; none was stored.
        """
        ...


@runtime_checkable
class KeepsKeys(Protocol):
    """Capability: API keys, stored as keyed digests."""

    def add_key(self, key: KeyInfo) -> None:
        """Store a key; raises LedgerError if its id or digest exists or its tenant does not."""
        ...

    def find_key(self, digest: str) -> KeyInfo | None:
        """Return the key with this digest, revoked or not, or None."""
        ...

    def keys(self, *, tenant: str | None = None) -> Sequence[KeyInfo]:
        """Return all keys, oldest first."""
        ...

    def revoke_key(self, key_id: str, *, at: float) -> KeyInfo:
        """Mark a key revoked; raises LedgerError if there is no such key; idempotent."""
        ...


@runtime_checkable
class KeepsTenants(Protocol):
    """Capability: tenants and their standing."""

    def add_tenant(self, tenant: Tenant) -> None:
        """Store a tenant; raises LedgerError if the name is taken."""
        ...

    def find_tenant(self, name: str) -> Tenant | None:
        """Return the tenant, or None."""
        ...

    def tenants(self) -> Sequence[Tenant]:
        """Return all tenants by name."""
        ...

    def update_tenant(self, tenant: Tenant) -> None:
        """Replace a tenant's fields; raises LedgerError if it does not exist."""
        ...


@dataclass(frozen=True, slots=True)
class Move:
    """A tenant that is to be charged on another pool.

    Attributes:
        tenant: as it was read; its pool and budget must not have changed since.
        pool: where it goes.
        budget: counted from the new pool's spend, or None.
    """

    tenant: Tenant
    pool: str
    budget: float | None


@runtime_checkable
class MovesTenants(Protocol):
    """Capability: several tenants change pools together."""

    def move_tenants(self, moves: Sequence[Move]) -> None:
        """Change pools and budgets, and nothing else of these tenants: all of them or none.

        Raises:
            ConflictError: a tenant's pool or budget is not what was read.
            LedgerError: a tenant does not exist, or the store failed.
        """
        ...


@runtime_checkable
class Changes(Protocol):
    """Capability: a cheap number that changes when keys or tenants change, from any process."""

    def standing_version(self) -> int:
        """Return the change counter of keys and tenants; cheap enough to ask twice a second."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """Capability: a few facts about the deployment, each written once."""

    def remember(self, name: str, value: str) -> str:
        """Store `value` under `name` unless something is stored; return what is stored."""
        ...

    def recall(self, name: str) -> str | None:
        """Return what is stored under `name`, or None."""
        ...
