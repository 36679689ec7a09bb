"""Which proofs of work and grants have been used: each may be spent once, or up to a limit."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from tollkeeper.errors import ConfigurationError, LedgerError, SpentError
from tollkeeper.ledger.rows import number, text, whole
from tollkeeper.ledger.schema import Layout, connect, explained, prepare, verify

MOST_NAMES: Final = 1_000_000
"""A process that serves for weeks must not fill its memory with names that nobody prunes."""

FUSE_S: Final = 2.0
"""How long a store that failed is not asked."""

T = TypeVar("T")

PRUNED_AT_ONCE: Final = 5000
"""Names deleted in one transaction; requests get their turn in between."""

SPENT: Final = Layout(
    noun="store of used proofs",
    remedy="delete it: what has not expired can then be used once more",
    application_id=0x53706E74,  # "Spnt" in ASCII
    migrations=(
        (
            f"PRAGMA application_id = {0x53706E74}",
            """CREATE TABLE spent (
                name TEXT PRIMARY KEY NOT NULL, amount INTEGER NOT NULL, expires REAL NOT NULL
            ) WITHOUT ROWID""",
            "CREATE INDEX spent_by_expiry ON spent (expires)",
        ),
    ),
    shape=("SELECT name, amount, expires FROM spent LIMIT 0",),
)

_SPEND = """
    INSERT INTO spent (name, amount, expires) VALUES (:name, :amount, :expires)
    ON CONFLICT (name) DO UPDATE
    SET amount = amount + excluded.amount, expires = max(expires, excluded.expires)
    WHERE amount + excluded.amount <= :limit"""
_PRUNE = "DELETE FROM spent WHERE name IN (SELECT name FROM spent WHERE expires < ? LIMIT ?)"
_CLOSED = f"the {SPENT.noun} is closed; open it again"


@runtime_checkable
class SpentStore(Protocol):
    """How much of each named thing is used up; any thread may use it."""

    def spend(self, name: str, amount: int, *, limit: int, expires: float) -> bool:
        """Use up `amount` of `name` if no more than `limit` is then used; else change nothing.

        It is one atomic step for all threads, processes and replicas that share the
        store. With `amount == limit` the name can be spent once.

        Args:
            name: what is spent, for example a proof's id.
            amount: how much of it; an integer from 0.
            limit: the most that may ever be spent under this name.
            expires: when the name may be forgotten, in seconds since the epoch; the
                latest that was given counts.

        Returns:
            Whether it was spent.

        Raises:
            LedgerError: the store failed. Then the amount may or may not be spent.
        """
        ...

    def refund(self, name: str, amount: int) -> None:
        """Give back what this caller spent and could not use; never below 0.

        Raises:
            LedgerError: the store failed.
        """
        ...

    def spent(self, name: str) -> int:
        """Return what is spent under a name; 0 for one that is not known.

        Raises:
            LedgerError: the store failed.
        """
        ...

    def prune(self, before: float) -> int:
        """Forget names that expire before a time; return how many.

        A forgotten name can be spent again, so leave a margin for clocks that jump.

        Raises:
            LedgerError: the store failed.
        """
        ...

    def close(self) -> None:
        """Refuse further use; idempotent."""
        ...


class MemorySpent:
    """Used proofs in memory, of one process: all can be used again after a restart.

    A name of 64 characters takes about 250 bytes until it is pruned. At `MOST_NAMES`
    new ones are refused with LedgerError, so that it is bounded.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._closed = False
        self._names: dict[str, tuple[int, float]] = {}

    def spend(self, name: str, amount: int, *, limit: int, expires: float) -> bool:
        """Use up `amount` of `name` if no more than `limit` is then used."""
        given = spending(name, amount, limit=limit, expires=expires)
        with self._open():
            known = name in self._names
            before, until = self._names.get(name, (0, given["expires"]))
            total = before + given["amount"]
            if total > given["limit"]:
                return False
            if not known and len(self._names) >= MOST_NAMES:
                raise LedgerError(
                    f"{MOST_NAMES} used proofs are in memory already; prune the expired ones"
                    " or keep them in SQLite"
                )
            self._names[name] = total, max(until, given["expires"])
            return True

    def refund(self, name: str, amount: int) -> None:
        """Give back; never below 0."""
        name, amount = text("name", name), whole("amount", amount)
        with self._open():
            if name in self._names:
                before, until = self._names[name]
                self._names[name] = max(before - amount, 0), until

    def spent(self, name: str) -> int:
        """Return what is spent under a name."""
        name = text("name", name)
        with self._open():
            return self._names.get(name, (0, 0.0))[0]

    def prune(self, before: float) -> int:
        """Forget names that expire before a time."""
        before = number("before", before)
        with self._open():
            kept = {name: row for name, row in self._names.items() if row[1] >= before}
            forgotten = len(self._names) - len(kept)
            self._names = kept
            return forgotten

    def close(self) -> None:
        """Refuse further use; what was stored is gone with the object."""
        self._closed = True

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise LedgerError(_CLOSED)
            yield


class SqliteSpent:
    """Used proofs in a small SQLite file of their own, shared by the processes of one machine.

    A killed process loses nothing. A crash of the operating system may lose the last
    moments, which could then be spent once more: no write waits for the disk. A name
    of 64 characters takes about 200 bytes of the file until it is pruned. Nobody may delete
    the file while it is in use. A process that forks opens its store after the fork.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout_s: float = 5.0) -> None:
        """Open the file; create it with mode 0600 if there is none.

        Args:
            path: the file; its directory exists and is writable.
            busy_timeout_s: how long to wait for another process's write.

        Raises:
            LedgerError: one sentence saying what is wrong with the file and what to do.
        """
        self._path = Path(path).absolute()
        self._lock = threading.Lock()
        self._closed = False
        prepare(self._path, busy_timeout_s=busy_timeout_s, layout=SPENT)
        with explained(self._path, layout=SPENT):
            self._connection = connect(self._path, busy_timeout_s=busy_timeout_s)
            try:
                verify(self._connection, self._path, layout=SPENT)
                self._connection.execute("PRAGMA synchronous = NORMAL")
            except BaseException:
                self._connection.close()
                raise

    def spend(self, name: str, amount: int, *, limit: int, expires: float) -> bool:
        """Use up `amount` of `name` if no more than `limit` is then used."""
        given = spending(name, amount, limit=limit, expires=expires)
        if given["amount"] > given["limit"]:  # the statement would not ask of a new name
            return False
        with self._open() as connection:
            return connection.execute(_SPEND, given).rowcount == 1

    def refund(self, name: str, amount: int) -> None:
        """Give back; never below 0."""
        row = (whole("amount", amount), text("name", name))
        with self._open() as connection:
            connection.execute("UPDATE spent SET amount = max(amount - ?, 0) WHERE name = ?", row)

    def spent(self, name: str) -> int:
        """Return what is spent under a name, by whichever process."""
        row = (text("name", name),)
        with self._open() as connection:
            found = connection.execute("SELECT amount FROM spent WHERE name = ?", row).fetchone()
        return int(found[0]) if found else 0

    def prune(self, before: float) -> int:
        """Forget names that expire before a time."""
        row = (number("before", before), PRUNED_AT_ONCE)
        forgotten = 0
        while True:
            with self._open() as connection:
                some = connection.execute(_PRUNE, row).rowcount
            forgotten += some
            if some < PRUNED_AT_ONCE:
                return forgotten

    def close(self) -> None:
        """Close the file; later use raises LedgerError."""
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection; each statement is a transaction of its own."""
        with self._lock, explained(self._path, layout=SPENT):
            if self._closed:
                raise LedgerError(_CLOSED)
            yield self._connection


def spending(name: str, amount: int, *, limit: int, expires: float) -> dict[str, Any]:
    """Return what is to be spent as plain values; raises LedgerError naming a bad one."""
    return {
        "name": text("name", name),
        "amount": whole("amount", amount),
        "limit": whole("limit", limit),
        "expires": number("expires", expires),
    }


class Fuse:
    """A store that, once it failed, fails at once for a while.

    Requests wait for the store one after the other; if it hangs, each would hold up those
    behind it, also of tenants who need no store.
    """

    def __init__(self, store: SpentStore, *, ticks: Callable[[], float]) -> None:
        """Pass everything on to `store`; `ticks` are seconds that never jump."""
        self._store = store
        self._ticks = ticks
        self._blown_until = -math.inf

    def spend(self, name: str, amount: int, *, limit: int, expires: float) -> bool:
        """As the store does; raises SpentError."""
        return self._try(lambda: self._store.spend(name, amount, limit=limit, expires=expires))

    def refund(self, name: str, amount: int) -> None:
        """As the store does; raises SpentError."""
        self._try(lambda: self._store.refund(name, amount))

    def spent(self, name: str) -> int:
        """As the store does; raises SpentError."""
        return self._try(lambda: self._store.spent(name))

    def prune(self, before: float) -> int:
        """As the store does; raises SpentError."""
        return self._try(lambda: self._store.prune(before))

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _try(self, ask: Callable[[], T]) -> T:
        if self._ticks() < self._blown_until:
            raise SpentError(f"the {SPENT.noun} failed a moment ago; it is asked again shortly")
        try:
            return ask()
        except LedgerError as error:
            self._blown_until = self._ticks() + FUSE_S
            raise SpentError(str(error)) from error


def open_spent_store(url: str) -> SpentStore:
    """Open the store of used proofs that a URL or a plain path names; close it when done.

    Args:
        url: `memory://`, `sqlite:///absolute/path`, the path of a SQLite file, or
            `redis://host:port/db` (`rediss://` with TLS), which several machines can share.

    Raises:
        ConfigurationError: the URL names no store we have, or the Redis client is missing.
        LedgerError: the file cannot be used, or Redis cannot be reached.
    """
    scheme, separator, rest = url.partition("://")
    if not separator and url:
        return SqliteSpent(url)
    if scheme == "memory" and not rest:
        return MemorySpent()
    if scheme == "sqlite" and rest.startswith("/"):
        return SqliteSpent(rest)
    if scheme in {"redis", "rediss"}:
        try:
            from tollkeeper.ledger.spent_redis import RedisSpent
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"{scheme}:// needs a Redis client ({error.name} is missing): "
                "pip install 'tollkeeper[redis]'"
            ) from error
        return RedisSpent(url)
    raise ConfigurationError(
        # Not the whole URL: it may hold a password.
        "a store of used proofs is memory://, sqlite:///absolute/path, a file path or "
        f"redis://host:port, got {scheme + separator!r} and something else"
    )
