"""One table of stores of used proofs; every behavior is run against each of them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from tollkeeper.errors import LedgerError
from tollkeeper.ledger.spent import MemorySpent, SpentStore, open_spent_store

KINDS = ("memory", "sqlite", "redis")
SHARED = ("sqlite", "redis")
LATER = 4e9
"""A time to expire at that no test reaches."""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store of the wanted kind is."""
    if request.param == "redis":
        where: str = request.getfixturevalue("redis_url")
        with redis.Redis.from_url(where) as client:
            client.flushdb()
        return where
    return "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/spent.db"


@pytest.fixture
def store(url: str) -> Iterator[SpentStore]:
    """A store, open and empty."""
    made = open_spent_store(url)
    yield made
    made.close()


@pytest.fixture
def peers(url: str) -> Iterator[list[SpentStore]]:
    """Two stores in one place, as two gateways have them."""
    made = [open_spent_store(url) for _ in range(2)]
    yield made
    for store in made:
        store.close()


def at_once(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run each in a thread of its own, started together; return their results."""
    start = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def run(i: int) -> None:
        start.wait()
        results[i] = works[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # let threads meet in the middle of things
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    return results


every = pytest.mark.parametrize("url", KINDS, indirect=True)
shared = pytest.mark.parametrize("url", SHARED, indirect=True)


@every
def test_a_name_is_spent_up_to_its_limit(store: SpentStore) -> None:
    """Amounts add up to the limit and not past it; a refusal changes nothing."""
    assert isinstance(store, SpentStore)
    assert store.spent("pass") == 0
    assert store.spend("pass", 3, limit=5, expires=LATER)
    assert not store.spend("pass", 3, limit=5, expires=LATER)
    assert store.spent("pass") == 3
    assert store.spend("pass", 2, limit=5, expires=LATER)
    assert not store.spend("pass", 1, limit=5, expires=LATER)
    assert store.spent("pass") == 5
    assert store.spend("another", 5, limit=5, expires=LATER)
    assert not store.spend("new", 6, limit=5, expires=LATER)
    assert store.spent("new") == 0


@every
def test_of_16_threads_one_spends_a_name(store: SpentStore) -> None:
    """With the amount at the limit exactly one of many at once is told yes."""

    def spend_all() -> list[bool]:
        return [store.spend(f"p{n}", 1, limit=1, expires=LATER) for n in range(400)]

    won = np.array(at_once([spend_all] * 16))
    assert won.sum(axis=0).tolist() == [1] * 400


@every
def test_a_limit_holds_under_concurrency(store: SpentStore) -> None:
    """Many who spend at once are told yes for exactly as much as the limit allows."""

    def spend(amount: int) -> int:
        return sum(amount * store.spend("pass", amount, limit=100, expires=LATER) for _ in range(9))

    spent = sum(at_once([partial(spend, 1 + i % 3) for i in range(16)]))
    assert spent == store.spent("pass")
    assert 98 <= spent <= 100


@every
def test_a_refund_can_be_spent_again(store: SpentStore) -> None:
    """What is given back is there again, never more than was spent, and unknown names stay so."""
    assert store.spend("pass", 4, limit=5, expires=LATER)
    store.refund("pass", 3)
    assert store.spent("pass") == 1
    assert store.spend("pass", 4, limit=5, expires=LATER)
    store.refund("pass", 50)
    assert store.spent("pass") == 0
    assert store.spend("pass", 5, limit=5, expires=LATER)
    assert not store.spend("pass", 1, limit=5, expires=LATER)
    store.refund("unknown", 3)
    assert store.spent("unknown") == 0
    assert not store.spend("unknown", 6, limit=5, expires=LATER)


@pytest.mark.parametrize("url", ["memory", "sqlite"], indirect=True)
def test_pruning_forgets_what_expired(store: SpentStore) -> None:
    """Names that expire before a time are forgotten and counted; the latest expiry counts."""
    for n in range(10):
        assert store.spend(f"p{n}", 1, limit=2, expires=float(n))
    assert store.spend("p0", 1, limit=2, expires=50.0)
    assert store.spend("p9", 1, limit=2, expires=1.0)
    store.refund("p1", 1)
    assert store.prune(5.0) == 4
    assert store.prune(5.0) == 0
    assert [store.spent(f"p{n}") for n in range(10)] == [2, 0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert store.prune(100.0) == 6


@every
def test_pruning_spares_what_is_valid(store: SpentStore) -> None:
    """A name is not spent again because something was pruned."""
    assert store.spend("pass", 1, limit=1, expires=LATER)
    assert store.prune(LATER - 1) == 0
    assert not store.spend("pass", 1, limit=1, expires=LATER)


@every
def test_an_expired_name_is_still_spent_once(store: SpentStore) -> None:
    """A store does not judge expiry, so a clock that runs ahead of another opens no second use."""
    assert store.spend("old", 1, limit=1, expires=5.0)
    assert not store.spend("old", 1, limit=1, expires=5.0)


@every
def test_names_may_hold_any_character(store: SpentStore) -> None:
    """Names are told apart exactly, and a name that is no Unicode is refused."""
    names = [
        "",
        " ",
        "a",
        "A",
        "a ",
        "ä",
        "a\u0308",
        "a\0",
        "a\0b",
        "%s'\";--",
        "{a}:*?",
        "x" * 5000,
    ]
    for name in names:
        assert store.spend(name, 1, limit=1, expires=LATER), name[:9]
    assert [store.spent(name) for name in names] == [1] * len(names)
    uses: tuple[Callable[[], object], ...] = (
        lambda: store.spend("\ud800", 1, limit=1, expires=LATER),
        lambda: store.refund("\ud800", 1),
        lambda: store.spent("\ud800"),
    )
    for use in uses:
        with pytest.raises(LedgerError, match="name must be valid Unicode"):
            use()


@every
@pytest.mark.parametrize(
    ("amount", "limit", "expires", "told"),
    [
        (-1, 5, LATER, "amount must be between 0"),
        (2**54, 5, LATER, "amount must be between 0"),
        (1, -1, LATER, "limit must be between 0"),
        (1, 5, math.nan, "expires must be a finite"),
        (1, 5, math.inf, "expires must be a finite"),
    ],
)
def test_impossible_numbers_are_refused(
    store: SpentStore, amount: int, limit: int, expires: float, told: str
) -> None:
    """A number that makes no sense raises LedgerError and spends nothing."""
    with pytest.raises(LedgerError, match=told):
        store.spend("pass", amount, limit=limit, expires=expires)
    with pytest.raises(LedgerError, match="amount"):
        store.refund("pass", -1)
    assert store.spent("pass") == 0


@every
def test_a_closed_store_refuses_everything(store: SpentStore) -> None:
    """After `close`, which may be called twice, each method raises LedgerError with advice."""
    store.close()
    store.close()
    uses: tuple[Callable[[], object], ...] = (
        lambda: store.spend("pass", 1, limit=1, expires=LATER),
        lambda: store.refund("pass", 1),
        lambda: store.spent("pass"),
        lambda: store.prune(0.0),
    )
    for use in uses:
        with pytest.raises(LedgerError, match="closed; open it again"):
            use()


@shared
def test_stores_agree_with_the_one_in_memory(store: SpentStore) -> None:
    """Whatever is spent and given back, in any order, every store answers as memory does."""
    model, rng = MemorySpent(), np.random.default_rng(5)
    for _ in range(400):
        name, amount, limit = f"p{rng.integers(4)}", int(rng.integers(5)), int(rng.integers(12))
        if rng.random() < 0.7:
            told = [one.spend(name, amount, limit=limit, expires=LATER) for one in (model, store)]
            assert told[0] == told[1]
        else:
            model.refund(name, amount)
            store.refund(name, amount)
    assert [model.spent(f"p{n}") for n in range(4)] == [store.spent(f"p{n}") for n in range(4)]


@shared
def test_two_connections_share_what_is_spent(peers: list[SpentStore]) -> None:
    """Of threads on two connections one spends a name, and each sees what the other spent."""
    uses = [partial(peer.spend, "proof", 1, limit=1, expires=LATER) for peer in peers]
    won = at_once(uses * 8)
    assert sorted(won) == [False] * 15 + [True]
    assert [peer.spent("proof") for peer in peers] == [1, 1]
    peers[0].refund("proof", 1)
    assert peers[1].spend("proof", 1, limit=1, expires=LATER)


SPENDS_ALL = """
import sys
from tollkeeper.ledger.spent import open_spent_store
store = open_spent_store(sys.argv[1])
print(flush=True)
sys.stdin.readline()
print(*[n for n in range(300) if store.spend(f"p{n}", 1, limit=1, expires=4e9)])
store.close()
"""

SPENDS_UNTIL_KILLED = """
import itertools, os, sys
from tollkeeper.ledger.spent import open_spent_store
store = open_spent_store(sys.argv[1])
for n in itertools.count():
    if store.spend(f"{sys.argv[2]}:{n}", 1, limit=1, expires=4e9):
        os.write(1, f"{sys.argv[2]}:{n}\\n".encode())
"""


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Run a script in a Python of its own that imports what this one imports."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@shared
def test_two_processes_never_spend_one_name_twice(url: str) -> None:
    """Two processes that spend the same names at once share them out without a rest."""
    children = [start(SPENDS_ALL, url) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    won = [child.communicate()[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(map(int, [*won[0], *won[1]])) == list(range(300))


@shared
def test_kill_9_loses_nothing_that_was_spent(url: str) -> None:
    """After each of 6 kills at a random instant every name told spent is spent."""
    rng = np.random.default_rng(3)
    acknowledged: list[str] = []
    for kill in range(6):
        child = start(SPENDS_UNTIL_KILLED, url, kill)
        assert child.stdout is not None
        acknowledged += [child.stdout.readline().decode() for _ in range(rng.integers(1, 300))]
        child.kill()
        acknowledged += child.communicate()[0].decode().splitlines()
    names = [name.strip() for name in acknowledged]
    assert len(names) > 300
    store = open_spent_store(url)
    assert [name for name in names if store.spend(name, 1, limit=1, expires=LATER)] == []
    store.close()
