"""Used proofs in Redis, so that gateways on several machines share them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from tollkeeper.errors import ConfigurationError, LedgerError
from tollkeeper.ledger.rows import number, text, whole
from tollkeeper.ledger.spent import spending

PREFIX: Final = "tollkeeper:spent:"

MARGIN_MS: Final = 3_600_000
"""A key outlives its name's expiry, and its last use, by an hour: clocks differ and jump."""

_SPEND = """
    local total = tonumber(redis.call('GET', KEYS[1]) or '0') + tonumber(ARGV[1])
    if total > tonumber(ARGV[2]) then return 0 end
    redis.call('INCRBY', KEYS[1], ARGV[1])
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local until_ms = math.max(
        tonumber(ARGV[3]), now + tonumber(ARGV[4]), now + redis.call('PTTL', KEYS[1]))
    redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', until_ms))
    return 1"""
_REFUND = """
    local back = math.min(tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1]))
    if back > 0 then redis.call('DECRBY', KEYS[1], string.format('%.0f', back)) end
    return 0"""


class RedisSpent:
    """Used proofs as keys `tollkeeper:spent:<name>`, each use one atomic script.

    Redis forgets keys by itself, an hour after they expire. What it forgets earlier can
    be spent once more: so let it evict nothing (`maxmemory-policy noeviction`), and
    keep a log (`appendonly yes`) if proofs are to stay used over its restart. A failover to a
    replica may forget the last moments. A name of 64 characters takes about 200 bytes.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        """Connect to Redis 5 or newer.

        Args:
            url: `redis://user:password@host:port/db`, or `rediss://` with TLS.
            timeout_s: how long to wait for a connection or an answer.

        Raises:
            ConfigurationError: the URL cannot be read.
            LedgerError: Redis does not answer.
        """
        try:
            parts = urlsplit(url)
            # The name in errors: host and port only, for a URL may hold a password.
            self._where = f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
            # Never send a script twice: the first may have been run, its answer lost.
            self._client: Any = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:  # its text may quote a piece of the password
            raise ConfigurationError(
                "a Redis URL is redis://user:password@host:port/db, with odd characters of the"
                " password percent-encoded; got one that cannot be read so"
            ) from None
        self._closed = False
        self._spend = self._client.register_script(_SPEND)
        self._refund = self._client.register_script(_REFUND)
        try:
            with self._explained():
                self._client.ping()
        except LedgerError:
            self._client.close()
            raise

    def spend(self, name: str, amount: int, *, limit: int, expires: float) -> bool:
        """Use up `amount` of `name` if no more than `limit` is then used."""
        given = spending(name, amount, limit=limit, expires=expires)
        until_ms = int(given["expires"] * 1000) + MARGIN_MS
        with self._explained():
            done = self._spend([_key(name)], [given["amount"], given["limit"], until_ms, MARGIN_MS])
        return bool(done)

    def refund(self, name: str, amount: int) -> None:
        """Give back; never below 0."""
        amount = whole("amount", amount)
        with self._explained():
            self._refund([_key(name)], [amount])

    def spent(self, name: str) -> int:
        """Return what is spent under a name, by whichever gateway."""
        with self._explained():
            return int(self._client.get(_key(name)) or 0)

    def prune(self, before: float) -> int:
        """Return 0: Redis forgets by itself."""
        number("before", before)
        with self._explained():
            return 0

    def close(self) -> None:
        """Close the connections; later use raises LedgerError."""
        self._closed = True
        self._client.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the client's errors into LedgerError."""
        if self._closed:
            raise LedgerError("the store of used proofs is closed; open it again")
        try:
            yield
        except (exceptions.RedisError, ValueError) as error:
            raise LedgerError(f"the Redis at {self._where} {_advice(error)} ({error})") from error


def _key(name: str) -> str:
    return PREFIX + text("name", name)


def _advice(error: Exception) -> str:
    if isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError)):
        return "refuses this user; correct name and password in the URL"
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError)):
        return "does not answer; start it, or correct the URL"
    # By their text too: before version 7 errors in a script have no type of their own.
    if isinstance(error, exceptions.OutOfMemoryError) or "OOM" in str(error):
        return "is full; give it more memory"
    if isinstance(error, exceptions.ReadOnlyError) or "READONLY" in str(error):
        return "is a replica; name its primary in the URL"
    return "cannot do it; look into its log and at who else writes its keys"
