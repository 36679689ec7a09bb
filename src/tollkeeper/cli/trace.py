"""`tollkeeper audit trace`: which tenant's answers a copy was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.options import Config, DataDir, Json, Ledger
from tollkeeper.cli.output import emit, table
from tollkeeper.errors import ConfigurationError, EvidenceError

if TYPE_CHECKING:
    from tollkeeper.audit.attribution import Attribution
    from tollkeeper.gateway.settings import Settings
    from tollkeeper.guard.guard import Guard

_COLUMNS = ("tenant", "statistic", "p_value", "corrected", "z", "effect")


def trace(
    suspect: Annotated[str, typer.Argument(metavar="SUSPECT", help="SPEC or URL of the copy.")],
    inputs: Annotated[
        list[Path], typer.Argument(help="Probes: text files, images or folders of images.")
    ],
    *,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="SPEC of the guarded encoder.")
    ] = None,
    tenant: Annotated[
        list[str] | None, typer.Option("--tenant", help="Only these; default: all of the ledger.")
    ] = None,
    decoys: Annotated[int, typer.Option(min=1, help="Keys never issued, for the null.")] = 9999,
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Chance of naming any tenant falsely.")
    ] = 0.001,
    commitment: Annotated[
        str | None, typer.Option(help="What an earlier trace printed; it must be of these keys.")
    ] = None,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say which tenant's answers a suspect was made from, with an exact p-value."""
    import numpy as np

    from tollkeeper.audit.attribution import trace as traced
    from tollkeeper.bench.ownership.keyed_views import tenant_evidence
    from tollkeeper.cli import inputs as files
    from tollkeeper.cli.operate import open_operator
    from tollkeeper.encoders.load import load_encoder
    from tollkeeper.gateway.assembly import make_encoder
    from tollkeeper.gateway.settings import load

    found = files.read(inputs)
    if found.embeddings:
        raise ConfigurationError("expected texts or images as probes, got .npy embeddings")
    settings = load(config, data_dir=data_dir, ledger=ledger, encoder=encoder)
    with open_operator(config, data_dir, ledger) as operator:
        known = [report.name for report in operator.tenants()]
    names = _chosen(tenant, known)
    victim = make_encoder(settings)
    guard = _guard(settings, victim)
    told = guard.commitment
    if commitment is not None and commitment != told:
        raise EvidenceError(
            f"expected the keys of commitment {commitment}, got those of {told}; is it another "
            "deployment, model or profile?"
        )
    probes = [item for batch in files.batches(found.items, victim) for item in batch]
    suspected = load_encoder(suspect)
    width = suspected.dim if suspected.dim < victim.dim else None
    marked = names if "*" in settings.marked else settings.marked
    clean = np.concatenate([victim.embed(probes[at : at + 64]) for at in range(0, len(probes), 64)])
    evidence = tenant_evidence(
        guard,
        names,
        probes,
        clean,
        marked=marked,
        dimensions=width,
        versions=settings.key_version,
        decoys=decoys,
        alpha=alpha,
    )
    made = _told(traced(suspected, evidence), commitment=told)
    emit(made, as_json=as_json, prose=_prose)


def _chosen(asked: list[str] | None, known: list[str]) -> list[str]:
    unknown = sorted(set(asked or ()) - set(known))
    if unknown:
        raise ConfigurationError(
            f"there is no tenant {unknown[0]!r}; see `tollkeeper tenants list`"
        )
    return asked or known


def _guard(settings: Settings, victim: Any) -> Guard:
    """Return the guard that answered, from the secrets of the data folder."""
    from tollkeeper.gateway import server
    from tollkeeper.gateway.assembly import make_guard
    from tollkeeper.gateway.stores import open_stores

    stores = open_stores(settings, clock=server.wall_clock)
    try:
        return make_guard(settings, stores.master, victim)
    finally:
        stores.store.close()


def _told(found: Attribution, *, commitment: str) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "tenants": list(found.named),
        "alpha": found.alpha,
        "findings": [asdict(one) for one in found.findings],
        "commitment": commitment,
    }


def _prose(made: Mapping[str, Any]) -> str:
    rows = [
        {**row, **{name: f"{row[name]:.3g}" for name in _COLUMNS[2:]}} for row in made["findings"]
    ]
    named = ", ".join(made["tenants"])
    said = (
        f"derived: made from answers to {named}; an innocent tenant is named in at most "
        f"{made['alpha']:g} of cases"
        if named
        else "inconclusive: no tenant stands out from keys that were never issued; this does not "
        "show that nobody leaked"
    )
    return f"{table(rows, _COLUMNS)}\n{said}\nkeys: {made['commitment']}"
