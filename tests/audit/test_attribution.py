"""Tracing: the tenant whose answers a copy has is named, innocent ones are not, whatever is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.audit.attribution import Attribution, TenantEvidence, TenantTrace, trace
from tollkeeper.bench.ownership.keyed_views import tenant_evidence
from tollkeeper.errors import AuditRefused
from tollkeeper.guard import Calibration, Guard, profiles
from tollkeeper.types import Batch, Embeddings

DIM, PROBES = 32, 400
SPREAD = np.geomspace(2, 0.05, DIM)
TENANTS = ("ada", "bob", "cy")


def rows(seed: int, n: int) -> Embeddings:
    """Return (n, 32) clean embeddings."""
    rng = np.random.default_rng(seed)
    return (0.2 + rng.standard_normal((n, DIM)) * SPREAD).astype(np.float32)


GUARD = Guard(
    profiles.CHEAPEST,
    Calibration.fit(rows(0, 400), rng=np.random.default_rng(0)),
    secret=b"secret of a deployment",
)
CLEAN = rows(1, PROBES)


class Copy:
    """A suspect that answers the probes with given rows."""

    name = "copy"
    accepts = frozenset({"text"})

    def __init__(self, answers: NDArray[Any]) -> None:
        """Answer with (n, d) rows."""
        self._answers = answers.astype(np.float32)
        self.dim = answers.shape[1]

    def embed(self, inputs: Batch) -> Embeddings:
        """Return all rows."""
        assert len(inputs) == PROBES
        return self._answers


def evidence(**options: Any) -> TenantEvidence:
    """Return the evidence of all tenants, all marked, that can name one at 5%."""
    given: dict[str, Any] = {"marked": TENANTS, "decoys": 199, "alpha": 0.05, **options}
    return tenant_evidence(GUARD, TENANTS, [f"probe {i}" for i in range(PROBES)], CLEAN, **given)


def served(tenant: str, seed: int = 0, wrong: float = 0.05) -> Embeddings:
    """Return what a copy of a tenant's answers gives: they, and an error in every direction."""
    clean = GUARD.view(CLEAN, key=GUARD.tenant_key(tenant), marked=True)
    bare = GUARD.view(CLEAN, key=GUARD.tenant_key(tenant))
    rng = np.random.default_rng(seed)
    error = rng.standard_normal(CLEAN.shape) * SPREAD * wrong
    turned = GUARD.view((CLEAN + error).astype(np.float32), key=GUARD.tenant_key(tenant))
    return clean + turned - bare


RNG = np.random.default_rng(9)
AFFINE = RNG.standard_normal((DIM, DIM))
ORDER = RNG.permutation(DIM)

OBFUSCATIONS: dict[str, Callable[[Embeddings], NDArray[Any]]] = {
    "permuted": lambda x: x[:, ORDER],
    "affine": lambda x: x @ AFFINE + 3,
    "padded": lambda x: np.concatenate([x, np.full((len(x), 8), 2.5)], axis=1),
    "scaled": lambda x: x * np.linspace(-2, 4, DIM) + 1,
    "cut": lambda x: x[:, 3:20],
}


def test_a_plain_copy_names_its_tenant_by_both_statistics() -> None:
    """The tenant whose answers were copied is first and alone."""
    found = trace(Copy(served("bob")), evidence())
    assert found.named == ("bob",)
    assert found.verdict == "derived"
    both = {one.statistic: one for one in found.findings if one.tenant == "bob"}
    assert both["coordinates"].p_value == both["mark"].p_value == 1 / 200
    assert both["coordinates"].effect > 0.8
    low, high = both["mark"].interval
    assert low < 1 < high
    assert both["mark"].effect > 0.5


@pytest.mark.parametrize("name", ["permuted", "affine", "padded", "scaled"])
def test_a_mark_survives_changes_of_basis(name: str) -> None:
    """Permuted, mixed, padded and scaled copies still name the tenant by the mark."""
    found = trace(Copy(OBFUSCATIONS[name](served("cy"))), evidence())
    assert found.named == ("cy",)
    first = next(one for one in found.findings if one.statistic == "mark")
    assert first.tenant == "cy"
    assert first.corrected <= found.alpha


def test_affine_maps_leave_the_mark_statistic_as_it_is() -> None:
    """The z-score of the mark is the same before and after an invertible affine map."""

    def z(rows: NDArray[Any]) -> float:
        found = trace(Copy(rows), evidence()).findings
        return next(one.z for one in found if (one.tenant, one.statistic) == ("ada", "mark"))

    plain = served("ada")
    assert z(plain @ AFFINE + 3) == pytest.approx(z(plain), rel=1e-2)


def test_colluders_are_both_named() -> None:
    """The average of two tenants' answers in one space carries half of either's mark."""

    def back(tenant: str) -> NDArray[Any]:
        x = served(tenant, wrong=0.02).astype(np.float64)
        design = np.c_[x, np.ones(len(x))]
        found: NDArray[Any] = design @ np.linalg.lstsq(design, CLEAN, rcond=None)[0]
        return found

    found = trace(Copy((back("ada") + back("cy")) / 2), evidence())
    assert set(found.named) == {"ada", "cy"}
    effects = {one.tenant: one.effect for one in found.findings if one.statistic == "mark"}
    assert 0.25 < effects["ada"] < 0.75


def test_p_values_of_innocent_tenants_are_uniform() -> None:
    """Over 80 copies of the answers to somebody else, ranks are spread as chance spreads them."""
    values = []
    some = evidence(decoys=99, alpha=0.5)
    for seed in range(20):
        found = trace(Copy(served(f"stranger-{seed}", seed)), some)
        values += [one.p_value for one in found.findings]
    kept = np.asarray(values)
    # The findings of one suspect are nearly independent; 4 deviations of a mean of 120.
    assert abs(kept.mean() - 0.5) < 4 * 0.29 / np.sqrt(kept.size)
    assert (kept <= 0.05).mean() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / kept.size)


def test_the_victim_itself_names_nobody() -> None:
    """An encoder without any tenant's secrets is inconclusive."""
    found = trace(Copy(CLEAN @ AFFINE), evidence())
    assert found.named == ()
    assert found.verdict == "inconclusive"


def test_unmarked_tenants_are_traced_by_coordinates_alone() -> None:
    """Without marks a copy is named whatever the order, but not once its numbers are mixed."""
    bare = evidence(marked=())
    for change in ("permuted", "padded", "scaled", "cut"):
        assert trace(Copy(OBFUSCATIONS[change](served("bob"))), bare).named == ("bob",), change
    mixed = trace(Copy(OBFUSCATIONS["affine"](served("bob"))), bare)
    assert mixed.named == ()
    assert {one.statistic for one in mixed.findings} == {"coordinates"}


def test_the_ownership_result_is_of_the_first_finding() -> None:
    """The p-value is corrected for all tenants and statistics; details hold them all."""
    result = TenantTrace().run(Copy(served("ada")), evidence(), rng=np.random.default_rng(0))
    assert result.null == "key"
    assert result.p_value == 9 / 200
    assert len(result.null_distribution) == 199
    assert "tenant ada" in result.alternative
    assert len(result.details) == 27


def test_repeats_are_equal() -> None:
    """Nothing in a trace is random."""
    one, two = (trace(Copy(served("ada")), evidence()) for _ in range(2))
    assert isinstance(one, Attribution)
    assert one.findings == two.findings


def _changed(**changes: Any) -> TenantEvidence:
    return dataclasses.replace(evidence(), **changes)


@pytest.mark.parametrize(
    ("suspect", "given", "told"),
    [
        (served("ada"), _changed(tenants={}), "at least one tenant"),
        (served("ada"), _changed(decoys=99), "at least 179 decoys"),
        (served("ada"), _changed(inputs=["same"] * PROBES), "are there twice"),
        (served("ada"), _changed(clean=CLEAN[:-1]), "expected clean embeddings of 400"),
        (served("ada") * np.nan, evidence(), "NaN"),
        (np.zeros((PROBES, DIM)), evidence(), "all zeros"),
        (np.tile(served("ada"), 6), evidence(), "at least 448 probes"),
    ],
    ids=["nobody", "decoys", "twice", "clean", "nan", "zeros", "wide"],
)
def test_what_cannot_be_traced_is_refused(
    suspect: NDArray[Any], given: TenantEvidence, told: str
) -> None:
    """A refusal names the reason and says nothing about guilt."""
    with pytest.raises(AuditRefused, match=told):
        trace(Copy(suspect), given)
