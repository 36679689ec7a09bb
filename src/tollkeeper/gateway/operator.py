"""What an operator may do: one set of verbs for the admin plane and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from tollkeeper.errors import ConfigurationError, ConflictError
from tollkeeper.gateway.auth import KeyRing
from tollkeeper.gateway.pools import Deployment, pool_key
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.base import (
    Changes,
    GroupCommits,
    KeepsKeys,
    KeepsTenants,
    Ledger,
    Remembers,
)
from tollkeeper.types import Entry, KeyInfo, Record, Tenant

MAX_NAME = 200
MAX_ATTEMPTS = 50


class Store(Ledger, GroupCommits, KeepsKeys, KeepsTenants, Changes, Remembers, Protocol):
    """A ledger with every capability the gateway uses."""

    def close(self) -> None:
        """Finish what was submitted and let go of the store."""
        ...


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant, its standing and what its pool has done.

    Attributes:
        name: the tenant.
        pool: the sketch it is charged on.
        suspended: whether it is refused.
        budget: inputs allowed in total, or None.
        spent: inputs charged to the pool.
        queries: inputs answered to the pool.
        coverage: fraction of the embedding space the pool has visited, in [0, 1];
            None when the running profile keeps no coverage.
        noise_scale: what new answers of the pool would carry now, in feature-std units
            or absolute, as the profile counts.
        note: the operator's text.
    """

    name: str
    pool: str
    suspended: bool
    budget: float | None
    spent: float
    queries: int
    coverage: float | None
    noise_scale: float | None
    note: str


class Operator:
    """The operator's verbs over a ledger."""

    def __init__(
        self,
        store: Store,
        keyring: KeyRing,
        deployment: Deployment | None,
        *,
        clock: Callable[[], float],
    ) -> None:
        """Act on `store`; without a deployment there are no sketches to read yet."""
        self._store = store
        self._keyring = keyring
        self._deployment = deployment
        self._clock = clock
        profile = profiles.get(deployment.profile if deployment else "none")
        # Reading and merging sketches takes their layout, not their hyperplanes.
        self._guard = Guard(profile, Calibration.identity(1), secret=bytes(32))

    def create_key(self, tenant: str) -> tuple[str, KeyInfo]:
        """Make a key; see `KeyRing.create`.

        Raises:
            ConfigurationError: the tenant's name is empty, too long or not printable.
        """
        if not tenant or len(tenant) > MAX_NAME or not tenant.isprintable():
            raise ConfigurationError(
                f"a tenant name has 1 to {MAX_NAME} printable characters, got {tenant[:40]!r}"
            )
        return self._keyring.create(tenant)

    def keys(self) -> Sequence[KeyInfo]:
        """Return all keys, oldest first."""
        return self._store.keys()

    def revoke_key(self, key_id: str) -> KeyInfo:
        """Revoke a key; running servers refuse it within a second.

        Raises:
            ConfigurationError: there is no such key.
        """
        if key_id not in [info.id for info in self.keys()]:
            raise ConfigurationError(f"there is no key {key_id!r}; see `tollkeeper keys list`")
        return self._store.revoke_key(key_id, at=self._clock())

    def tenants(self) -> list[TenantReport]:
        """Report on every tenant."""
        return [self._report(tenant) for tenant in self._store.tenants()]

    def tenant(self, name: str) -> TenantReport:
        """Report on one tenant.

        Raises:
            ConfigurationError: there is no such tenant.
        """
        return self._report(self._find(name))

    def suspend(self, name: str) -> None:
        """Refuse a tenant from now on."""
        self._store.update_tenant(replace(self._find(name), suspended=True))

    def resume(self, name: str) -> None:
        """Let a suspended tenant in again."""
        self._store.update_tenant(replace(self._find(name), suspended=False))

    def grant(self, name: str, inputs: float) -> None:
        """Set a tenant's hard budget to what it has spent plus `inputs` more.

        Raises:
            ConfigurationError: `inputs` is not positive, or there is no such tenant.
        """
        if not inputs > 0:
            raise ConfigurationError(f"expected a positive number of inputs, got {inputs}")
        tenant = self._find(name)
        spent = self._read(tenant).spent
        self._store.update_tenant(replace(tenant, budget=spent + inputs))

    def link(self, first: str, second: str) -> None:
        """Charge two tenants, and all linked to the second, on the first one's pool.

        The pool's new state is the union of both sketches and the sum of both spends. A
        running server moves the tenants within a second; what it answers until then is
        charged to the old pool and is not part of the union. Only the entries of the
        running guard are united.

        Raises:
            ConfigurationError: there is no such tenant.
            ConflictError: the pool was busy for too long; nothing was changed.
        """
        one, other = self._find(first), self._find(second)
        if one.pool == other.pool:
            return
        self._unite(one, other)
        for tenant in self._store.tenants():
            if tenant.pool == other.pool:
                self._store.update_tenant(replace(tenant, pool=one.pool))

    def _unite(self, one: Tenant, other: Tenant) -> None:
        """Add the pool of `other` to the pool of `one`, as one record."""
        for attempt in range(MAX_ATTEMPTS):
            kept, merged = self._read(one), self._read(other)
            if not merged.version:
                return
            load = self._guard.load
            union = self._guard.merge(load(kept.sketch), load(merged.sketch))
            record = Record(
                at=self._clock(),
                tenant=other.name,
                key_id="operator",
                request_id=f"link:{other.name}->{one.name}",
                model="",
                inputs=merged.queries,
                tokens=0,
                charge=merged.spent,
                coverage=self._guard.fraction(union),
                noise_scale=0.0,
                profile=self._guard.version,
            )
            try:
                self._store.commit(kept.pool, record, union.tobytes(), expected=kept.version)
            except ConflictError:
                if attempt + 1 == MAX_ATTEMPTS:
                    raise
            else:
                return

    def records(
        self, *, tenant: str | None = None, since: float | None = None, limit: int = 100
    ) -> Iterator[Record]:
        """Yield the newest records first."""
        return self._store.records(tenant=tenant, since=since, limit=limit)

    def _read(self, tenant: Tenant) -> Entry:
        if self._deployment is None:
            return Entry(tenant.pool)
        return self._store.read(pool_key(tenant.pool, self._deployment.fingerprint))

    def _find(self, name: str) -> Tenant:
        tenant = self._store.find_tenant(name)
        if tenant is None:
            raise ConfigurationError(f"there is no tenant {name!r}; see `tollkeeper tenants list`")
        return tenant

    def _report(self, tenant: Tenant) -> TenantReport:
        entry = self._read(tenant)
        coverage = scale = None
        if self._guard.tracks:
            coverage = self._guard.fraction(self._guard.load(entry.sketch))
            scale = float(self._guard.profile.price(np.array([coverage]))[0])
        return TenantReport(
            name=tenant.name,
            pool=tenant.pool,
            suspended=tenant.suspended,
            budget=tenant.budget,
            spent=entry.spent,
            queries=entry.queries,
            coverage=coverage,
            noise_scale=scale,
            note=tenant.note,
        )
