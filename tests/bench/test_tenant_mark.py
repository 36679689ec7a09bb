"""Parts of `tenant-mark`: colluders' averages, truncation, who leaks, and what counts as false."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tollkeeper.audit.attribution import Attribution, Finding, Statistic
from tollkeeper.bench.ownership.leaking import DEFENSES, Averaged, Truncation
from tollkeeper.bench.ownership.tenant_mark import EXPERIMENT, SMOKE, Job, Setting, _jobs, _rates
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.guard import Calibration, Guard
from tollkeeper.types import Batch, Embeddings

pytestmark = pytest.mark.torch

STAGE: Payload[Any] = Payload(Path("nowhere"))


class Turned:
    """An account that sees three numbers through a matrix."""

    name, dim, accepts = "turned", 3, frozenset({"text"})

    def __init__(self, matrix: Any) -> None:
        """Look through (3, 3)."""
        self._matrix = matrix

    def embed(self, inputs: Batch) -> Embeddings:
        """Return what is seen of inputs that are rows of three numbers."""
        seen: Embeddings = (np.asarray(inputs) @ self._matrix).astype(np.float32)
        return seen


def test_averaged_answers_are_in_the_first_accounts_space() -> None:
    """Accounts that see one space through different maps average to the first one's view."""
    rng = np.random.default_rng(0)
    accounts = [Turned(rng.standard_normal((3, 3))) for _ in range(3)]
    rows = rng.standard_normal((40, 3))
    averaged = Averaged(accounts, rows[:20])
    np.testing.assert_allclose(averaged.embed(rows), accounts[0].embed(rows), atol=1e-4)
    assert averaged.dim == 3


def test_truncation_drops_what_varies_least() -> None:
    """Of three independent directions the weakest is gone, and the others are as they were."""
    rng = np.random.default_rng(1)
    rows = (rng.standard_normal((500, 3)) * [3, 1, 0.05]).astype(np.float32)
    change = Truncation(0.99)(rows, rng)
    kept = change(rows)
    assert kept[:, 2].std() < 0.02
    np.testing.assert_allclose(kept[:, 0] - kept[:, 0].mean(), rows[:, 0], atol=0.3)
    assert np.linalg.matrix_rank(kept, tol=1e-3) == 2


def test_keys_are_the_same_above_and_below_the_knee() -> None:
    """A trace needs not know whether a thief met noise: views and marks are of one version."""
    sample = np.random.default_rng(2).standard_normal((300, 16)).astype(np.float32)
    calibration = Calibration.fit(sample, rng=np.random.default_rng(0))
    views = [
        guard.view(sample, key=guard.tenant_key("a"), marked=True)
        for guard in (
            Guard(profile, calibration, secret=bytes(range(16))) for profile in DEFENSES.values()
        )
    ]
    assert views[0].tobytes() == views[1].tobytes()


def test_every_kind_of_copy_leaks_as_often() -> None:
    """Groups differ in nothing but what they say; the copies that are probed are of one group."""
    setting = Setting()
    jobs = list(_jobs(STAGE, setting, 0))
    groups = [job.group for job in jobs if job.tenants]
    assert {groups.count(one) for one in groups} == {setting.leaks}
    assert "below.mse.b8000" in groups
    assert "above.mse_of_2.b2000" in groups
    assert len([job for job in jobs if job.probed]) == 1
    assert sum(not job.tenants for job in jobs) == setting.strangers


def attribution(*named: str, statistic: Statistic = "mark") -> Attribution:
    """Return a trace that names some tenants, of three."""
    findings = [
        Finding(name, statistic, 5.0, 0.001, 0.003, 1.0, (0.5, 1.5))
        if name in named
        else Finding(name, statistic, 0.0, 0.5, 1.0, 0.0, (-0.5, 0.5))
        for name in ("a", "b", "c")
    ]
    return Attribution(tuple(findings), 0.01)


def job(*tenants: str) -> Job:
    """Return a job of some tenants."""
    group = "below.mse.b9" if tenants else ""
    return Job(STAGE, SMOKE, group, "below", "mse", tenants, 9, 0, 0)


def test_naming_an_innocent_tenant_is_false_whoever_else_is_named() -> None:
    """A copy is attributed if somebody is named and nobody else; strangers have nobody to name."""
    found = [
        {"none": attribution("a")},
        {"none": attribution("a", "b")},
        {"none": attribution()},
        {"none": attribution("c")},
    ]
    rates = _rates([job("a"), job("a"), job("a"), job()], found)
    assert rates["attributed.below.mse.b9.none"].value == pytest.approx(1 / 3)
    assert rates["unmarked.below.mse.b9.none"].value == 0
    copies, strangers = (rates[f"false_attribution_rate.{one}"] for one in ("copies", "strangers"))
    assert copies.value == pytest.approx(1 / 3)
    assert strangers.value == 1


def test_coordinates_are_enough_where_they_are() -> None:
    """What needs no mark is counted apart."""
    found = [{"none": attribution("a", statistic="coordinates")}]
    assert _rates([job("a")], found)["unmarked.below.mse.b9.none"].value == 1


def test_scales_can_name_a_tenant() -> None:
    """Decoys suffice for all tenants and statistics at every scale."""
    for setting in EXPERIMENT.scales.values():
        assert setting.alpha * (setting.decoys + 1) >= 3 * setting.tenants
