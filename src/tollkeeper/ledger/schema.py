"""Our SQLite files: their tables, their versions, and what their failures mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import Final

from tollkeeper.errors import LedgerError

APPLICATION_ID: Final = 0x546F6C6C
""""Toll" in ASCII; tells our files from any other program's SQLite files."""

MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        # The sketch stands last: reading a version does not touch its overflow pages.
        """CREATE TABLE pools (
            pool TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, spent REAL NOT NULL,
            queries INTEGER NOT NULL, sketch BLOB NOT NULL)""",
        """CREATE TABLE records (
            id INTEGER PRIMARY KEY, at REAL NOT NULL, tenant TEXT NOT NULL, key_id TEXT NOT NULL,
            request_id TEXT NOT NULL, model TEXT NOT NULL, inputs INTEGER NOT NULL,
            tokens INTEGER NOT NULL, charge REAL NOT NULL, coverage REAL NOT NULL,
            noise_scale REAL NOT NULL, profile TEXT NOT NULL, shadow INTEGER NOT NULL)""",
        "CREATE INDEX records_by_tenant ON records (tenant, at)",
        "CREATE INDEX records_by_time ON records (at)",
        """CREATE TABLE tenants (
            name TEXT PRIMARY KEY NOT NULL, pool TEXT NOT NULL, suspended INTEGER NOT NULL,
            budget REAL, created_at REAL NOT NULL, note TEXT NOT NULL)""",
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY NOT NULL, tenant TEXT NOT NULL REFERENCES tenants (name),
            digest TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, revoked_at REAL)""",
        "CREATE TABLE standing (version INTEGER NOT NULL)",
        "INSERT INTO standing VALUES (0)",
    ),
    ("CREATE TABLE facts (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)",),
    (
        "ALTER TABLE records ADD COLUMN decision TEXT NOT NULL DEFAULT 'answered'",
        "ALTER TABLE records ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE records ADD COLUMN paid_s REAL NOT NULL DEFAULT 0",
        "ALTER TABLE tenants ADD COLUMN plan TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE tenants ADD COLUMN mode TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE tenants ADD COLUMN grant TEXT NOT NULL DEFAULT ''",
    ),
)
"""Entry i leads from version i to i + 1. Append only: files of every version are out there."""

SHAPE: Final = (
    "SELECT pool, version, spent, queries, sketch FROM pools LIMIT 0",
    """SELECT id, at, tenant, key_id, request_id, model, inputs, tokens, charge, coverage,
        noise_scale, profile, shadow, decision, reason, paid_s FROM records LIMIT 0""",
    """SELECT name, pool, suspended, budget, created_at, note, plan, mode, grant
        FROM tenants LIMIT 0""",
    "SELECT id, tenant, digest, created_at, revoked_at FROM keys LIMIT 0",
    "SELECT version FROM standing LIMIT 0",
    "SELECT name, value FROM facts LIMIT 0",
)
"""Each fails on a file that lacks a table or column of the newest version."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What one kind of our files holds.

    Attributes:
        noun: what errors call such a file.
        remedy: what to do when its content is lost.
        application_id: tells it from every other SQLite file.
        migrations: entry i leads from version i to i + 1; append only.
        shape: statements that fail on a file without the newest tables and columns.
    """

    noun: str
    remedy: str
    application_id: int
    migrations: Sequence[Sequence[str]]
    shape: Sequence[str]


LEDGER: Final = Layout("ledger", "restore a backup", APPLICATION_ID, MIGRATIONS, SHAPE)

_ADVICE: Final = {
    sqlite3.SQLITE_NOTADB: "is not a SQLite file; name another path or {remedy}",
    sqlite3.SQLITE_CORRUPT: "is damaged; stop its gateways and {remedy}",
    sqlite3.SQLITE_READONLY: "cannot be written; let this user write the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; let this user write the file and its directory",
    sqlite3.SQLITE_FULL: "cannot grow; free disk space or prune what is old",
    sqlite3.SQLITE_BUSY: "is locked by another process; end that process or wait for it",
    sqlite3.SQLITE_IOERR: "cannot be read or written; check the disk and its free space",
}


def explain(path: Path, error: Exception, *, layout: Layout = LEDGER) -> LedgerError:
    """Return one sentence that says what is wrong with the file and what to do."""
    if isinstance(error, LedgerError):
        return error
    # The low byte is the primary code; the rest is detail that the driver's text repeats.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, OSError):
        code = sqlite3.SQLITE_CANTOPEN
    advice = _ADVICE.get(code, "failed; {remedy} if it fails again").format(remedy=layout.remedy)
    explained = LedgerError(f"the {layout.noun} {path} {advice} ({error})")
    explained.__cause__ = error
    return explained


@contextmanager
def explained(path: Path, *, layout: Layout = LEDGER) -> Iterator[None]:
    """Turn the driver's and the system's errors into LedgerError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explain(path, error, layout=layout) from error


def connect(path: Path, *, busy_timeout_s: float) -> sqlite3.Connection:
    """Open an existing file; the caller guards the connection against concurrent use."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,  # transactions begin and end where we say so
        check_same_thread=False,
    )
    connection.execute("PRAGMA synchronous = FULL")  # one fsync of the log per transaction
    connection.execute("PRAGMA foreign_keys = ON")
    # 32 MB of log between checkpoints: each rewrites every page that changed since the last.
    connection.execute("PRAGMA wal_autocheckpoint = 8000")
    return connection


def prepare(path: Path, *, busy_timeout_s: float, layout: Layout = LEDGER) -> None:
    """Create the file, readable by its owner only, or upgrade it.

    Raises:
        LedgerError: it is of another kind, damaged, out of reach, or newer than this program.
    """
    with explained(path, layout=layout):
        if not path.exists():
            _create(path, busy_timeout_s=busy_timeout_s, layout=layout)
        elif not os.access(path, os.R_OK | os.W_OK):  # SQLite would open it, but only to read
            raise PermissionError("no permission to write")
        elif path.stat().st_size == 0:  # ours are never empty, so its content was lost
            raise LedgerError(
                f"the {layout.noun} {path} is empty; restore a backup, or delete it to start anew"
            )
        else:
            _upgrade(path, busy_timeout_s=busy_timeout_s, layout=layout)


def _create(path: Path, *, busy_timeout_s: float, layout: Layout) -> None:
    """Make a complete file under another name and link it into place.

    So nobody ever meets a half-made file, and of several who create it one wins. The
    file in place is never opened past SQLite: closing such a handle would drop the
    locks that SQLite holds in this process.
    """
    handle, name = mkstemp(prefix=path.name, suffix=".new", dir=path.parent)  # mode 0600
    os.close(handle)
    made = Path(name)
    try:
        _upgrade(made, busy_timeout_s=busy_timeout_s, layout=layout)
        with suppress(FileExistsError):  # another one won
            path.hardlink_to(made)
    finally:
        made.unlink()


def _upgrade(path: Path, *, busy_timeout_s: float, layout: Layout) -> None:
    newest = len(layout.migrations)
    with closing(connect(path, busy_timeout_s=busy_timeout_s)) as connection:
        if _stored_version(connection, path, layout) < newest:
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have upgraded while this one waited for the lock.
            version = _stored_version(connection, path, layout)
            for statements in layout.migrations[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {newest}")
            connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def verify(connection: sqlite3.Connection, path: Path, *, layout: Layout = LEDGER) -> None:
    """Raise LedgerError unless the file has the newest schema."""
    version = _stored_version(connection, path, layout)
    try:
        for statement in layout.shape:
            connection.execute(statement)
    except sqlite3.OperationalError as error:
        raise LedgerError(
            f"the {layout.noun} {path} does not have the tables of schema version {version}"
            f" ({error}); {layout.remedy}"
        ) from error


def _stored_version(connection: sqlite3.Connection, path: Path, layout: Layout) -> int:
    """Return the file's schema version; 0 for an empty file."""
    newest = len(layout.migrations)
    ((version,),) = connection.execute("PRAGMA user_version")
    ((owner,),) = connection.execute("PRAGMA application_id")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if owner != layout.application_id and (owner or version or tables):
        raise LedgerError(
            f"{path} is a database of another kind, not a {layout.noun}; name another path"
        )
    if version > newest:
        raise LedgerError(
            f"the {layout.noun} {path} has schema version {version} and this program knows versions"
            f" up to {newest}; upgrade tollkeeper"
        )
    return int(version)
