"""The file: its versions, and one sentence for each way it can be broken."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tollkeeper.errors import LedgerError
from tollkeeper.ledger.schema import APPLICATION_ID, LEDGER, MIGRATIONS, prepare
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.types import Entry, KeyInfo, Record, Tenant

RECORD = Record(7.0, "acme", "k1", "r1", "m", 3, 17, 2.0, 0.25, 0.5, "recommended/1")

# Frozen: what version 1 looked like when it was released. Never edit it together with the schema.
VERSION_1 = """
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = 1416588396;
    CREATE TABLE pools (pool TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL,
        spent REAL NOT NULL, queries INTEGER NOT NULL, sketch BLOB NOT NULL);
    CREATE TABLE records (id INTEGER PRIMARY KEY, at REAL NOT NULL, tenant TEXT NOT NULL,
        key_id TEXT NOT NULL, request_id TEXT NOT NULL, model TEXT NOT NULL,
        inputs INTEGER NOT NULL, tokens INTEGER NOT NULL, charge REAL NOT NULL,
        coverage REAL NOT NULL, noise_scale REAL NOT NULL, profile TEXT NOT NULL,
        shadow INTEGER NOT NULL);
    CREATE INDEX records_by_tenant ON records (tenant, at);
    CREATE INDEX records_by_time ON records (at);
    CREATE TABLE tenants (name TEXT PRIMARY KEY NOT NULL, pool TEXT NOT NULL,
        suspended INTEGER NOT NULL, budget REAL, created_at REAL NOT NULL, note TEXT NOT NULL);
    CREATE TABLE keys (id TEXT PRIMARY KEY NOT NULL, tenant TEXT NOT NULL REFERENCES tenants (name),
        digest TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, revoked_at REAL);
    CREATE TABLE standing (version INTEGER NOT NULL);
    INSERT INTO standing VALUES (4);
    INSERT INTO pools VALUES ('acme', 1, 2.0, 3, x'6f6e65');
    INSERT INTO records VALUES (1, 7.0, 'acme', 'k1', 'r1', 'm', 3, 17, 2.0, 0.25, 0.5,
        'recommended/1', 0);
    INSERT INTO tenants VALUES ('acme', 'acme', 0, NULL, 5.0, '');
    INSERT INTO keys VALUES ('k1', 'acme', 'd1', 6.0, NULL);
    PRAGMA user_version = 1;
"""

# Frozen too: what the second release added, and content of that time.
TO_VERSION_2 = """
    CREATE TABLE facts (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL);
    INSERT INTO facts VALUES ('master-key', 'abc');
    INSERT INTO tenants VALUES ('bolt', 'acme/1', 1, 9.5, 6.0, 'second');
    PRAGMA user_version = 2;
"""
VERSION_2 = VERSION_1 + TO_VERSION_2

TO_VERSION_3 = """
    ALTER TABLE records ADD COLUMN decision TEXT NOT NULL DEFAULT 'answered';
    ALTER TABLE records ADD COLUMN reason TEXT NOT NULL DEFAULT '';
    ALTER TABLE records ADD COLUMN paid_s REAL NOT NULL DEFAULT 0;
    ALTER TABLE tenants ADD COLUMN plan TEXT NOT NULL DEFAULT '';
    ALTER TABLE tenants ADD COLUMN mode TEXT NOT NULL DEFAULT '';
    ALTER TABLE tenants ADD COLUMN grant TEXT NOT NULL DEFAULT '';
    PRAGMA user_version = 3;
"""
NEWEST = VERSION_2 + TO_VERSION_3
"""The file as the newest migration leaves it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger is to be."""
    return tmp_path / "ledger.db"


def run(path: Path, script: str) -> None:
    """Run SQL on the file behind the ledger's back."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def user_version(path: Path) -> int:
    """Return the schema version in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_a_version_1_file_made_by_hand_opens_with_everything_in_it(path: Path) -> None:
    """A file of the first release is brought to the newest version and keeps all its content."""
    run(path, VERSION_1)
    with SqliteLedger(path) as ledger:
        assert ledger.read("acme") == Entry("acme", 1, b"one", 2.0, 3)
        assert list(ledger.records()) == [RECORD]
        assert list(ledger.tenants()) == [Tenant("acme", "acme", created_at=5.0)]
        assert list(ledger.keys()) == [KeyInfo("k1", "acme", "d1", created_at=6.0)]
        assert ledger.standing_version() == 4
        ledger.check()
    assert user_version(path) == len(MIGRATIONS)


def test_a_version_2_file_takes_plans_and_decisions(path: Path) -> None:
    """What was stored before plans reads back with their defaults, and the new fields are kept."""
    run(path, VERSION_2)
    acme = Tenant("acme", "acme", created_at=5.0)
    bolt = Tenant("bolt", "acme/1", True, 9.5, 6.0, "second")
    later = replace(RECORD, at=8.0, decision="paid", reason="over the knee", paid_s=1.5)
    planned = replace(acme, plan="bulk", mode="shadow", grant="signed")
    with SqliteLedger(path) as ledger:
        assert list(ledger.records()) == [RECORD]
        assert list(ledger.tenants()) == [acme, bolt]
        assert ledger.recall("master-key") == "abc"
        ledger.commit("acme", later, b"two", expected=1)
        ledger.update_tenant(planned)
    with SqliteLedger(path) as ledger:
        assert list(ledger.records()) == [later, RECORD]
        assert list(ledger.tenants()) == [planned, bolt]
        ledger.check()


def test_a_migration_runs_once_and_keeps_the_content(path: Path) -> None:
    """A file is led through each later migration, whether it is opened once or twice."""
    run(path, VERSION_1)
    added = ("ALTER TABLE tenants ADD COLUMN color TEXT NOT NULL DEFAULT 'red'",)
    later = replace(LEDGER, migrations=(*MIGRATIONS, added))
    prepare(path, busy_timeout_s=1.0, layout=later)
    prepare(path, busy_timeout_s=1.0, layout=later)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name, color FROM tenants").fetchall() == [("acme", "red")]
    assert user_version(path) == len(MIGRATIONS) + 1


def test_a_failing_migration_leaves_the_file_as_it_was(path: Path) -> None:
    """If any statement of an upgrade fails, none has happened and the old program still works."""
    run(path, VERSION_1)
    broken = ("DROP TABLE records", "ALTER TABLE no_such_table ADD COLUMN x")
    with pytest.raises(LedgerError, match="no_such_table"):
        prepare(path, busy_timeout_s=1.0, layout=replace(LEDGER, migrations=(*MIGRATIONS, broken)))
    with SqliteLedger(path) as ledger:
        assert list(ledger.records()) == [RECORD]


def test_many_may_create_one_file_at_once(path: Path) -> None:
    """Gateways that start together on a new file all get the same ledger, and no other file."""
    start = threading.Barrier(6)
    ledgers: list[SqliteLedger] = []

    def open_it() -> None:
        start.wait()
        ledgers.append(SqliteLedger(path))

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledgers) == 6
    ledgers[0].add_tenant(Tenant("acme", "acme"))
    assert all(ledger.find_tenant("acme") for ledger in ledgers)
    for ledger in ledgers:
        ledger.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_files_are_readable_by_their_owner_only(path: Path) -> None:
    """The file, its log and its shared memory have mode 0600 whatever the umask."""
    before = os.umask(0)
    try:
        with SqliteLedger(path) as ledger:
            ledger.commit("acme", RECORD, b"s", expected=0)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm"], 0o600)


def filled(path: Path) -> None:
    """Make a ledger of some hundred pages."""
    with SqliteLedger(path) as ledger:
        for i in range(20):
            ledger.commit(f"pool{i}", RECORD, os.urandom(10_240), expected=0)


def truncate(path: Path) -> None:
    """Cut a ledger in half."""
    filled(path)
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    """Write noise over a ledger's schema page, behind the header."""
    filled(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 3900)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "noise": (lambda path: path.write_bytes(b"no database " * 1000), "not a SQLite file"),
    "truncated": (truncate, "damaged"),
    "emptied": (lambda path: path.write_bytes(b""), "is empty"),
    "overwritten": (overwrite, "damaged"),
    "another program's": (lambda path: run(path, "CREATE TABLE t (x)"), "another kind"),
    "another program's, numbered": (
        lambda path: run(path, "PRAGMA application_id = 7; PRAGMA user_version = 1"),
        "another kind",
    ),
    "newer": (
        lambda path: run(path, VERSION_1 + "PRAGMA user_version = 99"),
        r"schema version 99 .* upgrade tollkeeper",
    ),
    "without a table": (lambda path: run(path, NEWEST + "DROP TABLE keys"), "tables of schema"),
    "without a column": (
        lambda path: run(path, NEWEST + "ALTER TABLE pools DROP COLUMN spent"),
        "tables of schema",
    ),
    "a directory": (lambda path: path.mkdir(), "cannot be opened"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_opening_a_broken_file_says_what_to_do_in_one_sentence(path: Path, kind: str) -> None:
    """A file that is no sound ledger of ours is refused, named, and left as it was."""
    make, told = BROKEN[kind]
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LedgerError, match=told) as caught:
        SqliteLedger(path)
    assert str(path) in str(caught.value)
    assert ";" in str(caught.value), "no advice"
    assert "\n" not in str(caught.value)
    assert before == (path.read_bytes() if path.is_file() else None)


def test_a_missing_directory_is_refused(path: Path) -> None:
    """The directory of the file must exist."""
    with pytest.raises(LedgerError, match="cannot be opened"):
        SqliteLedger(path / "deeper.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_refused(path: Path) -> None:
    """A log cannot be made beside the file, so opening fails and names the permission."""
    filled(path)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(LedgerError, match="let this user write the file and its directory"):
            SqliteLedger(path)
    finally:
        path.parent.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_without_write_permission_is_refused(path: Path) -> None:
    """A file that can only be read is refused when it is opened, not at the first commit."""
    filled(path)
    path.chmod(0o400)
    with pytest.raises(LedgerError, match="let this user write the file and its directory"):
        SqliteLedger(path)


def test_check_finds_a_damaged_page_that_opening_does_not_read(path: Path) -> None:
    """Noise in the middle of the file is found by `check`."""
    filled(path)
    with path.open("r+b") as file:
        for page in range(10, 30):
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
    with SqliteLedger(path) as ledger, pytest.raises(LedgerError, match=r"damaged; .* backup"):
        ledger.check()


def test_check_finds_a_changed_schema(path: Path) -> None:
    """A table that vanished while the ledger was open is found by `check`."""
    with SqliteLedger(path) as ledger:
        run(path, "DROP TABLE keys")
        with pytest.raises(LedgerError, match="no such table: keys"):
            ledger.check()


@pytest.mark.parametrize("replaced", [False, True])
def test_check_finds_that_the_file_is_gone(path: Path, replaced: bool) -> None:
    """A file deleted or replaced while in use is found by `check`; commits would be lost."""
    with SqliteLedger(path) as ledger:
        path.rename(path.with_name("old.db"))
        if replaced:
            run(path, VERSION_1)
        with pytest.raises(LedgerError, match="replaced while in use" if replaced else "No such"):
            ledger.check()


def test_check_finds_that_it_cannot_write(path: Path) -> None:
    """A store that can be read but not written is not healthy."""
    with SqliteLedger(path, busy_timeout_s=0.01) as ledger:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="locked by another process"):
                ledger.check()
        ledger.check()


def test_the_application_id_is_a_word() -> None:
    """The number in the file spells a name, and the frozen version-1 file has it."""
    assert APPLICATION_ID.to_bytes(4, "big") == b"Toll"
    assert str(APPLICATION_ID) in VERSION_1
