"""What a ledger accepts, and how its values become rows.

Values are checked in the caller's thread, before they join a group: one record
that no store can keep must not fail the commits beside it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeAlias

from tollkeeper.errors import ConflictError, LedgerError
from tollkeeper.ledger.base import Move
from tollkeeper.types import KeyInfo, Record, Tenant

RecordRow: TypeAlias = tuple[
    float, str, str, str, str, int, int, float, float, float, str, bool, str, str, float
]
TenantRow: TypeAlias = tuple[str, str, bool, float | None, float, str, str, str, str]
KeyRow: TypeAlias = tuple[str, str, str, float, float | None]

LARGEST_WHOLE = 2**53
LARGEST_COUNT = 2**32
"""More inputs or tokens than one request can hold; totals stay far below 64 bits."""


def text(name: str, value: str) -> str:
    """Return `value`; raises LedgerError if it cannot be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise LedgerError(f"{name} must be valid Unicode, got {value!r}; remove it") from None
    return value


def number(name: str, value: float) -> float:
    """Return a plain float; raises LedgerError for NaN and the infinities."""
    plain = float(value)
    if not math.isfinite(plain):
        raise LedgerError(f"{name} must be a finite number, got {plain}")
    return plain


def amount(name: str, value: float) -> float:
    """Return a plain float of at least 0, so that totals never fall."""
    plain = number(name, value)
    if plain < 0:
        raise LedgerError(f"{name} must not be negative, got {plain}")
    return plain


def count(name: str, value: int) -> int:
    """Return a plain int in [0, LARGEST_COUNT]."""
    plain = int(value)
    if not 0 <= plain <= LARGEST_COUNT:
        raise LedgerError(f"{name} must be between 0 and {LARGEST_COUNT}, got {plain}")
    return plain


def whole(name: str, value: int) -> int:
    """Return a plain int in [0, 2**53], which every store keeps exactly."""
    plain = int(value)
    if not 0 <= plain <= LARGEST_WHOLE:
        raise LedgerError(f"{name} must be between 0 and {LARGEST_WHOLE}, got {plain}")
    return plain


def record_row(record: Record) -> RecordRow:
    """Return the record's fields in order as plain values; raises LedgerError naming a bad one."""
    return (
        number("at", record.at),
        text("tenant", record.tenant),
        text("key_id", record.key_id),
        text("request_id", record.request_id),
        text("model", record.model),
        count("inputs", record.inputs),
        count("tokens", record.tokens),
        amount("charge", record.charge),
        number("coverage", record.coverage),
        number("noise_scale", record.noise_scale),
        text("profile", record.profile),
        bool(record.shadow),
        text("decision", record.decision),
        text("reason", record.reason),
        amount("paid_s", record.paid_s),
    )


def row_record(row: RecordRow) -> Record:
    """Return the record whose row this is."""
    return Record(*row[:11], bool(row[11]), *row[12:])


def tenant_row(tenant: Tenant) -> TenantRow:
    """Return the tenant's fields in order; raises LedgerError naming a bad one."""
    return (
        text("name", tenant.name),
        text("pool", tenant.pool),
        bool(tenant.suspended),
        None if tenant.budget is None else amount("budget", tenant.budget),
        number("created_at", tenant.created_at),
        text("note", tenant.note),
        text("plan", tenant.plan),
        text("mode", tenant.mode),
        text("grant", tenant.grant),
    )


def row_tenant(row: TenantRow) -> Tenant:
    """Return the tenant whose row this is."""
    return Tenant(row[0], row[1], bool(row[2]), *row[3:])


def moved_tenant(found: Tenant | None, move: Move) -> Tenant:
    """Return a tenant on its new pool.

    Raises:
        ConflictError: it is not where it was read.
        LedgerError: it does not exist.
    """
    before = move.tenant
    if found is None:
        raise LedgerError(f"there is no tenant {before.name!r}; add it first")
    if (found.pool, found.budget) != (before.pool, before.budget):
        # Tenants have no versions: what was expected and found are no numbers of any.
        raise ConflictError(before.name, expected=0, found=1)
    return replace(found, pool=move.pool, budget=move.budget)


def key_row(key: KeyInfo) -> KeyRow:
    """Return the key's fields in order; raises LedgerError naming a bad one."""
    return (
        text("id", key.id),
        text("tenant", key.tenant),
        text("digest", key.digest),
        number("created_at", key.created_at),
        None if key.revoked_at is None else number("revoked_at", key.revoked_at),
    )
