"""Which tenants are charged as one, and how that is undone.

Every tenant keeps an entry of its own, in which all stands that it ever asked. Tenants that are
linked are charged on a pool beside it, which is the union of their own entries; its commits
change both together (`Service`). So a link is undone by going back to the own entry, and no
pool ever has to be taken apart: where a tenant leaves, those who stay get a new pool.

Nobody is charged on less than the union of what its pool asked, at any moment: a pool is
united before tenants move to it, and once more after running servers have noticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count
from typing import Final, Protocol

import numpy as np

from tollkeeper.errors import ConfigurationError, ConflictError
from tollkeeper.gateway.archive import Archive, Kept
from tollkeeper.gateway.pools import pool_key
from tollkeeper.ledger.base import KeepsTenants, Ledger, Remembers
from tollkeeper.types import Entry, Record, Tenant

MAX_ATTEMPTS = 50
SETTLE_S: Final = 1.0
"""By then running servers have noticed, at their second look, that a tenant moved."""
LINKS: Final = "operator/link"
"""Whose records links are: no tenant can be called so, and they are found by an index."""
FEWEST_SEEN: Final = 8
"""Common hashes below which a share may be chance, or a few inputs that everybody tries."""


class LinkStore(Ledger, KeepsTenants, Remembers, Protocol):
    """What links need of a ledger."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two tenants that asked the same.

    Attributes:
        first: a tenant.
        second: another one, on another pool.
        shared: estimated share of all their inputs that both asked, in [0, 1].
        seen: hashes of fine cells in which it was seen.
        coverage: of the two, each alone.
        united: coverage if they were linked.
    """

    first: str
    second: str
    shared: float
    seen: int
    coverage: tuple[float, float]
    united: float


class Links:
    """Links tenants of one deployment."""

    def __init__(
        self,
        store: LinkStore,
        archive: Archive,
        *,
        version: str,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """Act on `store`.

        Args:
            store: durable state.
            archive: how sketches lie in it.
            version: profile and version, for the records.
            clock: seconds since the epoch.
            sleep: waits for running servers.
        """
        self._store = store
        self._archive = archive
        self._version = version
        self._clock = clock
        self._sleep = sleep

    def link(self, first: Tenant, second: Tenant, *, by: str = "operator") -> None:
        """Charge two tenants, and all that are linked to either, on one pool.

        Each keeps what was left of its budget. Repeating a link finishes one that was
        interrupted and counts nothing twice.

        Args:
            first: whose pool is kept, if it has one.
            second: who joins it.
            by: who decided, for the record.

        Raises:
            ConflictError: the pool was busy for too long; link again.
        """
        pool = first.pool
        if first.pool != second.pool or not _is_joint(pool):
            pools = {first.pool, second.pool}
            members = [row for row in self._store.tenants() if row.pool in pools]
            pool = pool if _is_joint(pool) else self._fresh(first.name)
            # The first at once and the second last: until both have moved, a repeated link
            # comes here again and finds everybody.
            members.sort(key=lambda row: (row.name == second.name) - (row.name == first.name))
            self._move(members, pool, by=by)
        self._sleep(SETTLE_S)
        self.unite(pool, by=by)

    def unlink(self, tenant: Tenant, *, by: str = "operator") -> None:
        """Charge a tenant on what it asked itself again, and those who stay on what they did.

        The pair is not linked again by its overlap.

        Raises:
            ConfigurationError: it is not linked.
            ConflictError: an entry was busy for too long; unlink again.
        """
        if tenant.pool == tenant.name:
            raise ConfigurationError(f"tenant {tenant.name!r} is not linked to another")
        others = [row for row in self._store.tenants() if row.pool == tenant.pool]
        others = [row for row in others if row.name != tenant.name]
        for other in others:
            self._store.remember(_apart(tenant.name, other.name), "unlinked")
        pool = self._regroup(others, by=by)
        self._alone(tenant, by=by)
        if pool is not None:
            self._sleep(SETTLE_S)
            self.unite(pool, by=by)

    def pardon(self, tenant: Tenant, *, by: str = "operator") -> None:
        """Forget what a tenant covered; what it was charged stays.

        Raises:
            ConflictError: an entry was busy for too long; pardon again.
        """
        layout = self._archive.layout

        def forgotten(entry: Entry, at: float) -> tuple[Kept, float, int]:
            kept = self._archive.load(entry.sketch, at=at)
            bits = np.zeros(layout.bitmap_bytes, np.uint8)
            return replace(kept, sketch=layout.joined(bits, layout.sample(kept.sketch))), 0.0, 0

        self._commit(tenant.name, f"pardon:{tenant.name}", forgotten, by=by)
        if tenant.pool != tenant.name:
            members = [row for row in self._store.tenants() if row.pool == tenant.pool]
            self._regroup(members, by=by)

    def unite(self, pool: str, *, by: str = "operator") -> None:
        """Add to a pool what its tenants' own entries hold and it does not; often nothing.

        Raises:
            ConflictError: the pool was busy for too long.
        """
        members = [row for row in self._store.tenants() if row.pool == pool]
        if len(members) > 1 and _is_joint(pool):
            self._unite(pool, members, by=by)

    def unite_all(self) -> None:
        """Unite every pool: after a change of guard, or a link that was interrupted.

        Raises:
            ConflictError: a pool was busy for too long.
        """
        for pool in sorted({row.pool for row in self._store.tenants()}):
            self.unite(pool)

    def overlaps(self) -> list[Overlap]:
        """Compare all tenants that are on different pools, most shared first.

        Raises:
            ConfigurationError: the profile keeps no evidence of shared inputs.
        """
        if not self._archive.layout.samples:
            raise ConfigurationError(
                f"profile {self._version} keeps no sample of what tenants asked; compare them "
                "under one that does, as `recommended`"
            )
        at, layout = self._clock(), self._archive.layout
        own = [
            (row, self._archive.load(self._entry(row.name).sketch, at=at).sketch)
            for row in self._store.tenants()
        ]
        found = []
        for (one, mine), (other, theirs) in combinations(own, 2):
            if one.pool == other.pool:
                continue
            shared, seen = layout.shared(mine, theirs)
            if seen:
                alone = (layout.fraction(mine), layout.fraction(theirs))
                united = layout.fraction(layout.merge(mine, theirs))
                found.append(Overlap(one.name, other.name, shared, seen, alone, united))
        return sorted(found, key=lambda one: (-one.shared, one.first, one.second))

    def link_overlapping(self, share: float) -> list[Overlap]:
        """Link tenants that share at least so much, unless an operator has parted them.

        Returns:
            What was linked.

        Raises:
            ConfigurationError: `share` is not in (0, 1], or the profile keeps no evidence.
            ConflictError: a pool was busy for too long.
        """
        if not 0 < share <= 1:
            raise ConfigurationError(f"expected a share in (0, 1], got {share}")
        linked = []
        for pair in self.overlaps():
            if pair.shared < share or pair.seen < FEWEST_SEEN:
                continue
            if self._store.recall(_apart(pair.first, pair.second)) is not None:
                continue
            first, second = (self._store.find_tenant(name) for name in (pair.first, pair.second))
            if first is not None and second is not None and first.pool != second.pool:
                self.link(first, second, by="overlap")
                linked.append(pair)
        return linked

    def _entry(self, pool: str) -> Entry:
        return self._store.read(pool_key(pool, self._archive.fingerprint))

    def _fresh(self, name: str) -> str:
        """Return the name of a pool that never was."""
        taken = {row.pool for row in self._store.tenants()}
        names = (f"{name}/{number}" for number in count(1))
        return next(one for one in names if one not in taken and not self._entry(one).version)

    def _regroup(self, members: Sequence[Tenant], *, by: str) -> str | None:
        """Give tenants a new pool of what they asked themselves; one alone needs none."""
        if len(members) < 2:
            for row in members:
                self._alone(row, by=by)
            return None
        pool = self._fresh(members[0].name)
        self._move(members, pool, by=by)
        return pool

    def _alone(self, tenant: Tenant, *, by: str) -> None:
        """Charge a tenant on its own entry."""
        if tenant.pool == tenant.name:
            return

        def same(entry: Entry, at: float) -> tuple[Kept, float, int]:
            return self._archive.load(entry.sketch, at=at), 0.0, 0

        name = f"unlink:{tenant.pool}->{tenant.name}"
        self._commit(tenant.name, name, same, by=by, always=True)
        self._put([tenant], tenant.name, {tenant.name: self._left(tenant)})

    def _move(self, members: Sequence[Tenant], pool: str, *, by: str) -> None:
        """Charge tenants on a pool, and unite it before."""
        left = {row.name: self._left(row) for row in members}
        self._unite(pool, members, by=by)
        self._put(members, pool, left)

    def _left(self, tenant: Tenant) -> float | None:
        """Return how many inputs a tenant may still be charged; None without a budget."""
        if tenant.budget is None:
            return None
        return max(0.0, tenant.budget - self._entry(tenant.pool).spent)

    def _put(self, members: Iterable[Tenant], pool: str, left: dict[str, float | None]) -> None:
        """Store where tenants are charged; what was left of a budget counts from there."""
        spent = self._entry(pool).spent
        for row in members:
            rest = left[row.name]
            moved = replace(row, pool=pool, budget=None if rest is None else spent + rest)
            if moved != row:
                self._store.update_tenant(moved)

    def _unite(self, pool: str, members: Sequence[Tenant], *, by: str) -> None:
        names = sorted(row.name for row in members)

        def union(entry: Entry, at: float) -> tuple[Kept, float, int]:
            own = [self._entry(name) for name in names]
            kept = [self._archive.load(one.sketch, at=at) for one in (entry, *own)]
            # What is charged to a linked tenant is charged to its pool too, so what the pool
            # lacks is what was charged elsewhere.
            charge = max(0.0, math.fsum(one.spent for one in own) - entry.spent)
            inputs = max(0, sum(one.queries for one in own) - entry.queries)
            return self._archive.united(*kept), charge, inputs

        self._commit(pool, f"link:{pool}<-{','.join(names)}", union, by=by)

    def _commit(
        self,
        pool: str,
        name: str,
        change: Callable[[Entry, float], tuple[Kept, float, int]],
        *,
        by: str,
        always: bool = False,
    ) -> None:
        """Change an entry and leave a record of it; nothing to change leaves none, or `always`."""
        if not self._archive.fingerprint:
            return  # nothing was served yet
        for attempt in range(MAX_ATTEMPTS):
            at, entry = self._clock(), self._entry(pool)
            kept, charge, inputs = change(entry, at)
            data = self._archive.dump(kept)
            unchanged = entry.version and (data, charge, inputs) == (entry.sketch, 0.0, 0)
            if unchanged and not always:
                return
            record = Record(
                at=at,
                tenant=LINKS,
                key_id=by,
                request_id=name,
                model="",
                inputs=inputs,
                tokens=0,
                charge=charge,
                coverage=self._archive.layout.fraction(kept.sketch),
                noise_scale=0.0,
                profile=self._version,
            )
            try:
                self._store.commit(entry.pool, record, data, expected=entry.version)
            except ConflictError:
                if attempt + 1 == MAX_ATTEMPTS:
                    raise
            else:
                return


def _is_joint(pool: str) -> bool:
    """Return whether a pool is one of linked tenants; no tenant's name holds a `/`."""
    return "/" in pool


def _apart(one: str, other: str) -> str:
    """Return the fact that two tenants are not one."""
    return "apart:" + "/".join(sorted((one, other)))
