"""What a data directory holds: the ledger, the keys and the master key they stand on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway import secrets
from tollkeeper.gateway.auth import KeyRing
from tollkeeper.gateway.pools import DEPLOYMENT
from tollkeeper.gateway.settings import Settings
from tollkeeper.guard import keys
from tollkeeper.ledger.base import (
    Changes,
    GroupCommits,
    KeepsKeys,
    KeepsTenants,
    Ledger,
    MovesTenants,
    Notes,
    Remembers,
)
from tollkeeper.ledger.open import open_ledger
from tollkeeper.ledger.retention import Prunes

_FACT = "master-key"


class Store(
    Ledger,
    GroupCommits,
    KeepsKeys,
    KeepsTenants,
    MovesTenants,
    Notes,
    Changes,
    Remembers,
    Prunes,
    Protocol,
):
    """A ledger with every capability the gateway uses."""

    def close(self) -> None:
        """Finish what was submitted and let go of the store."""
        ...


@dataclass(frozen=True, slots=True)
class Stores:
    """What the operator's verbs need: no encoder is loaded for them."""

    store: Store
    keyring: KeyRing
    master: bytes


def open_stores(settings: Settings, *, clock: Callable[[], float]) -> Stores:
    """Open the ledger and the key ring of a data directory.

    Raises:
        ConfigurationError: a secret or the ledger's URL is wrong.
        LedgerError: the ledger is damaged.
    """
    given = settings.master_key.get_secret_value() if settings.master_key else None
    path, file = settings.data_dir / "master.key", settings.data_dir / "ledger.sqlite3"
    keyless = given is None and not path.exists()
    if settings.ledger is None and not file.exists() and (settings.data_dir / DEPLOYMENT).exists():
        raise ConfigurationError(
            f"{file} is missing, but a server ran in {settings.data_dir}: restore it from a "
            f"backup, or delete {DEPLOYMENT} to start with no keys and no coverage"
        )
    if keyless and settings.ledger is None and file.exists():
        raise _missing(path, str(file))
    if settings.ledger is None:
        secrets.make_folder(settings.data_dir)
    if not (keyless and settings.ledger):
        # The key before the ledger, so that no new ledger is ever without one.
        secrets.master_key(settings.data_dir, given)
    store = cast("Store", open_ledger(settings.ledger_url))
    try:
        master = _master(settings, store, given, path if keyless else None)
    except BaseException:
        store.close()
        raise
    pepper = keys.derive(master, "api-keys")
    return Stores(store, KeyRing(store, pepper=pepper, clock=clock), master)


def _master(settings: Settings, store: Store, given: str | None, absent: Path | None) -> bytes:
    """Return the master key that a ledger was made with; a new ledger takes what there is."""
    if absent is not None and store.recall(_FACT) is not None:
        raise _missing(absent, settings.ledger_url)
    master = secrets.master_key(settings.data_dir, given)
    fingerprint = keys.derive(master, "master-key-fingerprint", length=8).hex()
    if store.remember(_FACT, fingerprint) != fingerprint:
        raise ConfigurationError(
            f"the ledger {settings.ledger_url} was made with another master key than the one "
            f"in {settings.data_dir}: with this one every API key and every answer would "
            "change; restore the right master.key or name another ledger"
        )
    return master


def _missing(path: Path, ledger: str) -> ConfigurationError:
    """A ledger without its master key must not get a new one: every answer would change."""
    return ConfigurationError(
        f"{path} is missing, but {ledger} was made with it: restore it from a backup, or "
        "move the ledger away to start anew with new keys and new answers"
    )
