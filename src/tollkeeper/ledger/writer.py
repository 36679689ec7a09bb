"""One writer at a time, and all waiting commits share one fsync."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeVar

from tollkeeper.errors import ConflictError, LedgerError
from tollkeeper.ledger.commits import Commit, settle
from tollkeeper.ledger.schema import connect, explain
from tollkeeper.types import Entry

T = TypeVar("T")

MOST_WAITING: Final = 4096
"""Commits that may wait; with 10 KB sketches they hold about 40 MB. One more is refused."""

_SELECT_HEAD = "SELECT version, spent, queries FROM pools WHERE pool = ?"
_STORE_HEAD = """
    INSERT INTO pools (pool, version, spent, queries, sketch) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (pool) DO UPDATE SET version = excluded.version, spent = excluded.spent,
        queries = excluded.queries, sketch = excluded.sketch"""
STORE_RECORD: Final = """
    INSERT INTO records (at, tenant, key_id, request_id, model, inputs, tokens, charge,
        coverage, noise_scale, profile, shadow, decision, reason, paid_s)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """Any other write: a function of the connection, in a transaction of its own."""

    run: Callable[[sqlite3.Connection], Any]
    future: Future[Any] = field(default_factory=Future)


class GroupWriter:
    """Applies writes in the order they come, all waiting commits in one transaction.

    There is no thread of its own: whoever puts a write while nobody writes becomes the
    writer, for its own job and for all that come while it syncs to disk. So groups grow
    with the load, and a lone commit is never handed from thread to thread.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        """Open a connection to a prepared file."""
        self._path = path
        self._connection = connect(path, busy_timeout_s=busy_timeout_s)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: list[Commit | _Change] = []
        self._closed = False

    def put(self, *jobs: Commit | _Change) -> None:
        """Queue writes; their futures tell what became of them, even if there is no room."""
        with self._lock:
            if self._closed:
                refusal = "the ledger is closed; open it again"
            elif len(self._waiting) + len(jobs) > MOST_WAITING:
                refusal = f"{MOST_WAITING} writes wait for the disk already; send fewer requests"
            else:
                refusal = ""
                self._waiting.extend(jobs)
        if refusal:
            for job in jobs:
                job.future.set_exception(LedgerError(refusal))
        else:
            self._write()

    def call(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function in a transaction of its own and return its result."""
        change = _Change(run)
        self.put(change)
        result: T = change.future.result()
        return result

    def close(self) -> None:
        """Write what waits, then close the connection; idempotent."""
        with self._lock:
            self._closed = True  # from here on nobody adds a job
        with self._writing:
            while self._waiting:
                self._write_group()
            self._connection.close()

    def _write(self) -> None:
        """Write what waits, unless another thread is writing: then that one will.

        The writer looks again after it let go of `_writing`, so a job put at that moment
        is seen by it or by whoever put it.
        """
        while self._waiting and self._writing.acquire(blocking=False):
            try:
                self._write_group()
            finally:
                self._writing.release()

    def _write_group(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, []
        for _, jobs in groupby(taken, key=type):
            # From here on a caller cannot cancel: the write is under way.
            begun = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            commits = [job for job in begun if isinstance(job, Commit)]
            if commits:
                self._settle(commits)
            for change in begun:
                if isinstance(change, _Change):
                    self._change(change)

    def _settle(self, commits: Sequence[Commit]) -> None:
        """Store a group and resolve its futures, conflicts included, after the COMMIT.

        A conflict with a neighbor is only true once the neighbor is on disk.
        """
        try:
            with self._transaction():
                outcomes = self._store(commits)
        except Exception as error:  # noqa: BLE001  callers of the whole group wait for an outcome
            for commit in commits:
                commit.future.set_exception(explain(self._path, error))
            return
        for commit, outcome in zip(commits, outcomes, strict=True):
            if isinstance(outcome, ConflictError):
                commit.future.set_exception(outcome)
            else:
                commit.future.set_result(outcome)

    def _store(self, commits: Sequence[Commit]) -> list[Entry | ConflictError]:
        """Write every record that lands, and of each pool the last sketch only.

        Nobody can see the sketches between, because the transaction is atomic.
        """
        heads = {part.pool: Entry(part.pool) for commit in commits for part in commit.parts}
        for pool in heads:
            for version, spent, queries in self._connection.execute(_SELECT_HEAD, (pool,)):
                heads[pool] = Entry(pool, version=version, spent=spent, queries=queries)
        outcomes = settle(heads, commits)
        landed = [
            commit
            for commit, outcome in zip(commits, outcomes, strict=True)
            if isinstance(outcome, Entry)
        ]
        changed = {part.pool: None for commit in landed for part in commit.parts}
        news = [heads[pool] for pool in changed]
        self._connection.executemany(
            _STORE_HEAD, [(e.pool, e.version, e.spent, e.queries, e.sketch) for e in news]
        )
        self._connection.executemany(
            STORE_RECORD, [row for commit in landed for row in commit.rows]
        )
        return outcomes

    def _change(self, change: _Change) -> None:
        try:
            with self._transaction():
                result = change.run(self._connection)
        except Exception as error:  # noqa: BLE001  callers of the whole group wait for an outcome
            change.future.set_exception(explain(self._path, error))
        else:
            change.future.set_result(result)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Hold the write lock of the file, against other processes too, until the COMMIT."""
        if self._connection.in_transaction:  # an earlier rollback failed as well
            self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):  # the first error is the one to tell
                    self._connection.execute("ROLLBACK")
            raise
