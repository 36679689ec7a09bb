"""Who is asking: API keys in, accounts out.

`authenticate` has three outcomes in three forms: an `Account`, `None` for "no
credential of mine came", or `AuthenticationError` for "refused".
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable
from typing import Protocol

from tollkeeper.errors import AuthenticationError, LedgerError
from tollkeeper.ledger.base import Changes, KeepsKeys, KeepsTenants
from tollkeeper.types import Account, KeyInfo, Tenant

KEY_PREFIX = "sk-tk-"
CACHE_LIMIT = 10_000
_WRONG_KEY = "Incorrect API key provided. Send `Authorization: Bearer <key>` with a valid key."


class Standing(KeepsKeys, KeepsTenants, Changes, Protocol):
    """What authentication needs from a ledger."""


class KeyRing:
    """Makes, stores and recognizes API keys.

    A key is shown once, when it is made; the store holds a keyed hash of it, so a
    stolen ledger does not let anyone in.
    """

    def __init__(self, store: Standing, *, pepper: bytes, clock: Callable[[], float]) -> None:
        """Use `pepper` (32 bytes, derived from the master key) to hash keys."""
        self._store = store
        self._pepper = pepper
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._seen_version = -1
        self._lock = threading.Lock()

    def create(self, tenant: str) -> tuple[str, KeyInfo]:
        """Make a key for a tenant; make the tenant too if it is new.

        Returns:
            The secret key, to be shown once, and what is stored of it.

        Raises:
            LedgerError: the store refused.
        """
        if self._store.find_tenant(tenant) is None:
            self._store.add_tenant(Tenant(name=tenant, pool=tenant, created_at=self._clock()))
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        info = KeyInfo(
            id="key_" + secrets.token_hex(8),
            tenant=tenant,
            digest=self.digest(secret),
            created_at=self._clock(),
        )
        self._store.add_key(info)
        return secret, info

    def digest(self, secret: str) -> str:
        """Return the keyed hash under which a key is stored, as hex."""
        return hmac.digest(self._pepper, secret.encode("utf-8", "replace"), "sha256").hex()

    def authenticate(self, authorization: str | None) -> Account | None:
        """Resolve an `Authorization` header.

        Returns:
            The account, or None when no bearer credential came.

        Raises:
            AuthenticationError: the key is unknown or revoked.
            LedgerError: the store cannot be asked.
        """
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            return None
        digest = self.digest(secret)
        account = self._accounts.get(digest) or self._look_up(digest)
        if account is None:
            raise AuthenticationError(_WRONG_KEY)
        return account

    def refresh(self) -> bool:
        """Forget cached accounts if any process changed keys or tenants; cheap to call often.

        Returns:
            Whether something had changed.

        Raises:
            LedgerError: the store cannot be asked.
        """
        version = self._store.standing_version()
        with self._lock:
            if version == self._seen_version:
                return False
            self._seen_version = version
            self._accounts = {}
        return True

    def _look_up(self, digest: str) -> Account | None:
        cache = self._accounts
        key = self._store.find_key(digest)
        if key is None or key.revoked_at is not None or not hmac.compare_digest(key.digest, digest):
            return None
        tenant = self._store.find_tenant(key.tenant)
        if tenant is None:
            raise LedgerError(f"key {key.id} belongs to a tenant that is not in the ledger")
        account = Account(
            tenant=tenant.name,
            key_id=key.id,
            pool=tenant.pool,
            suspended=tenant.suspended,
            budget=tenant.budget,
            plan=tenant.plan,
            mode=tenant.mode,
            grant=tenant.grant,
        )
        if len(cache) < CACHE_LIMIT:
            # Into the dict that was current before the look-up: if `refresh` swapped it
            # meanwhile, this possibly stale answer is thrown away with the old one.
            cache[digest] = account
        return account
