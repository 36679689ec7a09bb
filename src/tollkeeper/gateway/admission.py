"""Where the guard and policy meet: what leaves for one account's requests, and why."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from tollkeeper.errors import RefusalError, RequestError
from tollkeeper.gateway.archive import Kept
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.booth import Booth
from tollkeeper.gateway.grants import Grant, Grants
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Ladder, Plans
from tollkeeper.gateway.policy import Case, Decision, Policy
from tollkeeper.gateway.wire import canonical
from tollkeeper.guard import profiles
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.terms import Terms
from tollkeeper.ledger.spent import SpentStore
from tollkeeper.types import Account, Embeddings, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """Requests of one account that are answered.

    Attributes:
        verdict: the guard's.
        embeddings: (n, d') what leaves.
        kept: the pool's state afterwards.
        decision: policy's.
        granted: whether an allowance paid for it.
        enforced: whether decisions about the account are carried out.
    """

    verdict: Verdict
    embeddings: Embeddings
    kept: Kept
    decision: Decision
    granted: bool
    enforced: bool


class _Weighed(NamedTuple):
    """A verdict without embeddings, what makes these, and what the verdict took."""

    verdict: Verdict
    answer: Callable[[], Embeddings]
    seconds: float


class Admission:
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
    ) -> None:
        """Hold the parts.

        Args:
            guard: prices what an answer reveals.
            policy: decides whether there is one.
            booth: takes tolls.
            plans: what accounts meet; may be replaced while serving.
            grants: reads grants.
            spent: what of grants is used up.
            clock: seconds since the epoch.
            rng: source of fresh noise, for profiles that use it.
            metrics: instruments of this server.
            shadow: nothing is enforced for anyone.
            key_version: version of the tenants' transform keys.
        """
        self.guard = guard
        self.booth = booth
        self.plans = plans
        self._policy = policy
        self._grants = grants
        self._spent = spent
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._shadow = shadow
        self._key_version = key_version
        # What clients get in shadow mode is what profile `none` gives them.
        self._unguarded = Guard(profiles.NONE, guard.calibration, secret=bytes(32))

    def ladder(self, account: Account) -> Ladder:
        """Return the ladder of an account."""
        return self.plans.of(account.plan)

    def enforces(self, account: Account) -> bool:
        """Return whether decisions about an account are carried out."""
        return self._enforced(self.plans, account)

    def _enforced(self, plans: Plans, account: Account) -> bool:
        mode = plans.mode(account.tenant, account.plan, account.mode)
        return mode == "enforce" and not self._shadow

    def granted(self, account: Account) -> Grant | None:
        """Return the grant of an account, if it runs and is not used up.

        Raises:
            LedgerError: the store of what is spent failed.
        """
        grant = self._grants.read(account.grant, tenant=account.tenant)
        if grant is None or not grant.since <= self._clock() < grant.until:
            return None
        return grant if self._spent.spent(grant.account) < grant.inputs else None

    def admit(self, kept: Kept, asks: Sequence[Ask], *, spent: float) -> Admitted | None:
        """Decide about requests of one account and width, together if that is the same.

        Args:
            kept: the pool's state; not changed.
            asks: embedded, at least one.
            spent: inputs charged to the pool so far.

        Returns:
            What leaves; None if the requests have to be decided one by one.

        Raises:
            RefusalError: the only request is not answered, and nothing was marked.
            RequestError: the same; it asks for more than one challenge can be for.
        """
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
        return Admitted(verdict, outgoing, after, decision, case.grant is not None, case.enforced)

    def refund(self, asks: Sequence[Ask]) -> None:
        """Give back what requests used up that are not answered, or are decided anew.

        Raises:
            LedgerError: the store of what is spent failed.
        """
        for ask in asks:
            self._policy.put_back(ask)
            while ask.spendings:
                self._spent.refund(*ask.spendings.pop())

    def prune(self, kept_s: float) -> None:
        """Forget what expired so many seconds ago.

        Raises:
            LedgerError: the store of what is spent failed.
        """
        self._spent.prune(self._clock() - kept_s)

    def _judge(self, case: Case, kept: Kept, asks: Sequence[Ask]) -> tuple[Case, _Weighed]:
        """Price requests under a grant, if there is one that covers them, else under the plan.

        All inputs of a request are counted, or one new input would fetch clean answers to any
        number of old ones; and a request without a new one needs no grant.
        """
        plain = self._weigh(case, kept, asks)
        if not (plain.verdict.charge or plain.verdict.refused):
            return case, plain
        grant = self.granted(case.account)
        amount = sum(len(ask.inputs) for ask in asks)
        if grant is None or not self._spent.spend(
            grant.account, amount, limit=grant.inputs, expires=grant.until
        ):
            return case, plain
        asks[0].spendings.append((grant.account, amount))
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
            terms=_terms(case, kept),
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
        key = self.guard.tenant_key(asks[0].account.tenant, version=self._key_version)
        return self.guard.view(clean, key=key, dimensions=dimensions)


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
