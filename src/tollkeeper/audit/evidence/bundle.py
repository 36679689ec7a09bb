"""A bundle: one folder that holds all a third party needs, and in which no byte can change.

==================== =========================================================================
file                 holds
==================== =========================================================================
`log.jsonl`, `.head` the owner's signed log up to this run; its last line names the manifest
`manifest.json`      SHA-256 of every other file
`commitment`         what was fixed beforehand, signed
`opened.json`        seeds, and salt, pair, coin and proof of each opened item
`items.npy`          opened items, uint8: the trained ones, then the others
`public.npy`         public pictures, uint8
`calls.jsonl`        a signed log with one line for each call to the suspect
`calls/`             bytes sent and received, two files for each call
`encoders.json`      control and references: name, role, SPEC, hash, file
`encoders/`          their embeddings of the same inputs, float32
`result.json`        what was found
==================== =========================================================================
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence.canonical import digest, file_digest, from_bytes, to_bytes
from tollkeeper.errors import AuditRefused, EvidenceError

LOG, MANIFEST, COMMITMENT, OPENED, RESULT = (
    "log.jsonl",
    "manifest.json",
    "commitment",
    "opened.json",
    "result.json",
)
ITEMS, PUBLIC, CALLS, CALL_FILES, ENCODERS, ENCODER_FILES = (
    "items.npy",
    "public.npy",
    "calls.jsonl",
    "calls",
    "encoders.json",
    "encoders",
)
_OF_LOG = frozenset({LOG, f"{LOG}.head"})


def contents(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file by its name, but of the log, which signs them.

    Raises:
        EvidenceError: there is something else than files and folders, or nothing.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise EvidenceError(f"{name} is no plain file; a bundle holds nothing else")
        if path.is_file() and name not in _OF_LOG | {MANIFEST}:
            found[name] = file_digest(path)
    if not found:
        raise EvidenceError(f"there is no bundle in {folder}")
    return found


def write_manifest(folder: Path) -> str:
    """Write the manifest and return its hash."""
    data = to_bytes({"files": contents(folder)})
    (folder / MANIFEST).write_bytes(data)
    return digest(data)


def check_manifest(folder: Path, expected: str) -> None:
    """Check every file against the manifest, and the manifest against its hash in the log.

    Raises:
        EvidenceError: names every file that was changed, is missing or was added.
    """
    listed, found = _manifest(folder, expected), contents(folder)
    wrong = [
        *(
            f"{name} was changed"
            for name in sorted(listed)
            if found.get(name, "") != listed[name] and name in found
        ),
        *(f"{name} is missing" for name in sorted(set(listed) - set(found))),
        *(f"{name} was added" for name in sorted(set(found) - set(listed))),
    ]
    if wrong:
        raise EvidenceError("; ".join(wrong))


def _manifest(folder: Path, expected: str) -> Mapping[str, str]:
    data = read_bytes(folder, MANIFEST)
    if digest(data) != expected:
        raise EvidenceError(f"{MANIFEST} was changed: the signed log names another")
    told = from_bytes(data, what=MANIFEST)
    listed = told.get("files") if isinstance(told, dict) else None
    if not isinstance(listed, dict):
        raise EvidenceError(f"{MANIFEST} lists no files")
    return listed


def read_bytes(folder: Path, name: str) -> bytes:
    """Return a file of a bundle.

    Raises:
        EvidenceError: it cannot be read.
    """
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise EvidenceError(f"cannot read {name} of {folder}: {error.strerror}") from error


def read_json(folder: Path, name: str) -> Any:
    """Return a canonical JSON file of a bundle.

    Raises:
        EvidenceError: it cannot be read, or is written otherwise than we write.
    """
    return from_bytes(read_bytes(folder, name), what=name)


def write_json(folder: Path, name: str, value: Any) -> None:
    """Write a file that `read_json` reads."""
    (folder / name).write_bytes(to_bytes(value))


def write_array(folder: Path, name: str, array: NDArray[Any]) -> None:
    """Write an array in `.npy`."""
    np.save(folder / name, array, allow_pickle=False)


def read_array(folder: Path, name: str) -> NDArray[Any]:
    """Return an array of a bundle.

    Raises:
        EvidenceError: it cannot be read.
    """
    try:
        found = np.load(io.BytesIO(read_bytes(folder, name)), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise EvidenceError(f"{name} is no array: {error}") from error
    assert isinstance(found, np.ndarray)
    return found


def read_pictures(path: Path) -> NDArray[np.uint8]:
    """Return the pictures of a `.npy` file: (n, h, w, 3) uint8.

    Raises:
        AuditRefused: it cannot be read, or holds something else.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise AuditRefused(f"cannot read the pictures {path}: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.ndim != 4:
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise AuditRefused(f"expected (n, h, w, 3) uint8 pictures in {path}, got {what}")
    if found.shape[3] != 3 or not len(found):
        raise AuditRefused(f"expected (n, h, w, 3) uint8 pictures in {path}, got {found.shape}")
    return found


def array_digest(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's type, shape and numbers."""
    told = f"{array.dtype.str} {array.shape}\n".encode()
    return hashlib.sha256(told + np.ascontiguousarray(array).tobytes()).hexdigest()
