"""The two secrets on disk: the master key everything is derived from, and the admin token.

Both are created on first use with mode 0600. Losing the master key changes every
tenant's transform and invalidates every API key, so back it up beside the ledger.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tollkeeper.errors import ConfigurationError

KEY_BYTES = 32


def master_key(data_dir: Path, given: str | None = None) -> bytes:
    """Return the 32-byte master key: the given hex string, or the data directory's file.

    Raises:
        ConfigurationError: the key is not 64 hex digits, or the file cannot be used.
    """
    text = given if given is not None else _read_or_create(data_dir / "master.key")
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"the master key must be {2 * KEY_BYTES} hex digits, got {len(text.strip())} characters"
        )
    return key


def admin_token(data_dir: Path, given: str | None = None) -> str:
    """Return the admin plane's bearer token: the given one, or the data directory's file.

    Raises:
        ConfigurationError: the token is empty, or the file cannot be used.
    """
    text = given if given is not None else _read_or_create(data_dir / "admin.token")
    if not text.strip():
        raise ConfigurationError("the admin token is empty; delete the file to have a new one made")
    return text.strip()


def make_folder(data_dir: Path) -> None:
    """Make a data directory that only its owner may enter, unless it is there.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"cannot use the data directory {data_dir}: {error}") from error


def _read_or_create(path: Path) -> str:
    make_folder(path.parent)
    try:
        _create_once(path)
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot use the secret file {path}: {error}") from error


def _create_once(path: Path) -> None:
    """Write a fresh secret unless the file exists; two processes at once agree on one."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)
