"""From a URL to a ledger."""

from __future__ import annotations

from tollkeeper.errors import ConfigurationError
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.sqlite import SqliteLedger


def open_ledger(url: str) -> MemoryLedger | SqliteLedger:
    """Open the ledger that a URL or a plain path names; close it when done.

    Args:
        url: `memory://`, `sqlite:///absolute/path` or the path of a SQLite file.

    Raises:
        ConfigurationError: the URL names no ledger we have.
        LedgerError: the file cannot be used.
    """
    scheme, separator, rest = url.partition("://")
    if not separator and url:
        return SqliteLedger(url)
    if scheme == "memory" and not rest:
        return MemoryLedger()
    if scheme == "sqlite" and rest.startswith("/"):
        return SqliteLedger(rest)
    if scheme in {"redis", "rediss"}:
        raise ConfigurationError("the redis ledger is not shipped yet; use sqlite:///path instead")
    raise ConfigurationError(
        f"a ledger is memory://, sqlite:///absolute/path or a file path, got {url!r}"
    )
