"""Which tenants are charged as one, and how that is undone.

Every tenant keeps an entry of its own, in which all stands that it ever asked. Tenants that are
linked are charged on a pool beside it, which is the union of their own entries; its commits
change both together (`Service`). So a link is undone by going back to the own entry, and no
pool ever has to be taken apart: where a tenant leaves, those who stay get a new pool.

A pool is united before tenants move to it, and once more after running servers have noticed;
between the two it may lack what they answered on the old pools meanwhile. Tenants move together,
in one transaction that fails if any of them has moved since it was read, and is tried again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Final, Protocol, TypeVar

from tollkeeper.errors import ConfigurationError, ConflictError, GuardError, UnknownNameError
from tollkeeper.gateway.archive import Archive, Keeper, Kept
from tollkeeper.gateway.overlaps import Overlap, overlapping
from tollkeeper.ledger.base import KeepsTenants, Ledger, Move, MovesTenants, Remembers
from tollkeeper.types import Entry, Record, Tenant

T = TypeVar("T")
_Change = tuple[Kept, float, int]
"""A state, and what to add to charge and inputs."""

MAX_ATTEMPTS = 50
"""Tries to change an entry that is being charged."""
MAX_MOVES = 10
"""Tries to move tenants that somebody else moves."""
SETTLE_S: Final = 1.0
"""By then running servers have noticed, at their second look, that a tenant moved."""
LINKS: Final = "operator/link"
"""Whose records links are: no tenant can be called so, and they are found by an index."""
FEWEST_SEEN: Final = 8
"""Common hashes below which a share may be chance, or a few inputs that everybody tries."""


class LinkStore(Ledger, KeepsTenants, MovesTenants, Remembers, Protocol):
    """What links need of a ledger."""


class Links:
    """Links tenants of one deployment."""

    def __init__(
        self,
        store: LinkStore,
        archive: Archive,
        *,
        beside: Sequence[Keeper] = (),
        version: str,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """Act on `store`.

        Args:
            store: durable state.
            archive: how sketches lie in it.
            beside: how other states of the same pools do.
            version: profile and version, for the records.
            clock: seconds since the epoch.
            sleep: waits for running servers.
        """
        self._store = store
        self._archive = archive
        # Where nothing is embedded, what lies beside is what counts.
        served: list[Keeper] = [one for one in (archive, *beside) if one.fingerprint]
        self._main = served[0] if served else archive
        self._served = served
        self._version = version
        self._clock = clock
        self._sleep = sleep

    def link(self, first: Tenant, second: Tenant, *, by: str = "operator") -> None:
        """Charge two tenants, and all that are linked to either, on one pool.

        Each keeps what was left of its budget. Repeating a link counts nothing twice.

        Args:
            first: whose pool is kept, if it has one.
            second: who joins it.
            by: who decided, for the record.

        Raises:
            ConflictError: a pool was busy for too long; link again.
        """
        self._settle([_tried(partial(self._join, first.name, second.name, by=by))], by=by)

    def _join(self, first: str, second: str, *, by: str) -> str:
        """Move two tenants and those linked to them to one pool, and return it."""
        one, other = self._tenant(first), self._tenant(second)
        if one.pool == other.pool and _is_joint(one.pool):
            return one.pool
        members = self._on(one.pool, other.pool)
        pool = one.pool if _is_joint(one.pool) else self._fresh(first, members)
        self._move({pool: members}, by=by)
        # Whoever joined the pool that was left meanwhile is linked to these.
        late = [row for row in self._on(other.pool) if row.pool != pool]
        if late:
            self._move({pool: [*self._on(pool), *late]}, by=by)
        return pool

    def unlink(self, tenant: Tenant, *, by: str = "operator") -> None:
        """Charge a tenant on what it asked itself again, and those who stay on what they did.

        The pair is not linked again by its overlap.

        Raises:
            ConfigurationError: it is not linked.
            ConflictError: an entry was busy for too long; unlink again.
        """
        name = tenant.name
        if len(self._on(tenant.pool)) < 2 and not _is_joint(tenant.pool):
            raise ConfigurationError(f"tenant {name!r} is not linked to another")

        def part() -> str:
            now = self._tenant(name)
            others = [row for row in self._on(now.pool) if row.name != name]
            for other in others:
                self._store.remember(_apart(name, other.name), "unlinked")
            self._note(now, by=by)
            pool = self._home(others)
            self._move({name: [now], pool: others}, by=by)
            return pool

        self._settle([_tried(part)], by=by)

    def pardon(self, tenant: Tenant, *, by: str = "operator") -> None:
        """Forget what a tenant covered and how suspicious it was; what it was charged stays.

        A state that is damaged begins anew.

        Raises:
            ConflictError: an entry was busy for too long; pardon again.
        """
        name = tenant.name

        def regroup() -> str:
            members = self._on(self._tenant(name).pool)
            pool = self._home(members)
            self._move({pool: members}, by=by)
            return pool

        if not _is_joint(tenant.pool) and len(self._on(tenant.pool)) > 1:
            _tried(regroup)  # linked by an earlier version: the entry is not its own
        for archive in self._served:

            def forgotten(entry: Entry, at: float, archive: Keeper = archive) -> _Change:
                try:
                    kept = archive.load(entry.sketch, at=at)
                except GuardError:
                    # Of a damaged state there is nothing to keep.
                    kept = archive.load(b"", at=at)
                return archive.pardoned(kept), 0.0, 0

            self._commit(archive, name, f"pardon:{name}", forgotten, by=by)
        if _is_joint(self._tenant(name).pool):
            self._settle([_tried(regroup)], by=by)

    def unite(self, pool: str, *, by: str = "operator") -> None:
        """Add to a pool what its tenants' own entries hold and it does not; often nothing.

        Raises:
            ConflictError: the pool was busy for too long.
        """
        members = self._on(pool)
        if members and _is_joint(pool):
            self._unite(pool, members, by=by)

    def unite_all(self) -> None:
        """Unite every pool: after a change of guard, or links made by an earlier version.

        Raises:
            ConflictError: a pool was busy for too long.
        """
        pools = Counter(row.pool for row in self._store.tenants())
        for pool in sorted(pools):
            if _is_joint(pool):
                self.unite(pool)
            elif pools[pool] > 1:
                members = self._on(pool)
                self._move({self._home(members): members}, by="operator")

    def overlaps(self) -> list[Overlap]:
        """Compare all tenants that are on different pools, most shared first.

        Raises:
            ConfigurationError: the profile keeps no evidence of shared inputs.
        """
        self.check_evidence()
        at = self._clock()
        return overlapping(
            [
                (row, self._archive.load(self._entry(row.name, self._archive).sketch, at=at).sketch)
                for row in self._store.tenants()
            ],
            self._archive,
        )

    def check_evidence(self) -> None:
        """Refuse to compare tenants of whom nothing is known to compare.

        Raises:
            ConfigurationError: the profile keeps no evidence of shared inputs.
        """
        if not self._archive.layout.samples:
            raise ConfigurationError(
                f"profile {self._version} keeps no sample of what tenants asked; compare them "
                "under one that does, as `recommended`"
            )

    def link_overlapping(self, share: float) -> list[Overlap]:
        """Link tenants that share at least so much, unless an operator has parted any of them.

        Returns:
            What was linked.

        Raises:
            ConfigurationError: `share` is not in (0, 1], or the profile keeps no evidence.
            ConflictError: a pool was busy for too long.
        """
        if not 0 < share <= 1:
            raise ConfigurationError(f"expected a share in (0, 1], got {share}")
        linked, pools = [], set()
        for pair in self.overlaps():
            if pair.shared < share or pair.seen < FEWEST_SEEN or self._are_apart(pair):
                continue
            pools.add(_tried(partial(self._join, pair.first, pair.second, by="overlap")))
            linked.append(pair)
        self._settle(sorted(pools), by="overlap")
        return linked

    def _are_apart(self, pair: Overlap) -> bool:
        """Return whether a link of two tenants would join any that are one already or parted."""
        first, second = (self._tenant(name).pool for name in (pair.first, pair.second))
        return first == second or any(
            self._store.recall(_apart(one.name, other.name)) is not None
            for one in self._on(first)
            for other in self._on(second)
        )

    def _settle(self, pools: Sequence[str], *, by: str) -> None:
        """Add to pools what running servers answered elsewhere before they noticed a move."""
        if any(map(_is_joint, pools)):
            self._sleep(SETTLE_S)
            for pool in pools:
                self.unite(pool, by=by)

    def _tenant(self, name: str) -> Tenant:
        found = self._store.find_tenant(name)
        if found is None:
            raise UnknownNameError(f"there is no tenant {name!r}; see `tollkeeper tenants list`")
        return found

    def _on(self, *pools: str) -> list[Tenant]:
        """Return the tenants that are charged on any of some pools."""
        return [row for row in self._store.tenants() if row.pool in pools]

    def _home(self, members: Sequence[Tenant]) -> str:
        """Return where tenants go that stay together; one alone goes to its own entry."""
        if len(members) < 2:
            return members[0].name if members else ""
        return self._fresh(members[0].name, members)

    def _entry(self, pool: str, archive: Keeper | None = None) -> Entry:
        return self._store.read((archive or self._main).key(pool))

    def _fresh(self, name: str, members: Sequence[Tenant]) -> str:
        """Return the name of a pool that never was, under any guard."""
        taken = {row.pool for row in self._store.tenants()}
        mine = f"{self._clock()}:{','.join(row.name for row in members)}"
        for number in count(1):
            pool = f"{name}/{number}"
            used = pool in taken or any(self._entry(pool, one).version for one in self._served)
            if not used and self._store.remember(f"pool:{pool}", mine) == mine:
                return pool
        raise AssertionError  # the numbers do not end

    def _move(self, groups: dict[str, list[Tenant]], *, by: str) -> None:
        """Charge groups of tenants on pools that are united before; all of them or none.

        Each keeps what was left of its budget, counted from the pool's spend.

        Raises:
            ConflictError: a tenant was moved or granted something since it was read.
        """
        moves = []
        for pool, members in groups.items():
            left = [self._left(row) for row in members]
            if _is_joint(pool):
                self._unite(pool, members, by=by)
            spent = self._entry(pool).spent
            for row, rest in zip(members, left, strict=True):
                moves.append(Move(row, pool, None if rest is None else spent + rest))
        self._store.move_tenants(moves)

    def _left(self, tenant: Tenant) -> float | None:
        """Return how many inputs a tenant may still be charged; None without a budget."""
        if tenant.budget is None:
            return None
        return max(0.0, tenant.budget - self._entry(tenant.pool).spent)

    def _note(self, tenant: Tenant, *, by: str) -> None:
        """Record that a tenant goes back to its own entry, which stays as it is."""

        def same(entry: Entry, at: float) -> _Change:
            return self._main.load(entry.sketch, at=at), 0.0, 0

        name = f"unlink:{tenant.pool}->{tenant.name}"
        self._commit(self._main, tenant.name, name, same, by=by, always=True)

    def _unite(self, pool: str, members: Sequence[Tenant], *, by: str) -> None:
        names = sorted(row.name for row in members)
        for archive in self._served:
            self._unite_in(archive, pool, names, by=by)

    def _unite_in(self, archive: Keeper, pool: str, names: Sequence[str], *, by: str) -> None:
        def union(entry: Entry, at: float) -> _Change:
            own = [self._entry(name, archive) for name in names]
            joint, *kept = (archive.load(one.sketch, at=at) for one in (entry, *own))
            # What is charged to a linked tenant is charged to its pool too, so what the pool
            # lacks is what was charged elsewhere.
            charge = max(0.0, math.fsum(one.spent for one in own) - entry.spent)
            inputs = max(0, sum(one.queries for one in own) - entry.queries)
            return archive.joined(joint, kept), charge, inputs

        self._commit(archive, pool, f"link:{pool}<-{','.join(names)}", union, by=by)

    def _commit(
        self,
        archive: Keeper,
        pool: str,
        name: str,
        change: Callable[[Entry, float], _Change],
        *,
        by: str,
        always: bool = False,
    ) -> None:
        """Change an entry and leave a record of it; nothing to change leaves none, or `always`."""
        if not archive.fingerprint:
            return  # nothing was served yet
        for attempt in range(MAX_ATTEMPTS):
            at, entry = self._clock(), self._entry(pool, archive)
            kept, charge, inputs = change(entry, at)
            data = archive.dump(kept)
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
                coverage=archive.reached(kept),
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


def _tried(change: Callable[[], T]) -> T:
    """Do what others may be doing too, again until it is done on what was read."""
    for _ in range(MAX_MOVES - 1):
        try:
            return change()
        except ConflictError:
            continue
    return change()


def _is_joint(pool: str) -> bool:
    """Return whether a pool is one of linked tenants; no tenant's name holds a `/`."""
    return "/" in pool


def _apart(one: str, other: str) -> str:
    """Return the fact that two tenants are not one."""
    return "apart:" + "/".join(sorted((one, other)))
