"""Allowance grants: an operator lets a known customer ask a lot for a while.

A grant is a signed text that stands with the tenant. Whoever can write to the ledger, but does
not hold the master key, cannot make one.
"""

from __future__ import annotations

import hmac
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache

import msgspec

from tollkeeper.errors import ConfigurationError

MOST_INPUTS = 10**12


class Grant(msgspec.Struct, frozen=True):
    """How much a tenant may ask beside its plan.

    Attributes:
        id: random; what is used up is counted under it.
        tenant: whose.
        inputs: so many, in requests that ask something new, are free of toll, ration and noise, and
            do not count as breadth.
        since: seconds since the epoch.
        until: seconds since the epoch.
        note: why, for the operator.
    """

    id: str
    tenant: str
    inputs: int
    since: float
    until: float
    note: str = ""

    @property
    def account(self) -> str:
        """Return under what name it is used up."""
        return f"grant:{self.id}"

    def check(self) -> None:
        """Refuse what is no grant.

        Raises:
            ConfigurationError: no inputs, or no time.
        """
        if not 1 <= self.inputs <= MOST_INPUTS:
            raise ConfigurationError(
                f"expected 1 to {MOST_INPUTS} inputs to grant, got {self.inputs}"
            )
        if not (math.isfinite(self.until) and self.since < self.until):
            raise ConfigurationError("expected a grant that ends after it begins")


class Grants:
    """Signs and reads the grants of one deployment."""

    def __init__(self, secret: bytes) -> None:
        """Sign with `secret`, 32 bytes."""
        self._secret = secret
        self._read = lru_cache(1024)(self._check)

    def sign(self, grant: Grant) -> str:
        """Return the text that stands with the tenant.

        Raises:
            ConfigurationError: it grants nothing.
        """
        grant.check()
        body = urlsafe_b64encode(msgspec.json.encode(grant)).decode()
        return f"{body}.{self._sign(body)}"

    def read(self, text: str, *, tenant: str) -> Grant | None:
        """Return a tenant's grant, over or not; None where there is none that we signed for it."""
        grant = self._read(text) if text else None
        return grant if grant is not None and grant.tenant == tenant else None

    def _check(self, text: str) -> Grant | None:
        body, _, signature = text.partition(".")
        if not hmac.compare_digest(self._sign(body).encode(), signature.encode()):
            return None
        return msgspec.json.decode(urlsafe_b64decode(body), type=Grant)

    def _sign(self, body: str) -> str:
        return hmac.digest(self._secret, body.encode(), "sha256").hex()
