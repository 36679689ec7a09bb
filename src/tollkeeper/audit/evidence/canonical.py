"""One byte string for each value, so that two parties who hash the same thing agree."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tollkeeper.errors import AuditRefused, EvidenceError

HASH_BYTES = 32
_HEX = re.compile(r"[0-9a-f]*\Z")
_NUMBERS = "biuf"
_CHUNK = 1 << 20


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def to_bytes(value: Any) -> bytes:
    """Return a JSON value as its only accepted bytes: ASCII, sorted keys, no blanks.

    Raises:
        AuditRefused: it is no JSON value, or holds NaN or infinity.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise AuditRefused(f"expected values that JSON knows, all finite: {error}") from error
    return text.encode("ascii")


def from_bytes(data: bytes, *, what: str) -> Any:
    """Return the JSON value of bytes that `to_bytes` made, and of no others.

    A blank, another order of keys or another spelling of a number is refused: otherwise a byte
    could be changed without anybody noticing.

    Args:
        data: the bytes.
        what: names them in an error.

    Raises:
        EvidenceError: they are not JSON or not canonical.
    """
    try:
        value = json.loads(data)
        same = to_bytes(value) == data
    except (ValueError, RecursionError, AuditRefused) as error:
        raise EvidenceError(f"{what} is not JSON: {error}") from error
    if not same:
        raise EvidenceError(f"{what} was changed: it is not written as Tollkeeper writes it")
    return value


def unhex(text: object, *, what: str, size: int = HASH_BYTES) -> bytes:
    """Return the bytes of lower-case hex; the one spelling, so that no character can be changed.

    Raises:
        EvidenceError: it is not hex of `size` bytes.
    """
    if not isinstance(text, str) or len(text) != 2 * size or _HEX.match(text) is None:
        raise EvidenceError(f"{what}: expected {2 * size} lower-case hex digits, got {text!r:.80}")
    return bytes.fromhex(text)


def item_bytes(item: Any) -> bytes:
    """Return the canonical bytes of one input: kind and shape first, then content.

    Args:
        item: a string; a list of token numbers; bytes; or an array of numbers, for example an
            (h, w, 3) uint8 picture. The same numbers of another type are another item.

    Raises:
        AuditRefused: another type, or an array that is empty or not finite.
    """
    if isinstance(item, str):
        try:
            return b"text\n" + item.encode()
        except UnicodeEncodeError as error:
            raise AuditRefused(f"a text item is not valid Unicode: {error}") from error
    if isinstance(item, bytes):
        return b"bytes\n" + item
    if isinstance(item, Sequence) and all(type(each) is int for each in item):
        return b"tokens\n" + to_bytes(list(item))
    try:
        array = np.asarray(item)
    except ValueError as error:
        raise AuditRefused(f"an item is no array of numbers: {error}") from error
    if array.dtype.kind not in _NUMBERS or not array.size or not np.isfinite(array).all():
        raise AuditRefused(
            "an item must be a text, a list of token numbers, bytes or a non-empty array of finite "
            f"numbers, got {type(item).__name__} of {array.dtype} {array.shape}"
        )
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    shape = "x".join(map(str, array.shape))
    return f"array {array.dtype.str} {shape}\n".encode() + array.tobytes()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, for example of the victim's weights.

    Raises:
        AuditRefused: it cannot be read.
    """
    made = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                made.update(chunk)
    except OSError as error:
        raise AuditRefused(f"cannot read {path}: {error}") from error
    return made.hexdigest()


def folder_digest(folder: Path, *, pattern: str = "*.py") -> str:
    """Return one SHA-256 of all files below a folder, with their names: a hash of code.

    Args:
        folder: its own name does not count, so that a copy elsewhere has the same hash.
        pattern: of file names.

    Raises:
        AuditRefused: there is no such file.
    """
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if not files:
        raise AuditRefused(f"there is no {pattern} in {folder}")
    return digest(
        to_bytes({path.relative_to(folder).as_posix(): file_digest(path) for path in files})
    )


def utc(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
