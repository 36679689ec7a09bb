"""`tollkeeper tenants`: what an operator does to customers, beside a running server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.operate import open_operator
from tollkeeper.cli.options import Config, DataDir, Json, Ledger
from tollkeeper.cli.output import emit, table

if TYPE_CHECKING:
    from tollkeeper.gateway.operator import Operator
    from tollkeeper.gateway.overlaps import Overlap
    from tollkeeper.gateway.reports import TenantReport

tenants = typer.Typer(help="See and change tenants.", no_args_is_help=True)

TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="Name of the tenant.")]
_TENANT_COLUMNS = (
    "name",
    "pool",
    "budget",
    "spent",
    "queries",
    "coverage",
    "alone",
    "noise_scale",
    "plan",
    "mode",
    "standing",
    "price_s",
    "grant_left",
    "note",
)
_PREDICTION_COLUMNS = ("predicted", "suspicion", "alarm_at")
_OVERLAP_COLUMNS = (
    "first",
    "second",
    "shared",
    "seen",
    "coverage_first",
    "coverage_second",
    "united",
)


@tenants.command("list")
def list_tenants(
    *,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List all tenants with what they spent, covered and would pay."""
    with open_operator(config, data_dir, ledger) as operator:
        rows = [_plain(report) for report in operator.tenants()]
    emit(rows, as_json=as_json, prose=_tenant_table)


@tenants.command("show")
def show_tenant(
    name: TenantName,
    *,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one tenant."""
    with open_operator(config, data_dir, ledger) as operator:
        _emit_tenant(operator, name, as_json=as_json)


@tenants.command("grant")
def grant(
    name: TenantName,
    *,
    inputs: Annotated[float, typer.Option("--inputs", help="New inputs allowed from now on.")],
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Set a hard budget: what was spent plus this many more inputs."""
    with open_operator(config, data_dir, ledger) as operator:
        operator.grant(name, inputs)
        _emit_tenant(operator, name, as_json=as_json)


def _change(verb: str, does: str, change: Callable[[Operator, str], None]) -> None:
    """Add a verb that changes one tenant and shows it."""

    @tenants.command(verb, help=does)
    def act(
        name: TenantName,
        *,
        data_dir: DataDir = None,
        ledger: Ledger = None,
        config: Config = None,
        as_json: Json = False,
    ) -> None:
        with open_operator(config, data_dir, ledger) as operator:
            change(operator, name)
            _emit_tenant(operator, name, as_json=as_json)


def _change_saying(verb: str, does: str, change: Callable[[Operator, str, str], None]) -> None:
    """Add a verb that changes one tenant, with a note for the records, and shows it."""

    @tenants.command(verb, help=does)
    def act(
        name: TenantName,
        *,
        note: Annotated[str, typer.Option("--note", help="Why, for the records.")] = "",
        data_dir: DataDir = None,
        ledger: Ledger = None,
        config: Config = None,
        as_json: Json = False,
    ) -> None:
        with open_operator(config, data_dir, ledger) as operator:
            change(operator, name, note)
            _emit_tenant(operator, name, as_json=as_json)


def _change_to(verb: str, does: str, change: Callable[[Operator, str, str], None]) -> None:
    """Add a verb that sets one thing of a tenant, and shows it."""

    @tenants.command(verb, help=does)
    def act(
        name: TenantName,
        value: Annotated[str, typer.Argument(metavar="TO")],
        *,
        data_dir: DataDir = None,
        ledger: Ledger = None,
        config: Config = None,
        as_json: Json = False,
    ) -> None:
        with open_operator(config, data_dir, ledger) as operator:
            change(operator, name, value)
            _emit_tenant(operator, name, as_json=as_json)


_change_saying(
    "suspend",
    "Refuse a tenant's requests with 403 from now on.",
    lambda operator, name, note: operator.suspend(name, note),
)
_change_saying(
    "resume",
    "Let a suspended tenant in again.",
    lambda operator, name, note: operator.resume(name, note),
)
_change_to(
    "note",
    "Write a note about a tenant into the records, an appeal for example.",
    lambda operator, name, text: operator.note(name, text),
)
_change_to(
    "plan",
    "Let another plan hold for a tenant; `default` means the one that the settings name.",
    lambda operator, name, plan: operator.set_plan(name, "" if plan == "default" else plan),
)
_change_to(
    "mode",
    "Enforce a tenant's plan (`enforce`), only record it (`shadow`), or do as the plan says (`plan`).",
    lambda operator, name, mode: operator.set_mode(name, mode),
)
_change(
    "disallow",
    "Take a tenant's allowance away; what it was used for stays free.",
    lambda operator, name: operator.disallow(name),
)


@tenants.command("allow")
def allow(
    name: TenantName,
    *,
    inputs: Annotated[int, typer.Option("--inputs", min=1, help="How many inputs.")],
    days: Annotated[float, typer.Option("--days", help="For how long, from now.")] = 30.0,
    note: Annotated[str, typer.Option("--note", help="Why, for the records.")] = "",
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Sign an allowance: inputs free of toll, ration and noise, that do not count as breadth."""
    with open_operator(config, data_dir, ledger) as operator:
        operator.allow(name, inputs, days, note)
        _emit_tenant(operator, name, as_json=as_json)


@tenants.command("link")
def link(
    first: Annotated[str, typer.Argument(metavar="A", help="Tenant whose pool is kept.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Tenant who joins it.")],
    *,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Charge two tenants as one: both pay the price of what they cover together."""
    with open_operator(config, data_dir, ledger) as operator:
        operator.link(first, second)
        _emit_tenant(operator, second, as_json=as_json)


_change(
    "unlink",
    "Undo a link: charge a tenant on what it asked itself, before and since.",
    lambda operator, name: operator.unlink(name),
)
_change(
    "pardon",
    "Forget what a tenant covered; what it was charged stays.",
    lambda operator, name: operator.pardon(name),
)


@tenants.command("overlaps")
def overlaps(
    *,
    above: Annotated[
        float, typer.Option("--above", min=0, max=1, help="Smallest share of common inputs.")
    ] = 0.0,
    link_them: Annotated[
        bool, typer.Option("--link", help="Link those pairs, unless they were unlinked before.")
    ] = False,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List pairs of tenants that asked the same, and what they would cover as one."""
    with open_operator(config, data_dir, ledger) as operator:
        pairs = operator.link_overlapping(above) if link_them else operator.overlaps()
    rows = [_pair(pair) for pair in pairs if pair.shared >= above]
    emit(rows, as_json=as_json, prose=lambda rows: table(rows, _OVERLAP_COLUMNS))


def _emit_tenant(operator: Operator, name: str, *, as_json: bool) -> None:
    report = _plain(operator.tenant(name))
    emit(report, as_json=as_json, prose=lambda report: _tenant_table([report]))


def _tenant_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return tenants as a table; what is of predictions only where any are served."""
    predicts = any(row["suspicion"] is not None for row in rows)
    at = _TENANT_COLUMNS.index("plan")
    shown = _PREDICTION_COLUMNS if predicts else ()
    return table(rows, (*_TENANT_COLUMNS[:at], *shown, *_TENANT_COLUMNS[at:]))


def _plain(report: TenantReport) -> dict[str, Any]:
    """Return a report as JSON can hold it, with the grant in it."""
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(report)
    return plain


def _pair(pair: Overlap) -> dict[str, Any]:
    row = asdict(pair)
    row["coverage_first"], row["coverage_second"] = row.pop("coverage")
    return row
