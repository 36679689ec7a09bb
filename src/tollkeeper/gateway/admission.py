"""Where the guard and policy meet: what leaves for one account's requests, and why."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import RefusalError, RequestError
from tollkeeper.gateway.admits import Admitted, BaseAdmission
from tollkeeper.gateway.archive import Kept
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.booth import Booth
from tollkeeper.gateway.grants import Grants
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Ladder, Plans
from tollkeeper.gateway.policy import Case, Policy
from tollkeeper.gateway.wire import canonical
from tollkeeper.guard import profiles
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.terms import Terms
from tollkeeper.ledger.spent import SpentStore
from tollkeeper.types import Account, Embeddings, Verdict

ALL: Final = "*"
"""Stands for every tenant among those that are marked."""


class _Weighed(NamedTuple):
    """A verdict without embeddings, what makes these, and what the verdict took."""

    verdict: Verdict
    answer: Callable[[], Embeddings]
    seconds: float


class Admission(BaseAdmission):
    """Asks the guard, then policy."""

    def __init__(
        self,
        guard: Guard,
        policy: Policy,
        *,
        booth: Booth,
        plans: Plans,
        grants: Grants,
        spent: SpentStore,
        clock: Callable[[], float],
        rng: np.random.Generator,
        metrics: Metrics,
        shadow: bool,
        key_version: int,
        marked: Collection[str] = (),
    ) -> None:
        """Hold the parts.

        Args:
            guard: prices what an answer reveals.
            policy: decides whether there is one.
            booth: takes tolls.
            plans: what accounts meet.
            grants: reads grants.
            spent: what of grants is used up.
            clock: seconds since the epoch.
            rng: source of fresh noise, for profiles that use it.
            metrics: instruments of this server.
            shadow: nothing is enforced for anyone.
            key_version: version of the tenants' transform keys.
            marked: tenants whose answers carry their mark; `ALL` is everyone.

        Raises:
            GuardError: the guard cannot mark.
        """
        super().__init__(
            booth=booth, plans=plans, grants=grants, spent=spent, clock=clock, shadow=shadow
        )
        self._policy = policy
        self.guard = guard
        self.version = guard.version
        self.remembers = guard.tracks
        self._rng = rng
        self._metrics = metrics
        self._key_version = key_version
        self._marked = frozenset(marked)
        if self._marked:
            guard.marker  # noqa: B018 - fails now rather than at a request
        # What clients get in shadow mode is what profile `none` gives them.
        self._unguarded = Guard(profiles.NONE, guard.calibration, secret=bytes(32))

    def stamp(self, account: Account) -> str:
        """Return profile and version, and whether answers carry a mark."""
        marked = self._is_marked(account) and not self._shadow
        return f"{self.version}+mark" if marked else self.version

    def ladder(self, account: Account) -> Ladder:
        """Return the ladder of an account."""
        return self.plans.of(account.plan)

    def admit(self, kept: Kept, asks: Sequence[Ask], *, spent: float) -> Admitted | None:
        """Let the guard price requests and policy decide; see `BaseAdmission`."""
        account, plans = asks[0].account, self.plans  # which may be replaced meanwhile
        ladder, enforced = plans.of(account.plan), self._enforced(plans, account)
        case = Case(account, ladder, enforced)
        case, weighed = self._judge(case, kept, asks)
        verdict = weighed.verdict
        if len(asks) > 1 and (verdict.refused or self._policy.is_steep(case, verdict)):
            self.refund(asks)
            return None
        try:
            decision = self._policy.decide(case, asks[0], verdict, spent=spent)
        except (RefusalError, RequestError):
            self._metrics.guard_seconds.observe(weighed.seconds)
            self.refund(asks)
            raise
        after = replace(kept, sketch=verdict.sketch, spared=verdict.spared)
        # Last, for what is not answered needs no noise.
        started = time.perf_counter()
        outgoing = weighed.answer() if case.enforced else self._in_shadow(asks)
        self._metrics.guard_seconds.observe(weighed.seconds + time.perf_counter() - started)
        return Admitted(
            outgoing,
            verdict.opened,
            after,
            partial(self._mark, places=verdict.places, granted=case.grant is not None),
            decision,
            case.enforced,
            verdict.coverage,
            verdict.noise_scale,
        )

    def refund(self, asks: Sequence[Ask]) -> None:
        """Give back what requests used up, rations too; see `BaseAdmission`."""
        for ask in asks:
            self._policy.put_back(ask)
        super().refund(asks)

    def _mark(self, kept: Kept, *, places: NDArray[np.intp], granted: bool) -> Kept:
        """Note in a linked tenant's own state what it asked itself."""
        layout, spared = self.guard.profile.layout, kept.spared
        sketch = self.guard.mark_places(kept.sketch, places)
        if granted:
            spared = layout.spare(layout.signal(kept.sketch, spared), sketch)
        elif spared is not None:
            _, spared = layout.unspare(spared, places, np.arange(len(places)))
        return replace(kept, sketch=sketch, spared=spared)

    def _judge(self, case: Case, kept: Kept, asks: Sequence[Ask]) -> tuple[Case, _Weighed]:
        """Price requests under a grant, if there is one that covers them, else under the plan.

        A request without anything new needs no grant.
        """
        plain = self._weigh(case, kept, asks)
        if not (plain.verdict.charge or plain.verdict.refused):
            return case, plain
        grant = self._use_grant(case.account, asks)
        if grant is None:
            return case, plain
        granted = replace(case, grant=grant)
        return granted, self._weigh(granted, kept, asks)

    def _weigh(self, case: Case, kept: Kept, asks: Sequence[Ask]) -> _Weighed:
        key = self.guard.tenant_key(case.account.tenant, version=self._key_version)
        items = [item for ask in asks for item in ask.inputs]
        started = time.perf_counter()
        verdict, answer = self.guard.weigh(
            kept.sketch,
            _stack([ask.embeddings for ask in asks]),
            key=key,
            rng=self._rng,
            identities=Identities(items, key),
            dimensions=asks[0].dimensions,
            terms=replace(_terms(case, kept), marked=self._is_marked(case.account)),
        )
        return _Weighed(verdict, answer, time.perf_counter() - started)

    def _in_shadow(self, asks: Sequence[Ask]) -> Embeddings:
        """Return what clients get where nothing is enforced.

        A plan in shadow leaves each tenant its own view of the space, so that enforcing it
        changes no embedding. A server in shadow answers as if there were no guard.
        """
        clean, dimensions = _stack([ask.embeddings for ask in asks]), asks[0].dimensions
        if self._shadow:
            return self._unguarded.view(clean, key=bytes(32), dimensions=dimensions)
        account = asks[0].account
        key = self.guard.tenant_key(account.tenant, version=self._key_version)
        marked = self._is_marked(account)
        return self.guard.view(clean, key=key, dimensions=dimensions, marked=marked)

    def _is_marked(self, account: Account) -> bool:
        return not self._marked.isdisjoint((account.tenant, ALL))


def identity(item: Any, key: bytes) -> bytes:
    """Return what makes an input that input: a keyed hash, the same in every process."""
    return hashlib.blake2b(canonical(item), key=key, digest_size=16).digest()


class Identities(Sequence[bytes]):
    """Identities of inputs, computed only for inputs that get noise."""

    def __init__(self, items: Sequence[Any], key: bytes) -> None:
        """Identify `items` for the tenant whose key it is."""
        self._items = items
        self._key = key

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return identity(self._items[index], self._key)


def _terms(case: Case, kept: Kept) -> Terms:
    """Return what the guard has to leave out of the account's price.

    In shadow everyone is answered, so everything must be charged and recorded.
    """
    if case.grant is not None:
        return Terms(spared=kept.spared, granted=True)
    ceiling = case.ladder.refuses_at if case.enforced else None
    return Terms(case.ladder.forgiven, ceiling, kept.spared)


def _stack(parts: Sequence[Embeddings | None]) -> Embeddings:
    filled = [part for part in parts if part is not None]
    return filled[0] if len(filled) == 1 else np.concatenate(filled)
