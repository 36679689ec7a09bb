"""Pools of linked tenants: charged as one, taken apart again, and found by what they share."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import BudgetExhausted, ConfigurationError, GuardError, LedgerError
from tollkeeper.gateway.archive import Archive
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.assembly import make_service
from tollkeeper.gateway.auth import KeyRing
from tollkeeper.gateway.links import FEWEST_SEEN, LINKS, Links
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.pools import pool_key
from tollkeeper.gateway.service import Guarded
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.types import Account, Tenant

ENCODER = hash_encoder(32)
SAMPLE = ENCODER.embed([f"sample {i}" for i in range(600)])
CALIBRATION = Calibration.fit(SAMPLE, rng=np.random.default_rng(0))
GUARD = Guard(profiles.RECOMMENDED, CALIBRATION, secret=bytes(range(32)))
LAYOUT = GUARD.profile.layout
NAMES = ("a", "b", "c")


class World:
    """A service and the links of its ledger."""

    def __init__(self, store: Any = None) -> None:
        self.store = store or MemoryLedger()
        self.keyring = KeyRing(self.store, pepper=bytes(32), clock=lambda: 1.0)
        for name in NAMES:
            self.keyring.create(name)
        self.service = self.another()
        archive = Archive(LAYOUT, None, GUARD.fingerprint)
        self.links = Links(
            self.store, archive, version="t/1", clock=lambda: 2.0, sleep=lambda _: None
        )

    def another(self, **options: Any) -> Guarded:
        """Another replica on the same ledger."""
        return make_service(
            ENCODER,
            GUARD,
            self.store,
            clock=lambda: 1.0,
            rng=np.random.default_rng(0),
            metrics=Metrics(),
            **options,
        )

    def tenant(self, name: str) -> Tenant:
        found = self.store.find_tenant(name)
        assert found is not None
        return found

    def ask(self, name: str, texts: list[str], service: Guarded | None = None) -> Any:
        """Let a tenant ask, on the pool that it is charged on."""
        account = Account(name, "k", self.tenant(name).pool, budget=self.tenant(name).budget)
        return (service or self.service).answer(Ask(account, tuple(texts), "text"))

    def sketch(self, pool: str) -> Any:
        entry = self.store.read(pool_key(pool, GUARD.fingerprint))
        return GUARD.load(entry.sketch)

    def link(self, one: str, other: str) -> None:
        self.links.link(self.tenant(one), self.tenant(other))


def texts(name: str, *numbers: int) -> list[str]:
    """What somebody asks."""
    return [f"{name} asks {number}" for number in numbers]


def expected(asked: list[str]) -> bytes:
    """The sketch of an account that asked these texts."""
    return GUARD.mark(GUARD.empty(), ENCODER.embed(asked)).tobytes()


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["ask", "ask", "link", "unlink"]),
            st.sampled_from(NAMES),
            st.sampled_from(NAMES),
            st.integers(0, 20),
        ),
        max_size=14,
    )
)
@settings(max_examples=40, deadline=None)
def test_linking_and_unlinking_lose_and_invent_nothing(
    steps: list[tuple[str, str, str, int]],
) -> None:
    """At any moment a pool covers what its tenants asked, and a tenant alone what it asked."""
    world = World()
    asked: dict[str, list[str]] = {name: [] for name in NAMES}
    for verb, one, other, number in steps:
        if verb == "ask":
            new = texts("somebody", number, number + 1)
            world.ask(one, new)
            asked[one] += new
        elif verb == "link" and one != other:
            world.link(one, other)
            assert world.tenant(one).pool == world.tenant(other).pool
        elif verb == "unlink" and world.tenant(one).pool != one:
            world.links.unlink(world.tenant(one))
            assert world.tenant(one).pool == one
        for name in NAMES:
            pool = world.tenant(name).pool
            members = [row.name for row in world.store.tenants() if row.pool == pool]
            whole = [text for member in members for text in asked[member]]
            assert world.sketch(pool).tobytes() == expected(whole)
            assert world.sketch(name).tobytes() == expected(asked[name])
            entry = world.store.read(pool_key(pool, GUARD.fingerprint))
            assert entry.queries == len(whole)


def test_a_linked_pool_is_charged_like_one_account() -> None:
    """What one of them asked is free for the other, and both meet one spend (law 4)."""
    world = World()
    world.link("a", "b")
    world.ask("a", texts("x", 1, 2, 3))
    pool = pool_key(world.tenant("a").pool, GUARD.fingerprint)
    assert world.store.read(pool).spent == 3
    world.ask("b", texts("x", 1, 2, 3, 4))
    assert world.store.read(pool).spent == 4


def test_two_replicas_serve_a_linked_pool_without_losing_any() -> None:
    """Replicas that never look at each other lose no mark of the pool or of its tenants."""
    world = World()
    world.link("a", "b")
    other = world.another()
    for number in range(6):
        world.ask("a", texts("x", number), world.service if number % 2 else other)
        world.ask("b", texts("y", number), other if number % 2 else world.service)
    mine, theirs = texts("x", *range(6)), texts("y", *range(6))
    assert world.sketch(world.tenant("a").pool).tobytes() == expected(mine + theirs)
    assert world.sketch("a").tobytes() == expected(mine)
    assert world.sketch("b").tobytes() == expected(theirs)


def test_asks_on_the_old_and_the_new_pool_in_one_group() -> None:
    """While servers notice a link, asks of one tenant on both pools lose nothing."""
    world = World()
    world.ask("a", texts("x", 0))
    world.link("a", "b")
    pool = world.tenant("a").pool
    asks = [
        Ask(Account("a", "k", name), tuple(texts("x", number)), "text")
        for number, name in enumerate(["a", pool, "a", pool], start=1)
    ]
    for ask in asks:
        ask.embeddings = ENCODER.embed(list(ask.inputs))
    pending = asks
    for _ in range(8):
        again = []
        for charge in world.service.charge(pending):
            answers, repeat = world.service.settle(charge)
            assert not any(isinstance(answer, Exception) for answer in answers)
            again += repeat
        pending = again
    assert not pending
    world.links.unite(pool)
    for name in ("a", pool):
        assert world.sketch(name).tobytes() == expected(texts("x", *range(5)))


def test_links_are_recorded_and_so_is_their_end() -> None:
    """Who was linked, parted and pardoned stands in the records."""
    world = World()
    world.ask("a", texts("x", 1))
    world.link("a", "b")
    world.links.unlink(world.tenant("b"))
    world.links.pardon(world.tenant("a"))
    names = [record.request_id for record in world.store.records(tenant=LINKS)]
    assert sorted(names) == sorted(["pardon:a", "unlink:a/1->b", "link:a/1<-a,b"])


def test_one_of_three_leaves() -> None:
    """Those who stay are charged on what they asked, without the one that left."""
    world = World()
    for name in NAMES:
        world.ask(name, texts(name, 1, 2))
    world.link("a", "b")
    world.link("b", "c")
    world.links.unlink(world.tenant("a"))
    assert world.tenant("b").pool == world.tenant("c").pool != world.tenant("a").pool
    assert world.sketch(world.tenant("b").pool).tobytes() == expected(
        texts("b", 1, 2) + texts("c", 1, 2)
    )
    with pytest.raises(ConfigurationError, match="not linked"):
        world.links.unlink(world.tenant("a"))


def test_budgets_survive_being_parted() -> None:
    """What was left of a budget is left after linking, unlinking and asking between."""
    world = World()
    world.store.update_tenant(Tenant("a", "a", budget=10.0))
    world.ask("a", texts("a", 1, 2, 3))
    world.ask("b", texts("b", 1, 2))
    world.link("a", "b")
    world.ask("a", texts("a", 4, 5))
    world.links.unlink(world.tenant("a"))
    world.ask("a", texts("a", *range(6, 11)))
    with pytest.raises(BudgetExhausted):
        world.ask("a", texts("a", 11))


def test_a_pardon_is_noticed_by_a_server_that_refused(tmp_path: Path) -> None:
    """A pool at the ceiling is refused, and answered after the pardon; its spend stays."""
    store = SqliteLedger(tmp_path / "l.db")
    world = World(store)
    full = [f"filling {number}" for number in range(4000)]
    for start in range(0, len(full), 500):
        with_room = GUARD.fraction(world.sketch("a")) < (GUARD.profile.ceiling or 1)
        if with_room:
            world.ask("a", full[start : start + 500])
    for _ in range(2):
        with pytest.raises(BudgetExhausted):
            world.ask("a", ["something new", "and more"])
    spent = store.read(pool_key("a", GUARD.fingerprint)).spent
    world.links.pardon(world.tenant("a"))
    world.ask("a", ["something new", "and more"])
    entry = store.read(pool_key("a", GUARD.fingerprint))
    assert entry.spent == spent + 2
    assert GUARD.fraction(world.sketch("a")) < 0.05
    store.close()


def test_a_pardoned_tenant_leaves_its_marks_with_nobody() -> None:
    """In a linked pool a pardon takes away what that tenant alone covered."""
    world = World()
    world.ask("a", texts("a", *range(9)))
    world.ask("b", texts("b", 1, 2))
    world.link("a", "b")
    world.links.pardon(world.tenant("a"))
    pool = world.tenant("b").pool
    assert world.tenant("a").pool == pool
    assert np.array_equal(
        LAYOUT.bitmap(world.sketch(pool)),
        LAYOUT.bitmap(np.frombuffer(expected(texts("b", 1, 2)), np.uint8)),
    )


def test_tenants_that_asked_the_same_are_linked_once() -> None:
    """Half the inputs in common link two tenants, none in common links nobody."""
    world = World()
    world.ask("a", texts("x", *range(300)))
    world.ask("b", texts("x", *range(150, 450)))
    world.ask("c", texts("y", *range(300)))
    (pair,) = [one for one in world.links.overlaps() if one.seen >= FEWEST_SEEN]
    assert (pair.first, pair.second) == ("a", "b")
    assert abs(pair.shared - 150 / 450) < 0.15
    assert pair.united >= max(pair.coverage)
    assert [one.second for one in world.links.link_overlapping(0.1)] == ["b"]
    assert world.tenant("a").pool == world.tenant("b").pool
    assert world.tenant("c").pool == "c"
    assert world.links.link_overlapping(0.1) == []


def test_what_an_operator_parted_is_not_linked_by_overlap_again() -> None:
    """A false link is undone for good; only an operator links the two again."""
    world = World()
    world.ask("a", texts("x", *range(300)))
    world.ask("b", texts("x", *range(300)))
    assert len(world.links.link_overlapping(0.5)) == 1
    world.links.unlink(world.tenant("b"))
    assert world.links.link_overlapping(0.5) == []
    assert world.tenant("b").pool == "b"
    world.link("a", "b")
    assert world.tenant("a").pool == world.tenant("b").pool


def test_a_few_common_inputs_are_no_evidence() -> None:
    """Two small accounts that tried the same three texts are left alone."""
    world = World()
    world.ask("a", ["hello", "test", "foo"])
    world.ask("b", ["hello", "test", "foo"])
    assert world.links.overlaps()[0].shared == 1
    assert world.links.link_overlapping(0.05) == []


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_is_a_share(share: float) -> None:
    """Anything outside (0, 1] is refused."""
    with pytest.raises(ConfigurationError, match="share"):
        World().links.link_overlapping(share)


def test_pools_are_united_again_under_another_guard() -> None:
    """After a change of guard a linked pool covers what its tenants did under that guard."""
    world = World()
    world.ask("a", texts("a", 1))
    world.link("a", "b")
    other = Guard(profiles.RECOMMENDED, CALIBRATION, secret=bytes(range(1, 33)))
    links = Links(
        world.store,
        Archive(LAYOUT, None, other.fingerprint),
        version="t/1",
        clock=lambda: 2.0,
        sleep=lambda _: None,
    )
    # The other guard knew `b` before the two were linked.
    own = other.mark(other.empty(), ENCODER.embed(texts("b", 1)))
    key = pool_key("b", other.fingerprint)
    record = next(world.store.records())
    world.store.commit(key, record, own.tobytes(), expected=0)
    links.unite_all()
    pool = world.store.read(pool_key(world.tenant("a").pool, other.fingerprint))
    assert pool.sketch == own.tobytes()


class Flaky(MemoryLedger):
    """A memory ledger that can be down."""

    down = False

    def read(self, pool: str) -> Any:
        if self.down:
            raise LedgerError("down")
        return super().read(pool)

    def submit(self, submissions: Any) -> Any:
        if not self.down:
            return super().submit(submissions)
        futures: list[Future[Any]] = [Future() for _ in submissions]
        for future in futures:
            future.set_exception(LedgerError("down"))
        return futures


def test_open_mode_keeps_what_is_owed_through_a_refusal() -> None:
    """At the ceiling a pool is refused while the ledger is down, and after it is back."""
    store = Flaky()
    world = World(store)
    service = world.another(on_ledger_failure="open")
    account = Account("a", "k", "a")

    def ask(name: str, first: int) -> None:
        service.answer(Ask(account, tuple(texts(name, *range(first, first + 500))), "text"))

    store.down = True
    refused = False
    for number in range(20):
        try:
            ask("x", 500 * number)
        except BudgetExhausted:
            refused = True
    assert refused
    for _ in range(3):
        with pytest.raises(BudgetExhausted):
            ask("y", 0)
    store.down = False
    with pytest.raises(BudgetExhausted):
        ask("z", 0)


def test_a_pardon_stays_in_open_mode() -> None:
    """What a server remembers is not owed to the ledger, only what it could not store."""
    world = World()
    service = world.another(on_ledger_failure="open")
    world.ask("a", texts("x", *range(300)), service)
    world.links.pardon(world.tenant("a"))
    world.ask("a", texts("x", 1), service)
    assert GUARD.fraction(world.sketch("a")) < 0.02


def test_a_linked_tenant_in_open_mode_loses_nothing() -> None:
    """What was answered while the ledger was down joins the pool and the tenant's own entry."""
    store = Flaky()
    world = World(store)
    world.link("a", "b")
    service = world.another(on_ledger_failure="open")
    pool = world.tenant("a").pool
    for down, name in ((False, "x"), (True, "y"), (False, "z")):
        store.down = down
        service.answer(Ask(Account("a", "k", pool), tuple(texts(name, 1, 2)), "text"))
    asked = texts("x", 1, 2) + texts("y", 1, 2) + texts("z", 1, 2)
    for entry in (pool, "a"):
        assert world.sketch(entry).tobytes() == expected(asked)


@pytest.mark.parametrize("verb", ["link", "unlink", "pardon"])
def test_what_is_answered_on_old_pools_meanwhile_is_added(verb: str) -> None:
    """A server that has not noticed a change yet charges the old pool; nothing of it is lost."""
    world = World()
    world.ask("a", texts("a", 1, 2))
    world.ask("b", texts("b", 1, 2))
    world.ask("c", texts("c", 1, 2))
    if verb != "link":
        world.link("a", "b")
        world.link("a", "c")
    before = {name: world.tenant(name).pool for name in NAMES}

    def late(_: float) -> None:
        for name in NAMES:
            ask = Ask(Account(name, "k", before[name]), tuple(texts(name, 7, 8)), "text")
            world.service.answer(ask)

    world.links = Links(
        world.store,
        Archive(LAYOUT, None, GUARD.fingerprint),
        version="t/1",
        clock=lambda: 2.0,
        sleep=late,
    )
    if verb == "link":
        world.link("a", "b")
    elif verb == "unlink":
        world.links.unlink(world.tenant("a"))
    else:
        world.links.pardon(world.tenant("a"))
    joint = world.sketch(world.tenant("b").pool)
    for name in ("a", "b") if verb == "link" else ("b", "c"):
        own = world.sketch(name)
        assert np.array_equal(GUARD.merge(joint, own), joint)
        seen = GUARD.mark(own, ENCODER.embed(texts(name, 7, 8)))
        assert np.array_equal(seen, own)


def test_changes_of_a_tenant_meanwhile_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspension or a grant that comes between reading and moving is neither lost nor spent."""
    world = World()
    world.ask("b", texts("b", *range(9)))
    world.store.update_tenant(replace(world.tenant("b"), budget=20.0))
    real = world.store.move_tenants
    done: list[bool] = []

    def move(moves: Any) -> None:
        if not done:
            done.append(True)
            now = world.tenant("b")
            world.store.update_tenant(replace(now, suspended=True, budget=1009.0))
        real(moves)

    monkeypatch.setattr(world.store, "move_tenants", move)
    world.link("a", "b")
    found = world.tenant("b")
    assert (found.suspended, found.budget) == (True, 1009.0)
    assert found.pool == world.tenant("a").pool


def test_two_operators_at_once_end_with_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is made while another is being made takes all three together."""
    world = World()
    for name in NAMES:
        world.ask(name, texts(name, 1))
    real = world.store.move_tenants
    done: list[bool] = []

    def move(moves: Any) -> None:
        if not done:
            done.append(True)
            world.link("b", "c")
        real(moves)

    monkeypatch.setattr(world.store, "move_tenants", move)
    world.link("a", "b")
    (pool,) = {world.tenant(name).pool for name in NAMES}
    asked = [text for name in NAMES for text in texts(name, 1)]
    assert world.sketch(pool).tobytes() == expected(asked)


def test_parted_tenants_are_not_joined_through_a_third() -> None:
    """Who was parted by an operator is not linked again by what a third one asked."""
    world = World()
    world.ask("a", texts("x", *range(300)))
    world.ask("b", texts("y", *range(300)))
    world.link("a", "b")
    world.links.unlink(world.tenant("b"))
    world.ask("c", texts("x", *range(300)) + texts("y", *range(300)))
    world.links.link_overlapping(0.1)
    pools = {name: world.tenant(name).pool for name in NAMES}
    assert pools["a"] != pools["b"]
    assert pools["c"] in {pools["a"], pools["b"]}


def test_pools_of_an_earlier_version_become_pools_beside_entries() -> None:
    """Two tenants on the entry of one of them are found, and can be parted from then on."""
    world = World()
    world.ask("a", texts("a", 1))
    world.store.update_tenant(replace(world.tenant("b"), pool="a"))
    world.ask("b", texts("b", 1))
    world.links.unite_all()
    pool = world.tenant("a").pool
    assert pool == world.tenant("b").pool == "a/1"
    world.ask("b", texts("b", 2))
    world.links.unlink(world.tenant("b"))
    assert world.sketch("b").tobytes() == expected(texts("b", 1, 2))


@pytest.mark.parametrize("verb", ["pardon", "unlink"])
def test_verbs_on_the_owner_of_a_pool_of_an_earlier_version(verb: str) -> None:
    """Before any server has moved them apart, the other tenant keeps exactly what it asked."""
    world = World()
    world.ask("a", texts("a", 1))
    world.store.update_tenant(replace(world.tenant("b"), pool="a"))
    world.ask("b", texts("b", 1))
    getattr(world.links, verb)(world.tenant("a"))
    kept = LAYOUT.bitmap(world.sketch(world.tenant("b").pool))
    asked = LAYOUT.bitmap(np.frombuffer(expected(texts("b", 1)), np.uint8))
    assert np.array_equal(kept, asked)


def test_a_pardon_mends_a_damaged_state() -> None:
    """What cannot be read answers nobody until the tenant is pardoned; its spend stays."""
    world = World()
    world.ask("a", ["one"])
    entry = world.store.read(pool_key("a", GUARD.fingerprint))
    (record,) = world.store.records()
    world.store.commit(
        entry.pool, replace(record, charge=0.0, inputs=0), b"?", expected=entry.version
    )
    world.service = world.another()
    with pytest.raises(GuardError):
        world.ask("a", ["two"])
    world.links.pardon(world.tenant("a"))
    world.ask("a", ["two"])
    assert world.store.read(entry.pool).spent == entry.spent + 1
