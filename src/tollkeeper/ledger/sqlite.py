"""A ledger in one SQLite file: durable, shared between processes, no server."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self

from tollkeeper.errors import LedgerError
from tollkeeper.ledger.base import Move, Submission
from tollkeeper.ledger.commits import Commit, new_commit
from tollkeeper.ledger.rows import (
    key_row,
    moved_tenant,
    number,
    record_row,
    row_record,
    row_tenant,
    tenant_row,
    text,
)
from tollkeeper.ledger.schema import MIGRATIONS, connect, explained, prepare, verify
from tollkeeper.ledger.writer import STORE_RECORD, GroupWriter
from tollkeeper.types import Entry, KeyInfo, Record, Tenant

PRUNED_AT_ONCE: Final = 5000
"""Records deleted in one transaction; commits get their turn in between."""

_RECORD = (
    "SELECT at, tenant, key_id, request_id, model, inputs, tokens, charge, coverage,"
    " noise_scale, profile, shadow, decision, reason, paid_s FROM records "
)
# One statement per filter, so that each walks an index from its newest end.
_RECORDS = {
    (False, False): _RECORD + "ORDER BY at DESC, id DESC LIMIT :limit",
    (False, True): _RECORD + "WHERE at >= :since ORDER BY at DESC, id DESC LIMIT :limit",
    (True, False): _RECORD + "WHERE tenant = :tenant ORDER BY at DESC, id DESC LIMIT :limit",
    (True, True): _RECORD
    + "WHERE tenant = :tenant AND at >= :since ORDER BY at DESC, id DESC LIMIT :limit",
}
_KEY = "SELECT id, tenant, digest, created_at, revoked_at FROM keys "
_TENANT = "SELECT name, pool, suspended, budget, created_at, note, plan, mode, grant FROM tenants "
_BUMP = "UPDATE standing SET version = version + 1"


class SqliteLedger:
    """A ledger in a SQLite file with a write-ahead log; any thread may use it.

    One thread at a time writes and syncs whole groups of commits; reads have a
    connection of their own and never wait for a write. Several processes may open one file. A
    process that forks opens its ledger after the fork.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout_s: float = 5.0) -> None:
        """Open the file; create it with mode 0600 or upgrade its schema if need be.

        Args:
            path: the file; its directory exists and is writable.
            busy_timeout_s: how long to wait for another process's write.

        Raises:
            LedgerError: one sentence saying what is wrong with the file and what to do.
        """
        self._path = Path(path).absolute()
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._closed = False
        prepare(self._path, busy_timeout_s=busy_timeout_s)
        with explained(self._path):
            self._file = _identity(self._path)
            self._reader = self._connect()
            try:
                verify(self._reader, self._path)
                self._writer = GroupWriter(self._path, busy_timeout_s=busy_timeout_s)
            except BaseException:
                self._reader.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Store what was submitted, then close the file; later use raises LedgerError."""
        self._writer.close()
        with self._lock:
            self._closed = True
            self._reader.close()

    def read(self, pool: str) -> Entry:
        """Return the newest committed entry, whichever process committed it."""
        rows = self._select(
            "SELECT version, sketch, spent, queries FROM pools WHERE pool = ?", pool
        )
        return Entry(pool, *rows[0]) if rows else Entry(pool)

    def commit(self, pool: str, record: Record, sketch: bytes, *, expected: int) -> Entry:
        """Store a record and the new sketch, and return once they are on disk."""
        (future,) = self.submit([Submission(pool, [record], sketch, expected)])
        return future.result()

    def submit(self, submissions: Sequence[Submission]) -> list[Future[Entry]]:
        """Commit in order; every failure, a closed ledger too, comes through the futures.

        While another thread writes, this one queues and returns; else it writes itself,
        for all who queue meanwhile. The queue is bounded and never blocks: when it is
        full the futures fail with LedgerError. A future that is cancelled before its
        group begins stores nothing.

        Build only on versions that were read or returned. A commit built on one in
        flight would, if that one lost to another process, meet the winner's version
        by its number alone and wipe the winner's coverage out.
        """
        futures: list[Future[Entry]] = []
        commits: list[Commit] = []
        for submission in submissions:
            try:
                commits.append(new_commit(submission))
            except LedgerError as error:
                futures.append(Future())
                futures[-1].set_exception(error)
            else:
                futures.append(commits[-1].future)
        self._writer.put(*commits)
        return futures

    def note(self, records: Sequence[Record]) -> None:
        """Append records that belong to no commit, in one transaction."""
        rows = [record_row(record) for record in records]
        self._writer.call(lambda connection: connection.executemany(STORE_RECORD, rows))

    def records(
        self, *, tenant: str | None = None, since: float | None = None, limit: int = 1000
    ) -> Iterator[Record]:
        """Return the newest records first; of the same time, the one stored last."""
        self._must_be_open()
        statement = _RECORDS[tenant is not None, since is not None]
        values = {"tenant": tenant, "since": since, "limit": max(limit, 0)}
        # A connection of its own: a long list must not hold up the requests' reads.
        with explained(self._path), closing(self._connect()) as connection:
            rows = connection.execute(statement, values).fetchall()
        return map(row_record, rows)

    def prune(self, before: float) -> int:
        """Delete the records older than `before`; totals stay, freed space is reused."""
        before = number("before", before)

        def delete(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "DELETE FROM records WHERE id IN"
                " (SELECT id FROM records WHERE at < ? ORDER BY at LIMIT ?)",
                (before, PRUNED_AT_ONCE),
            ).rowcount

        deleted = 0
        while count := self._writer.call(delete):
            deleted += count
        return deleted

    def check(self) -> None:
        """Read every page, compare the schema and write once; takes seconds per gigabyte."""
        self._must_be_open()
        with explained(self._path):
            if _identity(self._path) != self._file:
                raise LedgerError(
                    f"the ledger {self._path} was replaced while in use; restart the gateway"
                )
            with closing(self._connect()) as connection:
                ((verdict,),) = connection.execute("PRAGMA quick_check(1)")
                if verdict != "ok":
                    raise LedgerError(
                        f"the ledger {self._path} is damaged; stop its gateways and restore"
                        f" a backup ({verdict})"
                    )
                verify(connection, self._path)
        # Setting a version anew dirties a page even when it is the same: a true write.
        self._writer.call(lambda writer: writer.execute(f"PRAGMA user_version = {len(MIGRATIONS)}"))

    def add_key(self, key: KeyInfo) -> None:
        """Store a key."""
        row = key_row(key)

        def add(connection: sqlite3.Connection) -> None:
            if not connection.execute(_TENANT + "WHERE name = ?", (key.tenant,)).fetchone():
                raise LedgerError(f"there is no tenant {key.tenant!r}; add it before its keys")
            try:
                connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise LedgerError(
                    f"a key with the id {key.id!r} or its digest exists; make a new one"
                ) from None
            connection.execute(_BUMP)

        self._writer.call(add)

    def find_key(self, digest: str) -> KeyInfo | None:
        """Return the key with this digest, or None."""
        rows = self._select(_KEY + "WHERE digest = ?", digest)
        return KeyInfo(*rows[0]) if rows else None

    def keys(self, *, tenant: str | None = None) -> Sequence[KeyInfo]:
        """Return all keys, oldest first."""
        order = "ORDER BY created_at, rowid"
        if tenant is None:
            return [KeyInfo(*row) for row in self._select(_KEY + order)]
        return [KeyInfo(*row) for row in self._select(_KEY + "WHERE tenant = ? " + order, tenant)]

    def revoke_key(self, key_id: str, *, at: float) -> KeyInfo:
        """Mark a key revoked; the first time counts."""
        at = number("at", at)

        def revoke(connection: sqlite3.Connection) -> KeyInfo:
            changed = connection.execute(
                "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (at, key_id)
            ).rowcount
            if changed:
                connection.execute(_BUMP)
            row = connection.execute(_KEY + "WHERE id = ?", (key_id,)).fetchone()
            if row is None:
                raise LedgerError(f"there is no key {key_id!r}; list the keys to see their ids")
            return KeyInfo(*row)

        return self._writer.call(revoke)

    def add_tenant(self, tenant: Tenant) -> None:
        """Store a tenant."""
        row = tenant_row(tenant)

        def add(connection: sqlite3.Connection) -> None:
            try:
                connection.execute("INSERT INTO tenants VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise LedgerError(
                    f"there is a tenant {tenant.name!r} already; choose another name"
                ) from None
            connection.execute(_BUMP)

        self._writer.call(add)

    def find_tenant(self, name: str) -> Tenant | None:
        """Return the tenant, or None."""
        rows = self._select(_TENANT + "WHERE name = ?", name)
        return row_tenant(rows[0]) if rows else None

    def tenants(self) -> Sequence[Tenant]:
        """Return all tenants by name."""
        return [row_tenant(row) for row in self._select(_TENANT + "ORDER BY name")]

    def update_tenant(self, tenant: Tenant) -> None:
        """Replace a tenant's fields."""
        name, *fields = tenant_row(tenant)

        def update(connection: sqlite3.Connection) -> None:
            changed = connection.execute(
                "UPDATE tenants SET pool = ?, suspended = ?, budget = ?, created_at = ?, note = ?,"
                " plan = ?, mode = ?, grant = ? WHERE name = ?",
                (*fields, name),
            ).rowcount
            if not changed:
                raise LedgerError(f"there is no tenant {name!r}; add it first")
            connection.execute(_BUMP)

        self._writer.call(update)

    def move_tenants(self, moves: Sequence[Move]) -> None:
        """Change pools and budgets of tenants, all or none."""

        def shift(connection: sqlite3.Connection) -> None:
            for move in moves:
                name = text("name", move.tenant.name)
                row = connection.execute(_TENANT + "WHERE name = ?", (name,)).fetchone()
                moved = moved_tenant(row_tenant(row) if row else None, move)
                _, *fields = tenant_row(moved)
                connection.execute(
                    "UPDATE tenants SET pool = ?, budget = ? WHERE name = ?",
                    (fields[0], fields[2], name),
                )
            connection.execute(_BUMP)

        self._writer.call(shift)

    def standing_version(self) -> int:
        """Return the change counter of keys and tenants, of all processes together."""
        ((version,),) = self._select("SELECT version FROM standing")
        return int(version)

    def remember(self, name: str, value: str) -> str:
        """Store `value` under `name` unless something is stored; return what is stored."""
        row = (text("name", name), text("value", value))

        def store(connection: sqlite3.Connection) -> str:
            connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", row)
            found = connection.execute("SELECT value FROM facts WHERE name = ?", row[:1])
            return str(found.fetchone()[0])

        return self._writer.call(store)

    def recall(self, name: str) -> str | None:
        """Return what is stored under `name`, or None."""
        rows = self._select("SELECT value FROM facts WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, busy_timeout_s=self._busy_timeout_s)

    def _select(self, statement: str, *values: str) -> list[Any]:
        with self._lock, explained(self._path):
            self._must_be_open()
            return self._reader.execute(statement, [text("name", v) for v in values]).fetchall()

    def _must_be_open(self) -> None:
        if self._closed:
            raise LedgerError("the ledger is closed; open it again")


def _identity(path: Path) -> tuple[int, int]:
    """Return device and inode: the same for the same file, whatever its name."""
    status = path.stat()
    return status.st_dev, status.st_ino
