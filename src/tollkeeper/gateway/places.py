"""How much requests hold at once: places, body bytes, pixels."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from tollkeeper.errors import ThrottledError

RETRY_AFTER_S = 1.0


class Places:
    """Bounds what requests hold at once, per tenant and in total; used from one event loop."""

    def __init__(self, *, total: int, per_tenant: int, bytes_per_tenant: int) -> None:
        """Set the bounds.

        Args:
            total: requests that work at once.
            per_tenant: requests of one tenant, from before their bodies are read.
            bytes_per_tenant: body bytes that one tenant's requests hold together.
        """
        self._total = total
        self._per_tenant = per_tenant
        self._bytes_per_tenant = bytes_per_tenant
        self._running: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._count = 0

    @contextmanager
    def admitted(self, tenant: str, size: int) -> Iterator[None]:
        """Hold one of a tenant's places and room for a body of `size` bytes.

        Raises:
            ThrottledError: there is no place or no room; the client may retry shortly.
        """
        crowded = self._running[tenant] >= self._per_tenant
        held = self._bytes[tenant]
        # One request always fits, so that no limit can lock a tenant out.
        if crowded or (held and held + size > self._bytes_per_tenant):
            raise _busy()
        self._running[tenant] += 1
        self._bytes[tenant] += size
        try:
            yield
        finally:
            self._running[tenant] -= 1
            self._bytes[tenant] -= size
            if not self._running[tenant]:
                del self._running[tenant], self._bytes[tenant]

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold one of the server's places, once the body is there: slow senders take none.

        Raises:
            ThrottledError: all places are taken; the client may retry shortly.
        """
        if self._count >= self._total:
            raise _busy()
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


class Allowance:
    """Bounds a resource that requests hold for a moment; waiters are served in order."""

    def __init__(self, total: int) -> None:
        """Allow `total` units at once."""
        self._total = total
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, units: int) -> AsyncIterator[None]:
        """Wait for `units` (at most the total) and hold them."""
        units = min(units, self._total)
        if self._waiting or self._used + units > self._total:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((units, turn))
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self._give_back(units)
                else:
                    with suppress(ValueError):  # it may have been passed over already
                        self._waiting.remove((units, turn))
                raise
        else:
            self._used += units
        try:
            yield
        finally:
            self._give_back(units)

    def _give_back(self, units: int) -> None:
        self._used -= units
        while self._waiting and self._used + self._waiting[0][0] <= self._total:
            wanted, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._used += wanted
                turn.set_result(None)


def _busy() -> ThrottledError:
    return ThrottledError(
        "Too many requests are running. Retry shortly.", retry_after_s=RETRY_AFTER_S
    )
