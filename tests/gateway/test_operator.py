"""The operator's verbs: linking unites sketches and spend, and a retry never loses any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.errors import ConfigurationError, ConflictError, LedgerError, UnknownNameError
from tollkeeper.gateway import server
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.assembly import operator_of
from tollkeeper.gateway.links import LINKS, SETTLE_S
from tollkeeper.gateway.plans import Plans, Scale
from tollkeeper.gateway.pools import Deployment
from tollkeeper.gateway.settings import Settings
from tollkeeper.gateway.stores import open_stores
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.windows import DAY_S
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.types import Account


@pytest.fixture
def parts(tmp_path: Path) -> Any:
    """A gateway that is not started, and the operator of its data directory."""
    encoder = hash_encoder(8)
    path = tmp_path / "c.tk"
    sample = encoder.embed([f"s{i}" for i in range(64)])
    path.write_bytes(Calibration.fit(sample, rng=np.random.default_rng(0)).to_bytes())
    settings = Settings(data_dir=tmp_path / "d", profile="cheapest", calibration=path)
    stores = open_stores(settings, clock=lambda: 1.0)
    gateway = server.Gateway(
        settings, stores, encoder=encoder, clock=lambda: 1.0, rng=np.random.default_rng(0)
    )
    for tenant in ("a", "b", "c"):
        stores.keyring.create(tenant)
    yield (
        gateway,
        operator_of(
            settings,
            stores,
            Deployment.load(settings.data_dir),
            clock=lambda: 2.0,
            sleep=lambda _: None,
        ),
    )
    stores.store.close()


def asks(gateway: Any, tenant: str, pool: str, texts: list[str]) -> None:
    """Let a tenant ask texts."""
    gateway.service.answer(Ask(Account(tenant, "k", pool), tuple(texts), "text"))


def test_link_unites_sketches_and_spend(parts: Any) -> None:
    """After linking, both tenants and those linked before share union, spend and queries."""
    gateway, operator = parts
    asks(gateway, "a", "a", ["1", "2"])
    asks(gateway, "b", "b", ["2", "3", "4"])
    operator.link("b", "c")
    operator.link("a", "b")
    reports = {report.name: report for report in operator.tenants()}
    assert {report.pool for report in reports.values()} == {"a/1"}
    guard = gateway.service.guard
    union = guard.admit(
        guard.empty(),
        hash_encoder(8).embed(["1", "2", "3", "4"]),
        key=bytes(32),
        rng=np.random.default_rng(0),
    )
    assert reports["b"].coverage == pytest.approx(guard.fraction(union.sketch))
    assert reports["c"].queries == 5
    before = reports["a"].spent
    asks(gateway, "b", "a/1", ["1", "2", "3", "4"])
    assert operator.tenant("a").spent == before


def test_link_retries_until_the_union_is_stored(parts: Any, monkeypatch: Any) -> None:
    """Conflicts are retried inside, and if they never end nothing has changed."""
    gateway, operator = parts
    asks(gateway, "b", "b", ["1", "2"])
    store = gateway.store
    real, failures = store.commit, [2]

    def busy(pool: str, *rest: Any, **options: Any) -> Any:
        if failures[0]:
            failures[0] -= 1
            raise ConflictError(pool, expected=0, found=1)
        return real(pool, *rest, **options)

    monkeypatch.setattr(store, "commit", busy)
    failures[0] = 10**6
    with pytest.raises(ConflictError):
        operator.link("a", "b")
    assert operator.tenant("b").pool == "b"
    failures[0] = 2
    operator.link("a", "b")
    assert operator.tenant("a").queries == 2


def test_link_waits_for_the_servers_and_adds_what_came_in_late(
    parts: Any, monkeypatch: Any
) -> None:
    """What is answered on the old pool until servers notice joins the union, once."""
    gateway, operator = parts
    slept = []

    def late(seconds: float) -> None:
        slept.append(seconds)
        asks(gateway, "b", "b", ["4"])

    asks(gateway, "a", "a", ["1"])
    asks(gateway, "b", "b", ["2", "3"])
    monkeypatch.setattr(operator, "_sleep", late)
    operator.link("a", "b")
    assert slept == [SETTLE_S]
    assert SETTLE_S > 2 * server.STANDING_POLL_S
    assert operator.tenant("a").queries == operator.tenant("b").queries == 4
    before = operator.tenant("a")
    asks(gateway, "a", "a/1", ["2", "3", "4"])
    after = operator.tenant("a")
    assert (after.spent, after.coverage) == (before.spent, before.coverage)


def test_a_repeated_link_counts_nothing_twice(parts: Any) -> None:
    """A link can be repeated, also after its records were pruned, and changes nothing."""
    gateway, operator = parts
    asks(gateway, "a", "a", ["1"])
    asks(gateway, "b", "b", ["2", "3"])
    operator.link("a", "b")
    linked = operator.tenants()
    operator.link("a", "b")
    assert operator.tenants() == linked
    assert gateway.store.prune(10.0) == 3
    operator.link("a", "b")
    operator.link("b", "a")
    assert operator.tenants() == linked
    assert not list(operator.records(tenant=LINKS))


@pytest.mark.parametrize("survived", range(3))
def test_a_link_that_died_is_finished_by_repeating_it(
    parts: Any, monkeypatch: Any, survived: int
) -> None:
    """Wherever a link is interrupted, the next one leads to the same totals."""
    gateway, operator = parts
    asks(gateway, "a", "a", ["1"])
    asks(gateway, "b", "b", ["2", "3"])
    operator.link("b", "c")
    left = [survived]

    def dying(act: Any) -> Any:
        def step(*given: Any, **named: Any) -> Any:
            if not left[0]:
                raise LedgerError("the machine went down")
            left[0] -= 1
            return act(*given, **named)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(gateway.store, "commit", dying(gateway.store.commit))
        patch.setattr(gateway.store, "move_tenants", dying(gateway.store.move_tenants))
        patch.setattr(operator, "_sleep", dying(operator._sleep))
        with pytest.raises(LedgerError):
            operator.link("a", "c")
    operator.link("a", "c")
    reports = operator.tenants()
    (pool,) = {report.pool for report in reports}
    assert {report.queries for report in reports} == {3}
    asks(gateway, "a", pool, ["1", "2", "3"])
    assert operator.tenant("c").spent == reports[0].spent


def test_pruning_counts_in_days(parts: Any) -> None:
    """Records older than so many days go, newer ones and the totals stay."""
    gateway, operator = parts
    asks(gateway, "a", "a", ["1"])  # at second 1, seen from second 2
    assert operator.prune(2 / DAY_S) == 0
    assert operator.prune(0.5 / DAY_S) == 1
    assert operator.tenant("a").queries == 1
    for days in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError):
            operator.prune(days)


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "a\nb", "x" * 201, "\ud800"])
def test_names_that_no_path_can_hold(parts: Any, name: str) -> None:
    """A tenant that the admin plane could not address is not made."""
    with pytest.raises(ConfigurationError, match="tenant name"):
        parts[1].create_key(name)


def test_another_master_key_is_refused(tmp_path: Path) -> None:
    """A ledger opened with a lost or foreign master key is refused instead of re-keyed."""
    settings = Settings(data_dir=tmp_path)
    open_stores(settings, clock=lambda: 0.0).store.close()
    open_stores(settings, clock=lambda: 0.0).store.close()
    (tmp_path / "master.key").rename(tmp_path / "backup")
    with pytest.raises(ConfigurationError, match=r"master\.key is missing"):
        open_stores(settings, clock=lambda: 0.0)
    assert not (tmp_path / "master.key").exists()
    (tmp_path / "master.key").write_text("ab" * 32)
    with pytest.raises(ConfigurationError, match="another master key"):
        open_stores(settings, clock=lambda: 0.0)
    elsewhere = Settings(data_dir=tmp_path / "other", ledger=settings.ledger_url)
    with pytest.raises(ConfigurationError, match=r"master\.key is missing"):
        open_stores(elsewhere, clock=lambda: 0.0)
    assert not (tmp_path / "other" / "master.key").exists()


@pytest.mark.parametrize("inputs", [0, -1, float("nan")])
def test_grants_are_positive(parts: Any, inputs: float) -> None:
    """A grant of nothing is refused."""
    with pytest.raises(ConfigurationError):
        parts[1].grant("a", inputs)


def test_unknown_names(parts: Any) -> None:
    """Verbs on tenants and keys that do not exist say so."""
    _, operator = parts
    for act in (operator.suspend, operator.resume, operator.tenant, operator.revoke_key):
        with pytest.raises(UnknownNameError, match="there is no"):
            act("nobody")
    with pytest.raises(UnknownNameError):
        operator.link("a", "nobody")


def test_budgets_survive_linking(parts: Any) -> None:
    """A tenant that joins a busy pool keeps what was left of its budget; so does the other."""
    gateway, operator = parts
    asks(gateway, "a", "a", [f"a{i}" for i in range(9)])
    asks(gateway, "b", "b", ["b0", "b1"])
    spent = {name: operator.tenant(name).spent for name in "ab"}
    operator.grant("a", 5)
    operator.grant("b", 3)
    operator.link("a", "b")
    joint = operator.tenant("a").spent
    assert joint == spent["a"] + spent["b"]
    assert operator.tenant("a").budget == joint + 5
    assert operator.tenant("b").budget == joint + 3


def test_a_budget_can_be_taken_away(parts: Any) -> None:
    """Granting without end leaves a tenant without a budget."""
    _, operator = parts
    operator.grant("a", 5)
    operator.grant("a", float("inf"))
    assert operator.tenant("a").budget is None


def test_a_report_says_what_a_new_input_meets(parts: Any, monkeypatch: Any) -> None:
    """Free below the knee, paying above it, refused at a ceiling that is enforced, suspended."""
    gateway, operator = parts
    assert operator.tenant("a").standing == "free"
    asks(gateway, "a", "a", [f"text {number}" for number in range(60)])
    assert operator.tenant("a").standing == "pays"
    monkeypatch.setattr(operator, "plans", Plans({}, "guard", Scale(0.05, 0.1, refuses=True)))
    assert operator.tenant("a").standing == "refused"
    monkeypatch.setattr(operator, "plans", Plans({}, "guard", Scale(0.05, 0.1, refuses=False)))
    assert operator.tenant("a").standing == "pays"
    operator.suspend("a")
    assert operator.tenant("a").standing == "suspended"


def test_an_operator_sees_what_is_left_of_an_allowance(parts: Any) -> None:
    """What a server used of it, whoever asks: the store of used proofs knows."""
    gateway, _ = parts
    operator = gateway._operator
    assert operator.tenant("a").grant_left is None
    operator.allow("a", 10, 1.0)
    grant = gateway.store.find_tenant("a").grant
    gateway.service.answer(Ask(Account("a", "k", "a", grant=grant), ("x", "y"), "text"))
    assert operator.tenant("a").grant_left == 8
