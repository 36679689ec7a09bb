"""Groups of commits: one transaction, one fsync, one fate."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tollkeeper.errors import ConflictError, LedgerError
from tollkeeper.ledger import writer
from tollkeeper.ledger.base import Submission
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.types import Entry, Record

RECORD = Record(7.0, "acme", "k1", "r1", "m", 3, 17, 2.0, 0.25, 0.5, "recommended/1")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    """An open, empty ledger."""
    with SqliteLedger(tmp_path / "ledger.db") as opened:
        yield opened


@contextmanager
def gathering(ledger: SqliteLedger) -> Iterator[None]:
    """Keep the writer busy, so that everything submitted inside becomes one group."""
    entered, leave = threading.Event(), threading.Event()

    def occupy(_: sqlite3.Connection) -> None:
        entered.set()
        assert leave.wait(30)

    busy = threading.Thread(target=ledger._writer.call, args=(occupy,))
    busy.start()
    assert entered.wait(30)
    try:
        yield
    finally:
        leave.set()
        busy.join()


def submit(ledger: SqliteLedger, pool: str, expected: int, sketch: bytes = b"s") -> Future[Entry]:
    """Submit a commit of one record."""
    record = replace(RECORD, request_id=f"{pool}:{expected + 1}")
    return ledger.submit([Submission(pool, [record], sketch, expected)])[0]


def test_waiting_commits_share_one_transaction_and_one_sketch(ledger: SqliteLedger) -> None:
    """Twenty commits of one pool are one COMMIT with twenty records and one sketch."""
    statements: list[str] = []
    with gathering(ledger):
        futures = [submit(ledger, "acme", i, bytes([i])) for i in range(20)]
        ledger._writer._connection.set_trace_callback(statements.append)
    entries = [future.result() for future in futures]
    begun = statements[statements.index("BEGIN IMMEDIATE") :]
    assert begun.count("COMMIT") == 1
    assert sum("INSERT INTO pools" in statement for statement in begun) == 1
    assert sum("INSERT INTO records" in statement for statement in begun) == 20
    assert [entry.version for entry in entries] == list(range(1, 21))
    assert ledger.read("acme") == entries[-1]


def test_every_transaction_is_synced(ledger: SqliteLedger) -> None:
    """The writing connection syncs its log at each COMMIT: write-ahead log, synchronous FULL."""
    writing = ledger._writer._connection
    assert writing.execute("PRAGMA synchronous").fetchone() == (2,)
    assert writing.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writing.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_a_future_is_done_only_when_others_can_read_the_commit(
    ledger: SqliteLedger, tmp_path: Path
) -> None:
    """When a future ends, its commit and its conflict's cause are in the file."""
    seen: list[int] = []
    with SqliteLedger(tmp_path / "ledger.db") as other:
        with gathering(ledger):
            good, stale = submit(ledger, "acme", 0), submit(ledger, "acme", 0)
            for future in (good, stale):
                future.add_done_callback(lambda _: seen.append(other.read("acme").version))
        assert good.result().version == 1
        assert isinstance(stale.exception(), ConflictError)
        ledger.close()  # callbacks run after waiters wake; the writer's end is the end of all
    assert seen == [1, 1]


def test_a_full_disk_fails_the_whole_group_and_stores_nothing(ledger: SqliteLedger) -> None:
    """If the transaction cannot be stored, each of its futures says so and no trace is left."""
    stored = submit(ledger, "acme", 0).result()
    ledger._writer.call(lambda writing: writing.execute("PRAGMA max_page_count = 1").fetchall())
    with gathering(ledger):
        group = [
            submit(ledger, "acme", 1),
            submit(ledger, "big", 0, bytes(1_000_000)),
            submit(ledger, "acme", 2),
            submit(ledger, "acme", 0),
        ]
    for future in group:
        error = future.exception()
        assert isinstance(error, LedgerError)
        assert "free disk space" in str(error)
        assert not isinstance(error, ConflictError), "nothing was stored to conflict with"
    assert ledger.read("acme") == stored
    assert ledger.read("big") == Entry("big")
    assert len(list(ledger.records())) == 1

    ledger._writer.call(lambda writing: writing.execute("PRAGMA max_page_count = 99999").fetchall())
    assert submit(ledger, "acme", 1).result().version == 2


def test_a_commit_under_another_process_lock_fails_and_can_be_repeated(tmp_path: Path) -> None:
    """A lock held longer than the timeout is told in one sentence; then all works again."""
    path = tmp_path / "ledger.db"
    with SqliteLedger(path, busy_timeout_s=0.01) as ledger:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="locked by another process"):
                submit(ledger, "acme", 0).result()
            assert ledger.read("acme") == Entry("acme"), "reads do not wait for writers"
        assert submit(ledger, "acme", 0).result().version == 1


def test_an_unforeseen_failure_does_not_end_the_writer(
    ledger: SqliteLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong becomes LedgerError, frees the file and lets the next group through."""

    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "settle", fail)
        with pytest.raises(LedgerError, match="unforeseen"):
            submit(ledger, "acme", 0).result()
    with pytest.raises(LedgerError, match="unforeseen"):
        ledger._writer.call(fail)
    with closing(sqlite3.connect(tmp_path / "ledger.db", timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
    assert submit(ledger, "acme", 0).result().version == 1


def test_a_commit_cancelled_in_time_stores_nothing(ledger: SqliteLedger) -> None:
    """A waiting future can be cancelled, without harm to its neighbors; a done one cannot."""
    with gathering(ledger):
        before, dropped, after = (submit(ledger, pool, 0) for pool in "abc")
        assert dropped.cancel()
    assert before.result().version == after.result().version == 1
    assert ledger.read("b") == Entry("b")
    assert not before.cancel()


def test_the_queue_is_bounded_and_never_blocks(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One commit more than may wait fails at once; those in the queue are stored."""
    monkeypatch.setattr(writer, "MOST_WAITING", 3)
    with gathering(ledger):
        waiting = [submit(ledger, "acme", i) for i in range(3)]
        one_more = submit(ledger, "acme", 3)
        assert "wait for the disk" in str(one_more.exception(timeout=0))
    assert [future.result().version for future in waiting] == [1, 2, 3]
    assert submit(ledger, "acme", 3).result().version == 4


def test_close_stores_what_was_submitted(ledger: SqliteLedger, tmp_path: Path) -> None:
    """Closing waits until everything queued is stored."""
    with gathering(ledger):
        futures = [submit(ledger, "acme", i) for i in range(5)]
        closing_thread = threading.Thread(target=ledger.close)
        closing_thread.start()
    closing_thread.join()
    assert all(future.done() for future in futures)
    with SqliteLedger(tmp_path / "ledger.db") as again:
        assert again.read("acme").version == 5


def test_other_writes_keep_their_place_between_commits(ledger: SqliteLedger) -> None:
    """A change submitted between two commits happens between them, in its own transaction."""
    order: list[str] = []
    with gathering(ledger):
        submit(ledger, "a", 0).add_done_callback(lambda _: order.append("a"))
        ledger._writer.put(writer._Change(lambda _: order.append("change")))
        submit(ledger, "b", 0).add_done_callback(lambda _: order.append("b"))
    ledger.close()
    assert order == ["a", "change", "b"]


def test_pruning_in_portions_counts_all(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More records than fit one transaction are deleted in several."""
    monkeypatch.setattr("tollkeeper.ledger.sqlite.PRUNED_AT_ONCE", 7)
    records = [replace(RECORD, at=float(i)) for i in range(50)]
    ledger.submit([Submission("acme", records, b"s", 0)])[0].result()
    assert ledger.prune(40.0) == 40
    assert len(list(ledger.records())) == 10
