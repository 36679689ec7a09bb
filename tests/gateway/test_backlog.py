"""The backlog: tenants take turns, large asks go in slices, abandoned ones vanish."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.backlog import Backlog
from tollkeeper.types import Account


def ask(tenant: str, size: int) -> Ask:
    """A request of `size` texts."""
    return Ask(Account(tenant, "k", tenant), tuple(f"{tenant}{i}" for i in range(size)), "text")


def test_a_small_request_waits_for_one_slice_only() -> None:
    """Behind a bulk job of another tenant, one text comes in the next call."""
    backlog = Backlog(divisible=True)
    for _ in range(20):
        backlog.add(ask("bulk", 2000))
    assert [len(piece.ask.inputs) for piece in backlog.take(256)] == [2000]
    small = ask("small", 1)
    backlog.add(small)
    next_two = [piece.ask for piece in backlog.take(256)] + [p.ask for p in backlog.take(256)]
    assert small in next_two


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 700)), max_size=12),
    st.integers(1, 300),
)
def test_every_input_is_taken_once_and_in_order(sizes: list[tuple[str, int]], limit: int) -> None:
    """Whatever the turns, each ask's slices cover it without gap or overlap, within the bound."""
    backlog = Backlog(divisible=True)
    asks = [ask(tenant, size) for tenant, size in sizes]
    for one in asks:
        backlog.add(one)
    seen: dict[int, int] = {}
    while len(backlog):
        pieces = backlog.take(limit)
        assert sum(piece.rows.stop - piece.rows.start for piece in pieces) <= limit
        assert len({id(piece.ask) for piece in pieces}) == len(pieces)
        for piece in pieces:
            assert piece.rows.start == seen.get(id(piece.ask), 0)
            seen[id(piece.ask)] = piece.rows.stop
    assert seen == {id(one): len(one.inputs) for one in asks}


def test_indivisible_asks_come_alone_and_whole() -> None:
    """Encoders whose rows depend on the batch get each request as it came."""
    backlog = Backlog(divisible=False)
    backlog.add(ask("a", 700))
    backlog.add(ask("a", 1))
    assert [piece.rows for piece in backlog.take(256)] == [slice(0, 700)]
    assert [piece.rows for piece in backlog.take(256)] == [slice(0, 1)]


def test_abandoned_asks_are_dropped() -> None:
    """What nobody waits for takes no more encoder time, half embedded or not."""
    backlog = Backlog(divisible=True)
    half, other = ask("a", 500), ask("a", 3)
    backlog.add(half)
    backlog.add(other)
    backlog.take(256)
    half.abandoned = True
    assert [piece.ask for piece in backlog.take(256)] == [other]
    assert len(backlog) == 0


def test_embedded_asks_share_a_group_even_if_indivisible() -> None:
    """What needs no encoder any more is charged together: one fsync for all."""
    backlog = Backlog(divisible=False)
    asks = [ask(tenant, 3) for tenant in "abcabc"]
    for one in asks:
        one.embeddings = np.zeros((3, 2), np.float32)
        backlog.add(one)
    assert len(backlog.take(256)) == 6
