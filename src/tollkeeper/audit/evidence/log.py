"""An append-only log: each line is chained to the one before and signed, and so is its head.

A line is canonical JSON with `seq`, `at`, `kind`, `body`, `prev` (the hash of the line before),
`hash` (of all these) and `signature`. Beside the file lies `<file>.head`: how many lines there
are and the hash of the last, signed. So a line that was changed, dropped, moved, added or cut
off is found by everybody who has both files. Whoever holds the key can still write another
history from the start; against that a head has to be stamped or published (`Head`, `stamp`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from tollkeeper.audit.evidence.canonical import digest, from_bytes, to_bytes, unhex, utc
from tollkeeper.audit.evidence.keys import Signer, check
from tollkeeper.errors import AuditRefused, EvidenceError

START = "0" * 64
"""What the first line is chained to."""

_LINE, _HEAD = "log line", "log head"
_CHAINED = ("at", "body", "kind", "prev", "seq")
_FIELDS = {*_CHAINED, "hash", "signature"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    Attributes:
        seq: its number, from 0.
        at: when it was written, ISO 8601 in UTC, by the writer's own clock.
        kind: what it tells of.
        body: JSON values.
        prev: hash of the line before.
        hash: of this one.
    """

    seq: int
    at: str
    kind: str
    body: Mapping[str, Any]
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """How far a log went at some time.

    Attributes:
        count: its lines.
        hash: of the last one; `START` for none.
    """

    count: int
    hash: str

    def check(self, entries: tuple[Entry, ...]) -> None:
        """Check that a log of today continues the log of this head.

        Raises:
            EvidenceError: it is shorter or another history.
        """
        found = entries[: self.count]
        if len(found) < self.count or (found[-1].hash if found else START) != self.hash:
            raise EvidenceError(
                f"the log does not continue the one with {self.count} lines and the hash "
                f"{self.hash} that was signed or stamped before: lines were cut off or rewritten"
            )


def head_path(path: Path) -> Path:
    """Return where the signed head of a log lies."""
    return path.with_name(f"{path.name}.head")


def read(path: Path, *, key: str | None = None, since: Head | None = None) -> tuple[Entry, ...]:
    """Check a whole log and return its lines.

    Args:
        path: of the log; its head lies beside it.
        key: public key that must have signed it. None takes the head's own word, which shows
            that nothing was changed but not who wrote it.
        since: a head seen before, which the log must continue.

    Raises:
        EvidenceError: a line or the head was changed, dropped, moved, added or cut off.
    """
    head, public = _read_head(path, key)
    entries = tuple(_entries(_lines(_bytes(path)), public))
    if len(entries) != head.count:
        raise EvidenceError(
            f"{path} has {len(entries)} lines, its signed head says {head.count}: lines were cut "
            "off or added. If a writer was interrupted, its owner has to open it again"
        )
    head.check(entries)
    if since is not None:
        since.check(entries)
    return entries


class SignedLog:
    """A log open for writing, by one process at a time.

    Attributes:
        path: of the log.
        entries: all its lines so far.
    """

    def __init__(self, path: Path, signer: Signer, *, clock: Callable[[], float]) -> None:
        """Start a log or continue one.

        Lines that were written but not yet under the head when a writer was interrupted are kept
        if they are signed and chained; a line of which only a part was written is cut off. Either
        is told in a line of kind `resumed`.

        Args:
            path: of the log. Nothing else may write to it.
            signer: must be the one that started it.
            clock: seconds since the epoch.

        Raises:
            AuditRefused: it cannot be written, or another process has it open.
            EvidenceError: it was changed, or another key started it.
        """
        self.path = path
        self._signer = signer
        self._clock = clock
        self.entries: list[Entry] = []
        try:
            self._file: BinaryIO = path.open("ab")
        except OSError as error:
            raise AuditRefused(f"cannot write the log {path}: {error}") from error
        try:
            _lock(self._file, path)
            self._continue()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    @property
    def head(self) -> Head:
        """How far the log goes now."""
        return Head(len(self.entries), self.entries[-1].hash if self.entries else START)

    def append(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Write one line and the new head to the disk, in this order.

        Args:
            kind: what the line tells of.
            body: JSON values, finite.

        Raises:
            AuditRefused: the body is not JSON, or the disk refuses.
        """
        seq, prev = self.head.count, self.head.hash
        at = utc(self._clock())
        told = {"at": at, "body": dict(body), "kind": kind, "prev": prev, "seq": seq}
        made = digest(to_bytes(told))
        signed = self._signer.sign(bytes.fromhex(made), purpose=_LINE)
        line = to_bytes({**told, "hash": made, "signature": signed}) + b"\n"
        entry = _entry(line[:-1], seq, prev, self._signer.public)
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self.entries.append(entry)
            self._write_head()
        except (OSError, ValueError) as error:
            self.close()  # Part of the line may be there; whoever opens the log again cuts it off.
            raise AuditRefused(f"cannot write the log {self.path}: {error}") from error
        return entry

    def close(self) -> None:
        """Close the file; another process may then write."""
        self._file.close()

    def _continue(self) -> None:
        data = _bytes(self.path)
        if not data and not head_path(self.path).exists():
            try:  # Before any line, so that a missing head is never an accident.
                self._write_head()
            except OSError as error:
                raise AuditRefused(f"cannot write beside {self.path}: {error}") from error
            return
        head, public = _read_head(self.path, None)
        if public != self._signer.public:
            raise EvidenceError(
                f"{self.path} was started by the key {public}, not by {self._signer.public}"
            )
        whole = data[: data.rfind(b"\n") + 1]
        self.entries = list(_entries(_lines(whole), public))
        head.check(tuple(self.entries))
        if len(data) == len(whole) and len(self.entries) == head.count:
            return
        self._file.truncate(len(whole))
        self.append(
            "resumed",
            {"lines": len(self.entries) - head.count, "bytes_cut": len(data) - len(whole)},
        )

    def _write_head(self) -> None:
        """Replace the head at once, so that a reader sees the old or the new one.

        Raises:
            OSError: the disk refuses.
        """
        told = {"count": self.head.count, "hash": self.head.hash, "key": self._signer.public}
        signed = self._signer.sign(to_bytes(told), purpose=_HEAD)
        path = head_path(self.path)
        draft = path.with_name(f"{path.name}.new")
        with draft.open("wb") as file:
            file.write(to_bytes({**told, "signature": signed}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


def _read_head(path: Path, key: str | None) -> tuple[Head, str]:
    """Return the head and the key that signed it."""
    what = f"the head of {path}"
    lines = _lines(_bytes(head_path(path)))
    if len(lines) != 1:
        raise EvidenceError(f"{what} was changed: expected one line, got {len(lines)}")
    told = from_bytes(lines[0], what=what)
    if not isinstance(told, dict) or set(told) != {"count", "hash", "key", "signature"}:
        raise EvidenceError(f"{what} was changed: expected count, hash, key and signature")
    public = told["key"]
    if key is not None and public != key:
        raise EvidenceError(f"{path} was signed by the key {public}, expected {key}")
    signature = told.pop("signature")
    check(signature, to_bytes(told), public=public, purpose=_HEAD)
    return Head(told["count"], told["hash"]), public


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"cannot read {path}: {error}") from error


def _lines(data: bytes) -> list[bytes]:
    """Split complete lines; bytes after the last line end are none."""
    if data and not data.endswith(b"\n"):
        raise EvidenceError("the last line of a log or its head is cut off")
    return data.split(b"\n")[:-1]


def _entries(lines: list[bytes], public: str) -> Iterator[Entry]:
    prev = START
    for seq, line in enumerate(lines):
        entry = _entry(line, seq, prev, public)
        prev = entry.hash
        yield entry


def _entry(line: bytes, seq: int, prev: str, public: str) -> Entry:
    """Return one line after checking its place, hash and signature."""
    what = f"line {seq} of the log"
    told = from_bytes(line, what=what)
    if not isinstance(told, dict) or set(told) != _FIELDS:
        raise EvidenceError(f"{what} was changed: expected {', '.join(sorted(_FIELDS))}")
    if told["seq"] != seq or told["prev"] != prev:
        raise EvidenceError(f"{what} does not follow the line before: one was dropped or moved")
    if told["hash"] != digest(to_bytes({name: told[name] for name in _CHAINED})):
        raise EvidenceError(f"{what} was changed: its hash does not match")
    made = unhex(told["hash"], what=what)
    check(told["signature"], made, public=public, purpose=_LINE)
    return Entry(seq, told["at"], told["kind"], told["body"], prev, told["hash"])


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep other writers out for as long as the file is open, where the system can."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise AuditRefused(f"another process is writing to {path}") from error
