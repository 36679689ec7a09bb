"""The operator's verbs: linking unites sketches and spend, and a retry never loses any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.errors import ConfigurationError, ConflictError
from tollkeeper.gateway import server
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.settings import Settings
from tollkeeper.guard.calibration import Calibration
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
    stores = server.open_stores(settings, clock=lambda: 1.0)
    gateway = server.Gateway(
        settings, stores, encoder=encoder, clock=lambda: 1.0, rng=np.random.default_rng(0)
    )
    for tenant in ("a", "b", "c"):
        stores.keyring.create(tenant)
    yield gateway, server.make_operator(settings, stores, clock=lambda: 2.0)
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
    assert {report.pool for report in reports.values()} == {"a"}
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
    asks(gateway, "b", "a", ["1", "2", "3", "4"])
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


def test_another_master_key_is_refused(tmp_path: Path) -> None:
    """A ledger opened with a lost or foreign master key is refused instead of re-keyed."""
    settings = Settings(data_dir=tmp_path)
    server.open_stores(settings, clock=lambda: 0.0).store.close()
    server.open_stores(settings, clock=lambda: 0.0).store.close()
    (tmp_path / "master.key").unlink()
    with pytest.raises(ConfigurationError, match="another master key"):
        server.open_stores(settings, clock=lambda: 0.0)
    elsewhere = Settings(data_dir=tmp_path / "other", ledger=settings.ledger_url)
    with pytest.raises(ConfigurationError, match="another master key"):
        server.open_stores(elsewhere, clock=lambda: 0.0)


@pytest.mark.parametrize("inputs", [0, -1, float("nan")])
def test_grants_are_positive(parts: Any, inputs: float) -> None:
    """A grant of nothing is refused."""
    with pytest.raises(ConfigurationError):
        parts[1].grant("a", inputs)


def test_unknown_names(parts: Any) -> None:
    """Verbs on tenants and keys that do not exist say so."""
    _, operator = parts
    for act in (operator.suspend, operator.resume, operator.tenant, operator.revoke_key):
        with pytest.raises(ConfigurationError, match="there is no"):
            act("nobody")
    with pytest.raises(ConfigurationError):
        operator.link("a", "nobody")
