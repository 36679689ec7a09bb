"""What an operator may do: one set of verbs for the admin plane and the command line."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from tollkeeper.errors import ConfigurationError, ConflictError, UnknownNameError
from tollkeeper.gateway.auth import KeyRing
from tollkeeper.gateway.pools import Deployment, pool_key
from tollkeeper.guard import profiles
from tollkeeper.guard.reading import SketchReader
from tollkeeper.ledger.base import (
    Changes,
    GroupCommits,
    KeepsKeys,
    KeepsTenants,
    Ledger,
    Remembers,
)
from tollkeeper.ledger.retention import Prunes
from tollkeeper.types import Entry, KeyInfo, Record, Tenant

MAX_NAME = 200
MAX_ATTEMPTS = 50
SETTLE_S: Final = 1.0
"""By then running servers have noticed, at their second look, that a tenant moved."""
LINKS: Final = "operator/link"
"""Whose records links are: no tenant can be called so, and they are found by an index."""
DAY_S: Final = 86_400.0


class Store(Ledger, GroupCommits, KeepsKeys, KeepsTenants, Changes, Remembers, Prunes, Protocol):
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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Act on `store`; without a deployment there are no sketches to read yet."""
        self._store = store
        self._keyring = keyring
        self._deployment = deployment
        self._clock = clock
        self._sleep = sleep
        profile = profiles.get(deployment.profile if deployment else "none")
        self._reader = SketchReader(profile.with_knee(deployment.knee if deployment else None))

    def create_key(self, tenant: str) -> tuple[str, KeyInfo]:
        """Make a key; see `KeyRing.create`.

        Raises:
            ConfigurationError: the tenant's name is empty, too long, not printable, or cannot
                be a part of the admin plane's paths.
        """
        printable = 0 < len(tenant) <= MAX_NAME and tenant.isprintable()
        if not printable or "/" in tenant or tenant in {".", ".."}:
            raise ConfigurationError(
                f"a tenant name has 1 to {MAX_NAME} printable characters without `/` and is not "
                f"`.` or `..`, got {tenant[:40]!r}"
            )
        return self._keyring.create(tenant)

    def keys(self) -> Sequence[KeyInfo]:
        """Return all keys, oldest first."""
        return self._store.keys()

    def revoke_key(self, key_id: str) -> KeyInfo:
        """Revoke a key; running servers refuse it within a second.

        Raises:
            UnknownNameError: there is no such key.
        """
        if key_id not in [info.id for info in self.keys()]:
            raise UnknownNameError(f"there is no key {key_id!r}; see `tollkeeper keys list`")
        return self._store.revoke_key(key_id, at=self._clock())

    def tenants(self) -> list[TenantReport]:
        """Report on every tenant."""
        return [self._report(tenant) for tenant in self._store.tenants()]

    def tenant(self, name: str) -> TenantReport:
        """Report on one tenant.

        Raises:
            UnknownNameError: there is no such tenant.
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

        Infinity takes the budget away.

        Raises:
            ConfigurationError: `inputs` is not positive.
            UnknownNameError: there is no such tenant.
        """
        if not inputs > 0:
            raise ConfigurationError(f"expected a positive number of inputs, got {inputs}")
        tenant = self._find(name)
        budget = None if inputs == math.inf else self._read(tenant).spent + inputs
        self._store.update_tenant(replace(tenant, budget=budget))

    def link(self, first: str, second: str) -> None:
        """Charge two tenants, and all linked to the second, on the first one's pool.

        The pool's new state is the union of both sketches and the sum of both spends under
        the running guard. A running server follows within a second; what it answered on the
        old pool meanwhile is added at the end. What takes longer (a slow encoder) is added
        by a further link of the same tenants: repeating a link counts nothing twice, and
        finishes one that was interrupted.

        Raises:
            UnknownNameError: there is no such tenant.
            ConflictError: the pool was busy for too long; link again.
        """
        one, other = self._find(first), self._find(second)
        if one.pool != other.pool:
            left = self._budgets_left({one.pool, other.pool})
            # Before the move, so that nobody is ever charged on less than the union.
            self._unite(other.pool, one.pool, moved=False)
            joint = self._read(one).spent
            moving = [row for row in self._store.tenants() if row.pool in {one.pool, other.pool}]
            # `other` last: until it has moved, a repeated link comes here again.
            for tenant in sorted(moving, key=lambda row: row.name == second):
                # Each keeps what was left of its budget, counted from the joint spend.
                budget = joint + left[tenant.name] if tenant.name in left else None
                self._store.update_tenant(replace(tenant, pool=one.pool, budget=budget))
        if not self._reader.tracks:
            return
        self._sleep(SETTLE_S)
        # A pool is named after the tenant it began with, who moves with it.
        for tenant in self._store.tenants():
            if tenant.pool == one.pool != tenant.name:
                self._unite(tenant.name, one.pool, moved=True)

    def _budgets_left(self, pools: set[str]) -> dict[str, float]:
        """Return how many inputs each tenant of some pools may still be charged."""
        return {
            tenant.name: max(0.0, tenant.budget - self._read(tenant).spent)
            for tenant in self._store.tenants()
            if tenant.pool in pools and tenant.budget is not None
        }

    def _unite(self, old: str, new: str, *, moved: bool) -> None:
        """Add to the pool `new` what the pool `old` holds and no link has added yet.

        Records of earlier links say what was added. Where they were pruned, a pool whose
        tenants have moved is taken to be added: its spend must not count twice.
        """
        if self._deployment is None:
            return
        source, target = (pool_key(p, self._deployment.fingerprint) for p in (old, new))
        link = f"link:{source}->{target}"
        for attempt in range(MAX_ATTEMPTS):
            # The target first: a link that is recorded after this makes the commit conflict.
            kept = self._store.read(target)
            done = [r for r in self._store.records(tenant=LINKS) if r.request_id == link]
            merged = self._store.read(source)
            due = replace(merged, spent=0.0, queries=0)
            if done or not moved:
                due = replace(
                    merged,
                    spent=merged.spent - math.fsum(r.charge for r in done),
                    queries=merged.queries - sum(r.inputs for r in done),
                )
            # The first link of two pools leaves a record even if there is nothing to add:
            # what is asked while the tenants move must count as not added yet.
            first = not moved and not done
            last = attempt + 1 == MAX_ATTEMPTS
            if self._commit_union(kept, due, link, always=first, last=last):
                return

    def _commit_union(
        self, kept: Entry, due: Entry, link: str, *, always: bool, last: bool
    ) -> bool:
        """Store one record that adds `due` to `kept`; return False if it must be tried again."""
        union = self._reader.merge(self._reader.load(kept.sketch), self._reader.load(due.sketch))
        coverage = self._reader.fraction(union)
        known = self._reader.fraction(self._reader.load(kept.sketch))
        if not always and not due.queries and coverage == known:
            return True
        record = Record(
            at=self._clock(),
            tenant=LINKS,
            key_id="operator",
            request_id=link,
            model="",
            inputs=due.queries,
            tokens=0,
            charge=due.spent,
            coverage=coverage,
            noise_scale=0.0,
            profile=self._reader.version,
        )
        try:
            self._store.commit(kept.pool, record, union.tobytes(), expected=kept.version)
        except ConflictError:
            if last:
                raise
            return False
        return True

    def records(
        self, *, tenant: str | None = None, since: float | None = None, limit: int = 100
    ) -> Iterator[Record]:
        """Yield the newest records first."""
        return self._store.records(tenant=tenant, since=since, limit=limit)

    def prune(self, days: float) -> int:
        """Delete the records older than `days` days; spend and coverage stay.

        Returns:
            How many were deleted.

        Raises:
            ConfigurationError: `days` is negative or not finite.
        """
        if not 0 <= days < math.inf:
            raise ConfigurationError(f"expected a number of days from 0 up, got {days}")
        return self._store.prune(self._clock() - days * DAY_S)

    def _read(self, tenant: Tenant) -> Entry:
        if self._deployment is None:
            return Entry(tenant.pool)
        return self._store.read(pool_key(tenant.pool, self._deployment.fingerprint))

    def _find(self, name: str) -> Tenant:
        tenant = self._store.find_tenant(name)
        if tenant is None:
            raise UnknownNameError(f"there is no tenant {name!r}; see `tollkeeper tenants list`")
        return tenant

    def _report(self, tenant: Tenant) -> TenantReport:
        entry = self._read(tenant)
        coverage = scale = None
        if self._reader.tracks:
            coverage = self._reader.fraction(self._reader.load(entry.sketch))
            scale = self._reader.price(coverage)
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
