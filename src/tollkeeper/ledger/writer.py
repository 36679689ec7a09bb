"""The one thread that writes: it lets all waiting commits share one fsync."""

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
_STORE_RECORD = """
    INSERT INTO records (at, tenant, key_id, request_id, model, inputs, tokens, charge,
        coverage, noise_scale, profile, shadow) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """Any other write: a function of the connection, in a transaction of its own."""

    run: Callable[[sqlite3.Connection], Any]
    future: Future[Any] = field(default_factory=Future)


class GroupWriter:
    """Applies writes in the order they come, all waiting commits in one transaction.

    While one group is synced to disk the next one gathers, so groups grow with
    the load and a lone commit waits for nobody.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        """Open a connection to a prepared file and start the thread."""
        self._path = path
        self._connection = connect(path, busy_timeout_s=busy_timeout_s)
        self._ready = threading.Condition()
        self._waiting: list[Commit | _Change] = []
        self._closed = False
        # A daemon: a forgotten ledger must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def put(self, commit: Commit) -> None:
        """Queue a commit; its future tells what became of it, even if there is no room."""
        self._put(commit)

    def call(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function in a transaction of its own and return its result."""
        change = _Change(run)
        self._put(change)
        result: T = change.future.result()
        return result

    def close(self) -> None:
        """Write what waits, then end the thread and close the connection; idempotent."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        self._thread.join()
        self._connection.close()

    def _put(self, job: Commit | _Change) -> None:
        with self._ready:
            if self._closed:
                refusal = "the ledger is closed; open it again"
            elif len(self._waiting) >= MOST_WAITING:
                refusal = f"{MOST_WAITING} writes wait for the disk already; send fewer requests"
            else:
                self._waiting.append(job)
                self._ready.notify()
                return
        job.future.set_exception(LedgerError(refusal))

    def _take(self) -> list[Commit | _Change]:
        """Wait for jobs and take them all; an empty list means the end."""
        with self._ready:
            while not self._waiting and not self._closed:
                self._ready.wait()
            taken, self._waiting = self._waiting, []
            return taken

    def _run(self) -> None:
        while taken := self._take():
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
        except Exception as error:  # noqa: BLE001  a dead writer would leave all callers waiting
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
        heads = {commit.pool: Entry(commit.pool) for commit in commits}
        for pool in heads:
            for version, spent, queries in self._connection.execute(_SELECT_HEAD, (pool,)):
                heads[pool] = Entry(pool, version=version, spent=spent, queries=queries)
        outcomes = settle(heads, commits)
        landed = [
            commit
            for commit, outcome in zip(commits, outcomes, strict=True)
            if isinstance(outcome, Entry)
        ]
        news = [heads[pool] for pool in {commit.pool: None for commit in landed}]
        self._connection.executemany(
            _STORE_HEAD, [(e.pool, e.version, e.spent, e.queries, e.sketch) for e in news]
        )
        self._connection.executemany(
            _STORE_RECORD, [row for commit in landed for row in commit.rows]
        )
        return outcomes

    def _change(self, change: _Change) -> None:
        try:
            with self._transaction():
                result = change.run(self._connection)
        except Exception as error:  # noqa: BLE001  a dead writer would leave all callers waiting
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
