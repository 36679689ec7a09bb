"""What a guard's keys make of embeddings, as evidence of who leaked; see `audit.attribution`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial

from tollkeeper.audit.attribution import DECOYS, KeyedView, TenantEvidence
from tollkeeper.audit.gates import ALPHA
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Batch, Embeddings


def tenant_evidence(
    guard: Guard,
    tenants: Iterable[str],
    inputs: Batch,
    clean: Embeddings,
    *,
    marked: Collection[str] = (),
    dimensions: int | None = None,
    versions: int = 1,
    decoys: int = DECOYS,
    alpha: float = ALPHA,
) -> TenantEvidence:
    """Collect what the owner of a guard knows of its tenants.

    Args:
        guard: whose secret all keys come from.
        tenants: who may have leaked.
        inputs: n probes.
        clean: (n, d) the guarded encoder's own embeddings of them.
        marked: tenants whose answers carry a mark.
        dimensions: width that tenants asked for; None is d.
        versions: key versions there have been; beyond one, `acme#2` is the second of `acme`.
        decoys: how many.
        alpha: at which a tenant is named.

    Raises:
        GuardError: the guard cannot mark, or `dimensions` does not fit it.
    """
    marked = frozenset(marked)

    def view(tenant: str, version: int, *, bent: bool) -> KeyedView:
        key = guard.tenant_key(tenant, version=version)
        # Marks are too small to matter to coordinates.
        answers = partial(guard.view, key=key, dimensions=dimensions)
        folds = partial(guard.marker.folds, key=key) if bent else None
        return KeyedView(answers, folds)

    views = {
        tenant if versions == 1 else f"{tenant}#{version}": view(
            tenant, version, bent=tenant in marked
        )
        for tenant in tenants
        for version in range(1, versions + 1)
    }
    anyone = any(one.folds is not None for one in views.values())
    return TenantEvidence(
        inputs=inputs,
        clean=clean,
        tenants=views,
        # No tenant's name has a slash, so these keys are never issued.
        decoy=lambda number: view(f"decoy/{number}", 1, bent=anyone),
        directions=(
            {"mark": guard.marker.directions, "paid_mark": guard.marker.paid} if anyone else {}
        ),
        decoys=decoys,
        alpha=alpha,
    )
