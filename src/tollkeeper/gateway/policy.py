"""What can be refused before the encoder costs anything.

The guard prices what an answer reveals; policy decides whether there is an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tollkeeper.errors import BudgetExhausted, SuspendedError, ThrottledError
from tollkeeper.types import Account

RETRY_AFTER_S = 1.0


def check_standing(account: Account) -> None:
    """Refuse an account whose tenant is suspended.

    Raises:
        SuspendedError: the operator suspended the tenant.
    """
    if account.suspended:
        raise SuspendedError("This account is suspended. Contact your provider.")


def check_budget(spent: float, budget: float | None) -> None:
    """Refuse a tenant that has spent its hard budget.

    Args:
        spent: inputs charged so far.
        budget: inputs allowed in total, or None for no limit.

    Raises:
        BudgetExhausted: nothing is left; retrying does not help.
    """
    if budget is not None and spent >= budget:
        raise BudgetExhausted("The quota of this account is used up. Contact your provider.")


class ConcurrencyLimit:
    """Bounds requests in flight, in total and per tenant; used from one event loop."""

    def __init__(self, *, total: int, per_tenant: int) -> None:
        """Allow `total` requests at once, and `per_tenant` of each tenant."""
        self._total = total
        self._per_tenant = per_tenant
        self._running: Counter[str] = Counter()
        self._count = 0

    @contextmanager
    def admitted(self, tenant: str) -> Iterator[None]:
        """Hold one of a tenant's places, from before its body is read.

        Raises:
            ThrottledError: the tenant's places are taken; the client may retry shortly.
        """
        if self._running[tenant] >= self._per_tenant:
            raise _busy()
        self._running[tenant] += 1
        try:
            yield
        finally:
            self._running[tenant] -= 1
            if not self._running[tenant]:
                del self._running[tenant]

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


def _busy() -> ThrottledError:
    return ThrottledError(
        "Too many requests are running. Retry shortly.", retry_after_s=RETRY_AFTER_S
    )
