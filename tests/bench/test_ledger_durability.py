"""Law 1 with a real server: kill -9 under load loses nothing a client received."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import numpy as np
import pytest

from tollkeeper.bench import ledger_durability
from tollkeeper.bench.experiment import Context
from tollkeeper.bench.ledger_durability import (
    TENANT,
    Setting,
    _lost,
    _Seen,
    _sketches,
    _wrong,
    measure,
)
from tollkeeper.gateway.admission import identity
from tollkeeper.gateway.assembly import guard_secret
from tollkeeper.gateway.pools import Deployment
from tollkeeper.gateway.settings import Settings
from tollkeeper.gateway.stores import open_stores
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.testing.encoders import hash_encoder


@pytest.mark.slow
def test_killed_servers_lose_nothing() -> None:
    """After each of 6 kills every received answer is in records and sketch, unchanged."""
    context = Context(seed=0, clock=time.perf_counter, progress=lambda *_: None)
    found = measure(Setting(kills=6, clients=4, longest_s=0.15), context)
    assert found.metrics["kills"].value == 6
    assert found.metrics["lost_charges"].value == 0
    assert found.metrics["wrong_answers"].value == 0
    assert found.diagnostics["answers"] >= 6
    assert found.diagnostics["repeats"] > 0


def test_losses_are_counted(tmp_path: Path) -> None:
    """The check itself can fail: answers the ledger does not know count as lost."""
    encoder = hash_encoder(16)
    calibration = Calibration.fit(
        encoder.embed([f"s {i}" for i in range(300)]), rng=np.random.default_rng(0)
    )
    path = tmp_path / "calibration"
    path.write_bytes(calibration.to_bytes())
    data_dir = tmp_path / "data"
    stores = open_stores(Settings(data_dir=data_dir), clock=lambda: 0.0)
    guard = Guard(
        profiles.get("cheapest"), calibration, secret=guard_secret(stores.master, encoder.name)
    )
    Deployment(encoder.name, 16, "cheapest", guard.fingerprint).save(data_dir)
    stores.store.close()
    seen = _Seen()
    seen.add(["a", "b"], ["x", "y"], "req_1")
    assert _lost(data_dir, path, "cheapest", encoder, seen)[1] == 3


def test_wrong_answers_are_counted() -> None:
    """An answer counts as right at any price level of its own question, and only there."""
    encoder = hash_encoder(16)
    calibration = Calibration.fit(
        encoder.embed([f"s {i}" for i in range(300)]), rng=np.random.default_rng(0)
    )
    guard = Guard(profiles.get("recommended"), calibration, secret=bytes(32))
    key = guard.tenant_key(TENANT)
    right: list[str] = []
    for sketch in _sketches(guard):
        verdict = guard.admit(
            sketch,
            encoder.embed(["a"]),
            key=key,
            rng=np.random.default_rng(1),
            identities=[identity("a", key)],
        )
        right.append(base64.b64encode(verdict.embeddings[0].tobytes()).decode())
    assert len(set(right)) == 5
    seen = _Seen()
    for answer in right:
        seen.add(["a"], [answer], "req")
    assert seen.repeats == 4
    assert _wrong(guard, encoder, seen) == 0
    seen.add(["b"], [right[0]], "req")
    assert _wrong(guard, encoder, seen) == 1


def test_the_experiment_is_registered() -> None:
    """The permanent id is in the table."""
    assert ledger_durability.EXPERIMENT.id == "ledger-durability"
