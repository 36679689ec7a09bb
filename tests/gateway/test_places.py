"""Places and allowances: bounded, fair, and given back whatever happens."""

from __future__ import annotations

import asyncio

import pytest

from tollkeeper.errors import ThrottledError
from tollkeeper.gateway.places import Allowance, Places


def test_places_per_tenant_and_bytes() -> None:
    """A tenant's requests and bytes are bounded; another tenant's are not touched."""
    places = Places(total=10, per_tenant=2, bytes_per_tenant=100)
    with places.admitted("a", 90):
        with pytest.raises(ThrottledError), places.admitted("a", 20):
            raise AssertionError
        with places.admitted("a", 10):
            with pytest.raises(ThrottledError), places.admitted("a", 0):
                raise AssertionError
            with places.admitted("b", 100):
                pass
    with places.admitted("a", 1000):  # one request always fits
        pass


def test_working_places() -> None:
    """Beyond the total, requests are refused, and a place that was left is free again."""
    places = Places(total=1, per_tenant=9, bytes_per_tenant=9)
    with places.working(), pytest.raises(ThrottledError), places.working():
        raise AssertionError
    with places.working():
        pass


async def test_allowance_serves_in_order_and_never_overspends() -> None:
    """Waiters get their units first come, first served, and the total is never exceeded."""
    allowance = Allowance(10)
    order: list[int] = []
    peak = used = 0

    async def holder(number: int, units: int) -> None:
        nonlocal used, peak
        async with allowance.hold(units):
            order.append(number)
            used += min(units, 10)
            peak = max(peak, used)
            await asyncio.sleep(0)
            used -= min(units, 10)

    await asyncio.gather(*[holder(i, units) for i, units in enumerate([6, 6, 3, 50, 1, 10])])
    assert order == [0, 1, 2, 3, 4, 5]
    assert peak <= 10
    assert allowance._used == 0


async def test_cancelled_waiters_lose_nothing() -> None:
    """A waiter that is cancelled leaves its turn to the next."""
    allowance = Allowance(1)
    async with allowance.hold(1):
        waiters = [asyncio.create_task(enter(allowance)) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        await asyncio.sleep(0)
    done = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [None, None]
    assert allowance._used == 0


async def enter(allowance: Allowance) -> None:
    """Hold one unit for a moment."""
    async with allowance.hold(1):
        await asyncio.sleep(0)
