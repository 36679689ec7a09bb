"""`tollkeeper keys`, `records` and `config`: what an operator does beside a running server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    from tollkeeper.gateway.operator import Operator
    from tollkeeper.types import KeyInfo

keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
records = typer.Typer(help="See and delete records.", no_args_is_help=True)
settings_verbs = typer.Typer(help="See the effective settings.", no_args_is_help=True)

_KEY_COLUMNS = ("id", "tenant", "created_at", "revoked_at")
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
    "reason",
)


@contextmanager
def open_operator(
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
    with open_operator(config, data_dir, ledger, may_create=True) as operator:
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
    with open_operator(config, data_dir, ledger) as operator:
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
    with open_operator(config, data_dir, ledger) as operator:
        info = _public(operator.revoke_key(key_id))
    emit(info, as_json=as_json, prose=lambda info: _key_table([info]))


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
    with open_operator(config, data_dir, ledger) as operator:
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
    with open_operator(config, data_dir, ledger) as operator:
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
