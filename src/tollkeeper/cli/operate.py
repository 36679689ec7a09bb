"""`tollkeeper keys`, `tenants`, `records` and `config`: what an operator does beside a running server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.options import Config, DataDir, Json, Ledger
from tollkeeper.cli.output import emit, table
from tollkeeper.errors import ConfigurationError

if TYPE_CHECKING:
    from tollkeeper.gateway.operator import Operator, TenantReport
    from tollkeeper.gateway.overlaps import Overlap
    from tollkeeper.types import KeyInfo

keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
tenants = typer.Typer(help="See and change tenants.", no_args_is_help=True)
records = typer.Typer(help="See and delete records.", no_args_is_help=True)
settings_verbs = typer.Typer(help="See the effective settings.", no_args_is_help=True)

TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="Name of the tenant.")]
_KEY_COLUMNS = ("id", "tenant", "created_at", "revoked_at")
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
)
_OVERLAP_COLUMNS = (
    "first",
    "second",
    "shared",
    "seen",
    "coverage_first",
    "coverage_second",
    "united",
)
_RECORD_COLUMNS = (
    "at",
    "tenant",
    "key_id",
    "model",
    "inputs",
    "charge",
    "decision",
    "paid_s",
    "coverage",
    "noise_scale",
    "profile",
    "shadow",
    "request_id",
)


@contextmanager
def _operator(
    config_file: Path | None, data_dir: Path | None, ledger: str | None, *, may_create: bool = False
) -> Iterator[Operator]:
    """Open the stores that the settings name, without an encoder.

    Raises:
        ConfigurationError: there is no data folder, and the verb is not one that starts it.
    """
    from tollkeeper.gateway import assembly, server
    from tollkeeper.gateway.settings import load
    from tollkeeper.gateway.stores import open_stores

    settings = load(config_file, data_dir=data_dir, ledger=ledger)
    if not (may_create or settings.ledger or settings.data_dir.is_dir()):
        raise ConfigurationError(
            f"there is no data folder {settings.data_dir}: give the server's with --data-dir"
        )
    stores = open_stores(settings, clock=server.wall_clock)
    try:
        yield assembly.make_operator(settings, stores, clock=server.wall_clock)
    finally:
        stores.store.close()


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Option("--tenant", help="Owner; made if new.")],
    *,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make an API key and print it; it cannot be shown again."""
    with _operator(config, data_dir, ledger, may_create=True) as operator:
        secret, info = operator.create_key(tenant)
    emit(
        {"key": secret, "id": info.id, "tenant": info.tenant},
        as_json=as_json,
        prose=lambda made: (
            f"{made['key']}\n(id {made['id']}, tenant {made['tenant']}; "
            "this is the only time the key is shown)"
        ),
    )


@keys.command("list")
def list_keys(
    *,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List all keys, oldest first; never the keys themselves."""
    with _operator(config, data_dir, ledger) as operator:
        rows = list(map(_public, operator.keys()))
    emit(rows, as_json=as_json, prose=_key_table)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")],
    *,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Revoke a key; a running server refuses it within a second."""
    with _operator(config, data_dir, ledger) as operator:
        info = _public(operator.revoke_key(key_id))
    emit(info, as_json=as_json, prose=lambda info: _key_table([info]))


@tenants.command("list")
def list_tenants(
    *,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List all tenants with what they spent, covered and would pay."""
    with _operator(config, data_dir, ledger) as operator:
        rows = [_plain(report) for report in operator.tenants()]
    emit(rows, as_json=as_json, prose=lambda rows: table(rows, _TENANT_COLUMNS))


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
    with _operator(config, data_dir, ledger) as operator:
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
    with _operator(config, data_dir, ledger) as operator:
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
        with _operator(config, data_dir, ledger) as operator:
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
        with _operator(config, data_dir, ledger) as operator:
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
        with _operator(config, data_dir, ledger) as operator:
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
    with _operator(config, data_dir, ledger) as operator:
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
    with _operator(config, data_dir, ledger) as operator:
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
    with _operator(config, data_dir, ledger) as operator:
        pairs = operator.link_overlapping(above) if link_them else operator.overlaps()
    rows = [_pair(pair) for pair in pairs if pair.shared >= above]
    emit(rows, as_json=as_json, prose=lambda rows: table(rows, _OVERLAP_COLUMNS))


@records.command("list")
def list_records(
    *,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the newest records first."""
    with _operator(config, data_dir, ledger) as operator:
        rows = [asdict(record) for record in operator.records(tenant=tenant, limit=limit)]
    emit(rows, as_json=as_json, prose=lambda rows: table(_dated(rows, "at"), _RECORD_COLUMNS))


@records.command("prune")
def prune_records(
    *,
    before: Annotated[float, typer.Option("--before", metavar="DAYS", help="Age in days.")],
    data_dir: DataDir = None,
    ledger: Ledger = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Delete the records older than DAYS days; what tenants spent and covered stays."""
    with _operator(config, data_dir, ledger) as operator:
        deleted = operator.prune(before)
    emit({"deleted": deleted}, as_json=as_json, prose=lambda _: f"deleted {deleted} records")


@settings_verbs.command("show")
def show_config(
    *,
    config: Config = None,
    data_dir: DataDir = None,
    ledger: Ledger = None,
    as_json: Json = False,
) -> None:
    """Print the settings that the file, the environment and these flags lead to."""
    from tollkeeper.gateway.settings import load

    effective = load(config, data_dir=data_dir, ledger=ledger).redacted()
    emit(effective, as_json=as_json, prose=_yaml)


def _emit_tenant(operator: Operator, name: str, *, as_json: bool) -> None:
    report = _plain(operator.tenant(name))
    emit(report, as_json=as_json, prose=lambda report: table([report], _TENANT_COLUMNS))


def _plain(report: TenantReport) -> dict[str, Any]:
    """Return a report as JSON can hold it, with the grant in it."""
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(report)
    return plain


def _pair(pair: Overlap) -> dict[str, Any]:
    row = asdict(pair)
    row["coverage_first"], row["coverage_second"] = row.pop("coverage")
    return row


def _public(key: KeyInfo) -> dict[str, Any]:
    return {column: getattr(key, column) for column in _KEY_COLUMNS}


def _key_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return table(_dated(rows, "created_at", "revoked_at"), _KEY_COLUMNS)


def _dated(rows: Sequence[Mapping[str, Any]], *times: str) -> list[dict[str, Any]]:
    """Return rows with some fields as date and time."""
    return [{name: _day(v) if name in times else v for name, v in row.items()} for row in rows]


def _day(seconds: float | None) -> str | None:
    """Return seconds since the epoch as UTC date and time."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _yaml(settings: Any) -> str:
    """Return settings as a config file could hold them."""
    import yaml

    return yaml.safe_dump(settings, sort_keys=False).rstrip()
