"""Which tenant leaked: whose answers a copy was trained on.

A guard shows each tenant the embeddings through secrets of the tenant's key: its transform, and
its mark if it is marked. A suspect that was made without a tenant's answers is independent of
that key, wherever else it comes from; so the key is exchangeable with decoys, keys that were
derived in the same way and never issued. The rank of a tenant among decoys is an exact p-value.

Two statistics are ranked. `coordinates`: how well each number of the suspect's answers is matched
by one of those that the tenant was served, whatever its place, sign, scale and offset; strong, and
lost once numbers are mixed. `mark`: how much of
the tenant's folds is in what no affine map of the clean embeddings explains; it is the same for
every invertible affine map of the suspect's outputs. `paid_mark`: the same of the part that is in
noise, of 1 where noise is one feature standard deviation.

Sources: ours; exact nulls of decoy keys after section 5.5 of the method spec.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import gates
from tollkeeper.audit.base import OwnershipResult, Verdict
from tollkeeper.audit.two_sample import Z_99
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch, Embeddings

DECOYS: Final = 9999

Statistic = Literal["coordinates", "mark", "paid_mark"]

_FLAT = 1e-10
"""Residual directions whose variance is below this share of the largest are rounding."""

_TIE = 1e-9

_TINY = 1e-30

_ROUNDING = 1e-6

_MATCHED = 512
"""Probes that coordinates are matched on; more would change little and cost d**2 each."""


@dataclass(frozen=True, slots=True)
class KeyedView:
    """What one key makes of clean embeddings.

    Attributes:
        answers: (n, d) clean embeddings to (n, d') what the key's tenant is served.
        folds: (n, d) to (n, k) of the key's mark; None where the tenant is not marked.
    """

    answers: Callable[[Embeddings], Embeddings]
    folds: Callable[[Embeddings], Embeddings] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TenantEvidence:
    """What the owner of a guarded encoder holds.

    Attributes:
        inputs: n probes, that the suspect is asked; whoever asked them before does not matter.
        clean: (n, d) the victim's own embeddings of them.
        tenants: whom the copy may come from, by name.
        decoy: view of the key of a number, a key that was never issued; it is marked where any
            tenant is.
        directions: (k, d) along which folds displace embeddings, below the knee and in noise;
            none where nobody is marked.
        decoys: how many; the least p-value is 1 / (decoys + 1) before correction.
        alpha: at which a tenant is named, after correction.
    """

    inputs: Batch
    clean: Embeddings
    tenants: Mapping[str, KeyedView]
    decoy: Callable[[int], KeyedView]
    directions: Mapping[Statistic, NDArray[np.float32]] = field(default_factory=dict)
    decoys: int = DECOYS
    alpha: float = gates.ALPHA


@dataclass(frozen=True, slots=True)
class Finding:
    """One statistic of one tenant.

    Attributes:
        tenant: its name.
        statistic: which.
        z: standard deviations of the decoys above their mean.
        p_value: exact, of this tenant and statistic alone.
        corrected: times the number of tenants and statistics (Bonferroni), at most 1.
        effect: 0 by chance. `coordinates`: 1 where every number is one that was served; `mark`:
            share of the mark that is in the suspect, 1 where all of it is.
        interval: 99% of the effect, by the spread of the decoys.
    """

    tenant: str
    statistic: Statistic
    z: float
    p_value: float
    corrected: float
    effect: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """What a suspect shows of all tenants.

    Attributes:
        findings: the smallest p-value first, and of equal ones the largest z.
        alpha: no more than this is the chance that any tenant is named whose answers the
            suspect was not made from.
        null: decoys' values of the first finding's statistic.
    """

    findings: tuple[Finding, ...]
    alpha: float
    null: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def named(self) -> tuple[str, ...]:
        """Tenants whose answers the copy was made from, as far as is known."""
        found = [one.tenant for one in self.findings if one.corrected <= self.alpha]
        return tuple(dict.fromkeys(found))

    @property
    def verdict(self) -> Verdict:
        """What a report may say."""
        return "derived" if self.named else "inconclusive"


class TenantTrace:
    """The ownership test: was the suspect made from answers to any of the tenants?"""

    name = "tenant-trace"

    def run(
        self, suspect: Encoder, evidence: TenantEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect and test; the p-value is corrected for tenants and statistics.

        Args:
            suspect: anything that embeds the probes.
            evidence: of the owner.
            rng: not used; decoys are keys, and keys are derived.

        Raises:
            AuditRefused: see `trace`.
        """
        del rng
        found = trace(suspect, evidence)
        first = found.findings[0]
        return OwnershipResult(
            test=self.name,
            null="key",
            statistic=first.z,
            p_value=first.corrected,
            effect_size=first.effect,
            interval=first.interval,
            null_distribution=found.null,
            alternative=f"the suspect was made from answers to tenant {first.tenant}",
            details={
                f"{what}.{one.statistic}.{one.tenant}": value
                for one in found.findings
                for what, value in (("p", one.p_value), ("z", one.z), ("effect", one.effect))
            },
        )


def trace(suspect: Encoder, evidence: TenantEvidence) -> Attribution:
    """Rank every tenant among decoys.

    Raises:
        AuditRefused: nobody to trace, probes that are there twice, too few of them or of decoys,
            or embeddings that are NaN, zeros or of the wrong number.
    """
    return trace_all([suspect], evidence)[0]


def trace_all(suspects: Sequence[Encoder], evidence: TenantEvidence) -> list[Attribution]:
    """Trace several suspects, for which decoys are made once; the level holds for each alone.

    Raises:
        AuditRefused: see `trace`.
    """
    _check_evidence(evidence)
    tests = [_tests(suspect, evidence) for suspect in suspects]
    nulls = iter(_nulls([one for some in tests for one in some], evidence))
    return [_attribution(some, evidence, nulls) for some in tests]


def _attribution(
    tests: Sequence[_Coordinates | _Mark],
    evidence: TenantEvidence,
    nulls: Iterator[NDArray[np.float64]],
) -> Attribution:
    """Return what one suspect's tests show; takes as many nulls as there are tests."""
    count = sum(len(one.tenants(evidence)) for one in tests)
    pairs = [
        (_found(one, tenant, evidence, null, count=count), null)
        for one, null in zip(tests, nulls, strict=False)
        for tenant in one.tenants(evidence)
    ]
    pairs.sort(key=lambda pair: (pair[0].p_value, -pair[0].z))
    return Attribution(tuple(found for found, _ in pairs), evidence.alpha, pairs[0][1])


def _check_evidence(evidence: TenantEvidence) -> None:
    if not evidence.tenants:
        raise AuditRefused("expected at least one tenant to trace, got none")
    if len(evidence.inputs) != len(evidence.clean):
        raise AuditRefused(
            f"expected clean embeddings of {len(evidence.inputs)} probes, got {len(evidence.clean)}"
        )
    gates.check_samples(len(evidence.inputs), what="probes")
    gates.check_distinct(evidence.inputs, "probes")
    gates.check_embeddings(evidence.clean, rows=len(evidence.inputs), width=None, who="the victim")


class _Coordinates:
    """How well each of the suspect's numbers is matched by one that a key's tenant was served."""

    name: Statistic = "coordinates"

    def __init__(self, rows: Embeddings) -> None:
        whole = _standardized(rows[:_MATCHED])
        # Constants, as of padding, match nothing and say nothing.
        self._rows = np.ascontiguousarray(whole[:, whole.any(axis=0)].T)

    def tenants(self, evidence: TenantEvidence) -> Mapping[str, KeyedView]:
        """Everyone is served."""
        return evidence.tenants

    def __call__(self, view: KeyedView, clean: Embeddings) -> float:
        """Return the mean over the suspect's coordinates of the largest squared correlation."""
        served = _standardized(view.answers(clean[:_MATCHED]))
        correlations = self._rows @ served / len(served)
        best = np.square(correlations).max(axis=1, initial=0.0)
        return float(best.mean(dtype=np.float64)) if len(best) else 0.0

    def whole(self, view: KeyedView, clean: Embeddings, chance: float) -> float:  # noqa: ARG002
        """Return how far above chance a perfect match is."""
        return 1.0 - chance


def _standardized(rows: Embeddings) -> Embeddings:
    """Return (n, d) columns of mean 0 and variance 1, and zeros where a column is constant."""
    centered = rows - rows.mean(axis=0, dtype=np.float64)
    sizes = centered.std(axis=0)
    flat = sizes <= _ROUNDING * np.abs(rows).max(axis=0)
    sizes[flat], centered[:, flat] = 1, 0
    scaled: Embeddings = (centered / sizes).astype(np.float32)
    return scaled


class _Mark:
    """A key's folds in what no affine map of the clean embeddings explains.

    With E the residuals (n, s) of the suspect's embeddings after regression on the clean ones, B
    the slopes (d, s), and C the covariance of E, the matched filter of folds F is
    tr(F' E C^-1 B' G'); an affine map of the suspect's outputs cancels in it.
    """

    def __init__(
        self,
        name: Statistic,
        rows: Embeddings,
        clean: Embeddings,
        directions: NDArray[np.float32],
    ) -> None:
        self.name = name
        wide = clean.astype(np.float64)
        self._basis = _basis(wide)
        centered = wide - wide.mean(axis=0)
        suspect = rows.astype(np.float64)
        residuals = suspect - self._basis @ (self._basis.T @ suspect)
        slopes = np.linalg.lstsq(centered, suspect - suspect.mean(axis=0), rcond=None)[0]
        # Directions of no variance, as padding has, are left out.
        values, vectors = np.linalg.eigh(residuals.T @ residuals / len(rows))
        kept = values > _FLAT * max(float(values[-1]), _TINY)
        whitening = vectors[:, kept] / np.sqrt(values[kept])
        self._arms = directions.astype(np.float64) @ slopes @ whitening
        self._filter = (residuals @ whitening) @ self._arms.T

    def tenants(self, evidence: TenantEvidence) -> Mapping[str, KeyedView]:
        """Those who are marked."""
        return {name: view for name, view in evidence.tenants.items() if view.folds is not None}

    def __call__(self, view: KeyedView, clean: Embeddings) -> float:
        """Return the matched filter."""
        assert view.folds is not None, "a decoy of marked tenants is marked"
        return float(np.vdot(view.folds(clean), self._filter))

    def whole(self, view: KeyedView, clean: Embeddings, chance: float) -> float:  # noqa: ARG002
        """Return what the filter gives where the whole mark is in the suspect."""
        assert view.folds is not None
        folds = view.folds(clean).astype(np.float64)
        bent = folds - self._basis @ (self._basis.T @ folds)
        return float(np.square(bent @ self._arms).sum())


def _basis(clean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, r) an orthonormal basis of the affine functions of (n, d) embeddings."""
    left, sizes, _ = np.linalg.svd(clean - clean.mean(axis=0), full_matrices=False)
    kept = left[:, sizes > math.sqrt(_FLAT) * sizes[0]]
    constant = np.full((len(clean), 1), 1 / math.sqrt(len(clean)))
    found: NDArray[np.float64] = np.concatenate([constant, kept], axis=1)
    return found


def _tests(suspect: Encoder, evidence: TenantEvidence) -> list[_Coordinates | _Mark]:
    """Ask a suspect, and return the statistics that can be computed of it."""
    rows = np.asarray(suspect.embed(evidence.inputs), np.float32)
    gates.check_embeddings(rows, rows=len(evidence.clean), width=suspect.dim, who=suspect.name)
    tests: list[_Coordinates | _Mark] = [_Coordinates(rows)]
    marked = any(view.folds is not None for view in evidence.tenants.values())
    if marked:
        least = 2 * (evidence.clean.shape[1] + suspect.dim)
        gates.check_samples(len(rows), least=least, what="probes, for marks at these widths,")
        tests += [
            _Mark(name, rows, evidence.clean, some) for name, some in evidence.directions.items()
        ]
    _check_decoys(evidence, sum(len(one.tenants(evidence)) for one in tests))
    return tests


def _check_decoys(evidence: TenantEvidence, count: int) -> None:
    """Refuse so few decoys that no tenant could be named, whatever `count` tests show."""
    if count > evidence.alpha * (evidence.decoys + 1):
        least = math.ceil(count / evidence.alpha) - 1
        raise AuditRefused(
            f"expected at least {least} decoys to name one of {len(evidence.tenants)} tenants at "
            f"{evidence.alpha}, got {evidence.decoys}; ask for more decoys or fewer tenants"
        )


def _nulls(
    tests: list[_Coordinates | _Mark], evidence: TenantEvidence
) -> list[NDArray[np.float64]]:
    """Return the decoys' values of each statistic, (decoys,)."""
    found = np.empty((len(tests), evidence.decoys))
    for number in range(evidence.decoys):
        view = evidence.decoy(number)
        for at, one in enumerate(tests):
            found[at, number] = one(view, evidence.clean)
    return list(found)


def _found(
    test: _Coordinates | _Mark,
    tenant: str,
    evidence: TenantEvidence,
    null: NDArray[np.float64],
    *,
    count: int,
) -> Finding:
    view = evidence.tenants[tenant]
    mean, spread = float(null.mean()), float(null.std(ddof=1))
    value, whole = test(view, evidence.clean), test.whole(view, evidence.clean, mean)
    tie = _TIE * max(spread, abs(value))
    p_value = (1 + int((null >= value - tie).sum())) / (len(null) + 1)
    effect, half = ((value - mean) / whole, Z_99 * spread / whole) if whole > 0 else (0.0, 0.0)
    return Finding(
        tenant,
        test.name,
        (value - mean) / spread if spread > 0 else 0.0,
        p_value,
        min(1.0, count * p_value),
        effect,
        (effect - half, effect + half),
    )
