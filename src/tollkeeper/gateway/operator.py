"""What an operator may do: one set of verbs for the admin plane and the command line."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from tollkeeper.errors import ConfigurationError, UnknownNameError
from tollkeeper.gateway.archive import Archive, Keeper, windows
from tollkeeper.gateway.auth import KeyRing
from tollkeeper.gateway.grants import Grant, Grants
from tollkeeper.gateway.links import Links
from tollkeeper.gateway.overlaps import Overlap
from tollkeeper.gateway.plans import Plans
from tollkeeper.gateway.pools import Deployment
from tollkeeper.gateway.predict_archive import PredictArchive
from tollkeeper.gateway.reports import TenantReport
from tollkeeper.gateway.stores import Store
from tollkeeper.guard import profiles
from tollkeeper.guard.windows import DAY_S
from tollkeeper.types import Entry, KeyInfo, Record, Tenant

MAX_NAME = 200
MOST_DAYS = 3660
MODES = ("enforce", "shadow", "plan")


class Operator:
    """The operator's verbs over a ledger.

    Attributes:
        plans: by which it reports; may be replaced.
        alarms: by plan, the suspicion at which accounts of predictions get nothing new.
    """

    def __init__(
        self,
        store: Store,
        keyring: KeyRing,
        deployment: Deployment | None,
        *,
        clock: Callable[[], float],
        plans: Plans,
        grants: Grants,
        spent: Callable[[str], int],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Act on `store`; without a deployment there are no sketches to read yet.

        `spent` returns what of an allowance is used up; `sleep` waits for running servers.
        """
        self._store = store
        self._keyring = keyring
        self._deployment = deployment
        self._clock = clock
        self.plans = plans
        self.alarms = deployment.alarms if deployment else {}
        self._grants = grants
        self._spent = spent
        self._sleep = sleep
        profile = profiles.get(deployment.profile if deployment else "none")
        self._profile = profile.with_knee(deployment.knee if deployment else None)
        self._version = f"{profile.name}/{profile.version}"
        self._tracks = profile.tables > 0
        turning = windows(deployment.window, deployment.carry_over) if deployment else None
        self._predictions = PredictArchive(deployment.predictions if deployment else "", turning)
        self._archive = Archive(
            profile.layout,
            turning,
            deployment.fingerprint if deployment else "",
            deployment.window_since if deployment else 0.0,
        )

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

    def suspend(self, name: str, note: str = "") -> None:
        """Refuse a tenant from now on; the note says why."""
        tenant = self._find(name)
        self._change(replace(tenant, suspended=True), "suspended", note)

    def resume(self, name: str, note: str = "") -> None:
        """Let a suspended tenant in again; the note says why."""
        self._change(replace(self._find(name), suspended=False), "resumed", note)

    def note(self, name: str, text: str) -> None:
        """Write a note about a tenant into the records, an appeal for example."""
        self._change(self._find(name), "note", text)

    def set_plan(self, name: str, plan: str) -> None:
        """Let another plan hold for a tenant; an empty name means the default.

        Raises:
            ConfigurationError: there is no such plan.
            UnknownNameError: there is no such tenant.
        """
        if plan and plan not in self.plans.names:
            known = ", ".join(self.plans.names)
            raise ConfigurationError(f"expected a plan of {known}, got {plan!r}")
        self._change(replace(self._find(name), plan=plan), "plan", plan or "default")

    def set_mode(self, name: str, mode: str) -> None:
        """Enforce a tenant's plan, only record it, or do as the plan says.

        Args:
            name: the tenant.
            mode: `enforce`, `shadow` or `plan`.

        Raises:
            ConfigurationError: another mode.
            UnknownNameError: there is no such tenant.
        """
        if mode not in MODES:
            raise ConfigurationError(f"expected a mode of {', '.join(MODES)}, got {mode!r}")
        stored = "" if mode == "plan" else mode
        self._change(replace(self._find(name), mode=stored), "mode", mode)

    def allow(self, name: str, inputs: int, days: float, note: str = "") -> Grant:
        """Sign a grant for a tenant, in place of the one that it has.

        Args:
            name: the tenant.
            inputs: so many are free of toll, ration and noise, and do not count as breadth.
            days: how long, from now.
            note: why.

        Raises:
            ConfigurationError: no inputs, or no days.
            UnknownNameError: there is no such tenant.
        """
        now = self._clock()
        if not 0 < days <= MOST_DAYS:
            raise ConfigurationError(
                f"expected more than 0 and at most {MOST_DAYS} days, got {days}"
            )
        grant = Grant(secrets.token_hex(8), name, inputs, now, now + days * DAY_S, note)
        reason = f"{inputs} inputs for {days:g} days, grant {grant.id}: {note}"
        self._change(replace(self._find(name), grant=self._grants.sign(grant)), "allowed", reason)
        return grant

    def disallow(self, name: str) -> None:
        """Take a tenant's grant away; what it was used for stays free."""
        self._change(replace(self._find(name), grant=""), "disallowed", "")

    def _change(self, tenant: Tenant, action: str, reason: str) -> None:
        """Store a tenant, and write down what was done."""
        if action in {"suspended", "resumed", "note"} and reason:
            tenant = replace(tenant, note=reason)
        self._store.update_tenant(tenant)
        self._store.note([self._record(tenant.name, action, reason)])

    def _record(self, tenant: str, action: str, reason: str) -> Record:
        return Record(
            at=self._clock(),
            tenant=tenant,
            key_id="",
            request_id="operator",
            model=self._deployment.model if self._deployment else "",
            inputs=0,
            tokens=0,
            charge=0.0,
            coverage=0.0,
            noise_scale=0.0,
            profile=self._version,
            decision=action,
            reason=reason,
        )

    def grant(self, name: str, inputs: float) -> None:
        """Set a tenant's hard budget to what it has spent plus `inputs` more.

        Embeddings and predictions are held to it apart, so it counts from the larger spend.
        Infinity takes the budget away.

        Raises:
            ConfigurationError: `inputs` is not positive.
            UnknownNameError: there is no such tenant.
        """
        if not inputs > 0:
            raise ConfigurationError(f"expected a positive number of inputs, got {inputs}")
        tenant = self._find(name)
        spent = max(self._read(tenant).spent, self._read(tenant, self._predictions).spent)
        budget = None if inputs == math.inf else spent + inputs
        self._store.update_tenant(replace(tenant, budget=budget))

    def link(self, first: str, second: str) -> None:
        """Charge two tenants, and all linked to either, as one; see `Links.link`.

        A running server follows within a second; what it answered on the old pools meanwhile
        is added at the end. What takes longer (a slow encoder) is added when a server starts,
        and by a further link of the same tenants.

        Raises:
            ConfigurationError: both are the same tenant.
            UnknownNameError: there is no such tenant.
            ConflictError: the pool was busy for too long; link again.
        """
        one, other = self._find(first), self._find(second)
        if first == second:
            raise ConfigurationError(f"expected two tenants to link, got {first!r} twice")
        self._links().link(one, other)

    def unlink(self, name: str) -> None:
        """Charge a tenant on what it asked itself again; see `Links.unlink`.

        Raises:
            ConfigurationError: it is not linked.
            UnknownNameError: there is no such tenant.
        """
        self._links().unlink(self._find(name))

    def pardon(self, name: str) -> None:
        """Forget what a tenant covered, so that it asks for free again; its spend stays.

        Raises:
            UnknownNameError: there is no such tenant.
        """
        self._links().pardon(self._find(name))

    def overlaps(self) -> list[Overlap]:
        """Return pairs of tenants that asked the same, most shared first.

        Raises:
            ConfigurationError: the profile keeps no evidence of shared inputs.
        """
        return self._links().overlaps()

    def check_evidence(self) -> None:
        """Refuse to compare tenants under a profile that keeps nothing to compare."""
        self._links().check_evidence()

    def link_overlapping(self, share: float) -> list[Overlap]:
        """Link tenants that share at least so much of their inputs; see `Links`."""
        return self._links().link_overlapping(share)

    def unite_pools(self) -> None:
        """Make every pool the union of its tenants under the running guard."""
        self._links().unite_all()

    def _links(self) -> Links:
        return Links(
            self._store,
            self._archive,
            beside=[self._predictions],
            version=self._version,
            clock=self._clock,
            sleep=self._sleep,
        )

    def plan_warnings(self) -> list[str]:
        """Return what an operator should know about plans: a sentence each."""
        return self.plans.warnings()

    def check_plans(self, plans: Plans) -> None:
        """Refuse plans that leave a tenant without its own: the default might be harder on it.

        Raises:
            ConfigurationError: names the tenants.
        """
        lost = [row for row in self._store.tenants() if row.plan and row.plan not in plans.names]
        if lost:
            named = ", ".join(f"{row.name} ({row.plan})" for row in lost[:10])
            raise ConfigurationError(
                f"tenants have plans that are not written: {named}; write them, or let these "
                "tenants have the default with `tollkeeper tenants plan TENANT default`"
            )

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

    def _read(self, tenant: Tenant, archive: Keeper | None = None) -> Entry:
        archive = archive or self._archive
        known = bool(archive.fingerprint)
        return self._store.read(archive.key(tenant.pool)) if known else Entry(tenant.pool)

    def _find(self, name: str) -> Tenant:
        tenant = self._store.find_tenant(name)
        if tenant is None:
            raise UnknownNameError(f"there is no tenant {name!r}; see `tollkeeper tenants list`")
        return tenant

    def _report(self, tenant: Tenant) -> TenantReport:
        entry, predicted = self._read(tenant), self._read(tenant, self._predictions)
        ladder = self.plans.of(tenant.plan)
        coverage = alone = scale = None
        reached = 0.0
        if self._tracks:
            coverage = reached = self._covered(entry)
            alone = self._covered(self._read(replace(tenant, pool=tenant.name)))
            seen = np.array([max(0.0, reached - ladder.forgiven)])
            scale = float(self._profile.price(seen)[0])
        grant = self._grants.read(tenant.grant, tenant=tenant.name)
        plan = tenant.plan if tenant.plan in self.plans.names else self.plans.default
        alarm_at = self.alarms.get(plan)
        suspicion = self._predictions.suspicion(predicted, at=self._clock())
        alarmed = suspicion is not None and alarm_at is not None and suspicion >= alarm_at
        standing = "alarmed" if alarmed else ladder.rung(reached)
        return TenantReport(
            name=tenant.name,
            pool=tenant.pool,
            suspended=tenant.suspended,
            budget=tenant.budget,
            spent=entry.spent,
            queries=entry.queries,
            coverage=coverage,
            alone=alone,
            noise_scale=scale,
            standing="suspended" if tenant.suspended else standing,
            plan=tenant.plan or self.plans.default,
            mode=self.plans.mode(tenant.name, tenant.plan, tenant.mode),
            price_s=ladder.seconds(reached),
            grant=grant,
            grant_left=None if grant is None else grant.inputs - self._spent(grant.account),
            note=tenant.note,
            predicted=predicted.spent,
            suspicion=suspicion,
            alarm_at=alarm_at,
        )

    def _covered(self, entry: Entry) -> float:
        """Return the coverage of an entry by now."""
        return self._archive.reached(self._archive.load(entry.sketch, at=self._clock()))
