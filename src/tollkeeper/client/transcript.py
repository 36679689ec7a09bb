"""What was asked of a live target and what it answered, on disk, so that no answer is lost.

One SQLite file belongs to one account at one target. A call is written down before it is
sent, and its answers before they are returned: a run that is killed goes on where it was.
Inputs and API keys are not in it; embeddings are, so the file is readable by its owner only.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tollkeeper.client.allowance import Spend
from tollkeeper.errors import ConfigurationError, LedgerError

APPLICATION_ID: Final = 0x546F4C74
""""ToLt" in ASCII; tells transcripts from other programs' SQLite files, and from ledgers."""

SCHEMA: Final = 2
"""Version of the tables; files of version 1, which paid no tolls, are brought up to it."""

_SCHEMA: Final = f"""
    BEGIN EXCLUSIVE;
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {SCHEMA};
    CREATE TABLE about (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL);
    CREATE TABLE calls (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, inputs INTEGER NOT NULL, digest BLOB NOT NULL,
        retry INTEGER NOT NULL, throttled_s REAL NOT NULL, money REAL NOT NULL,
        status INTEGER, error TEXT, latency_s REAL, seconds REAL, tokens INTEGER, puzzle_s REAL);
    CREATE TABLE answers (
        digest BLOB NOT NULL, turn INTEGER NOT NULL, call INTEGER NOT NULL REFERENCES calls (id),
        embedding BLOB NOT NULL, UNIQUE (digest, turn));
    COMMIT;
"""

_FROM_1: Final = f"""
    BEGIN EXCLUSIVE;
    ALTER TABLE calls ADD COLUMN puzzle_s REAL;
    PRAGMA user_version = {SCHEMA};
    COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One request for embeddings, as it is written down before it is sent.

    Attributes:
        at: seconds since the epoch.
        inputs: how many it asks for.
        digest: of all of them in order.
        retry: 0, or how many times this call had been sent before.
        throttled_s: seconds by which the failure before it put it off.
        money: the most that it can cost.
        puzzle_s: seconds of computing that its proof took; None if it has none, or one that an
            earlier call had.
    """

    at: float
    inputs: int
    digest: bytes
    retry: int
    throttled_s: float
    money: float
    puzzle_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        status: HTTP status; None if none came.
        error: what went wrong, in a word; empty if nothing did.
        latency_s: seconds from sending to the last byte.
        seconds: by which the call lengthened the run; calls at the same time share them.
        tokens: usage.
        money: what it has cost.
    """

    status: int | None
    error: str
    latency_s: float
    seconds: float
    tokens: int
    money: float


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """One answer.

    Attributes:
        digest: of the input.
        turn: how many times the input had been answered before.
        embedding: (d,) float32.
    """

    digest: bytes
    turn: int
    embedding: NDArray[np.float32]


class Transcript:
    """The file of one account at one target; any thread may use it, one process at a time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file; create it with mode 0600 if there is none.

        Raises:
            ConfigurationError: it is no transcript, another run has it, or it cannot be opened.
        """
        self.path = Path(path).absolute()
        self._lock = threading.Lock()
        try:
            # Never open a file that exists past SQLite: closing it would drop SQLite's locks.
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
            self._file = sqlite3.connect(self.path, timeout=0, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"cannot open the transcript {self.path}: {error}; name a file in a folder that "
                "exists and can be written"
            ) from error
        try:
            self._prepare()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def belongs_to(self, name: str, value: str) -> None:
        """Note a fact about the target, or compare it with the one that was noted.

        Raises:
            ConfigurationError: the transcript is of something else.
        """
        known = self.fact(name)
        if known is None:
            with self._changing() as file:
                file.execute("INSERT INTO about VALUES (?, ?)", (name, value))
        elif known != value:
            raise ConfigurationError(
                f"the transcript {self.path} is of {name} {known!r}, not {value!r}; "
                "name another file"
            )

    def fact(self, name: str) -> str | None:
        """Return what was noted, or None."""
        rows = self._select("SELECT value FROM about WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def begin(self, call: Call) -> int:
        """Write down a call that is about to be sent; return its number."""
        with self._changing() as file:
            number = file.execute(
                "INSERT INTO calls (at, inputs, digest, retry, throttled_s, money, puzzle_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                astuple(call),
            ).lastrowid
        assert number is not None, "an inserted row has a number"
        return number

    def end(self, call: int, outcome: Outcome, answers: Sequence[Answered] = ()) -> None:
        """Write down how a call ended and what it brought, both or neither."""
        row = (outcome.status, outcome.error, outcome.latency_s, outcome.seconds)
        with self._changing() as file:
            file.execute(
                "UPDATE calls SET status = ?, error = ?, latency_s = ?, seconds = ?, tokens = ?,"
                " money = ? WHERE id = ?",
                (*row, outcome.tokens, outcome.money, call),
            )
            file.executemany(
                "INSERT INTO answers VALUES (?, ?, ?, ?)",
                [(a.digest, a.turn, call, a.embedding.astype("<f4").tobytes()) for a in answers],
            )

    def find(self, digest: bytes, turn: int) -> NDArray[np.float32] | None:
        """Return the (d,) answer to an input that was answered `turn` times before, or None."""
        rows = self._select(
            "SELECT embedding FROM answers WHERE digest = ? AND turn = ?", (digest, turn)
        )
        return np.frombuffer(rows[0][0], "<f4").astype(np.float32) if rows else None

    def spend(self) -> Spend:
        """Return what all calls have cost; one that never ended counts at the most it can cost."""
        (calls,) = self._select(
            "SELECT count(*), total(tokens), total(money), total(seconds), total(retry > 0),"
            " total(throttled_s), count(puzzle_s), total(puzzle_s) FROM calls",
        )
        (answers,) = self._select("SELECT total(turn = 0), total(turn > 0) FROM answers")
        return Spend(
            calls=calls[0],
            distinct=int(answers[0]),
            repeats=int(answers[1]),
            tokens=int(calls[1]),
            money=calls[2],
            seconds=calls[3],
            retries=int(calls[4]),
            throttled_seconds=calls[5],
            challenges=calls[6],
            puzzle_seconds=calls[7],
        )

    def _prepare(self) -> None:
        try:
            # Two runs on one file would pay twice for the same answers.
            self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
            ((owner,),) = self._file.execute("PRAGMA application_id")
            ((tables,),) = self._file.execute("SELECT count(*) FROM sqlite_master")
            ((version,),) = self._file.execute("PRAGMA user_version")
            is_known = owner == APPLICATION_ID and version in {1, SCHEMA}
            if not is_known and (owner or version or tables):
                raise ConfigurationError(
                    f"{self.path} is not a transcript of this release; name another file"
                )
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            if not tables:
                self._file.executescript(_SCHEMA)
            elif version == 1:
                self._file.executescript(_FROM_1)
            self._file.executescript("BEGIN EXCLUSIVE; COMMIT;")
        except sqlite3.DatabaseError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            why = "another run has it open" if busy else str(error)
            raise ConfigurationError(
                f"cannot use {self.path} as a transcript: {why}; name another file"
            ) from error

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Make what is done inside durable, or undo it."""
        with self._lock, self._explained(), self._file:
            yield self._file

    def _select(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock, self._explained():
            return self._file.execute(statement, values).fetchall()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(
                f"the transcript {self.path} failed: {error}; check the disk and run again, "
                "what is in it is not asked again"
            ) from error
