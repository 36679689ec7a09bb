"""What a service asks of whoever decides about its requests, and what all of these share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import RefusalError, RequestError
from tollkeeper.gateway.archive import Kept
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.booth import Booth
from tollkeeper.gateway.grants import Grant, Grants
from tollkeeper.gateway.plans import Plans, Priced
from tollkeeper.gateway.policy import Decision
from tollkeeper.ledger.spent import SpentStore
from tollkeeper.types import Account, Embeddings


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """Requests of one account that are decided.

    Attributes:
        outputs: (n, d') what leaves.
        opened: (n,) which inputs are charged: they were new.
        kept: the pool's state afterwards.
        mark: notes the same inputs in another state, that of a linked tenant itself.
        decision: policy's.
        enforced: whether decisions about the account are carried out.
        coverage: of the pool afterwards, in [0, 1]; None where nothing is covered.
        noise_scale: (n,) what the guard added to each.
        refusal: what to raise instead of an answer, where a refusal changes the state too.
    """

    outputs: Embeddings
    opened: NDArray[np.bool_]
    kept: Kept
    mark: Callable[[Kept], Kept]
    decision: Decision
    enforced: bool
    coverage: float | None
    noise_scale: NDArray[np.float32]
    refusal: RefusalError | RequestError | None = None


class BaseAdmission(ABC):
    """Decides about requests; what differs is what an answer reveals, and so its price.

    Attributes:
        booth: takes tolls.
        plans: what accounts meet; may be replaced while serving.
        version: what decides, for the records.
        remembers: whether pools have a state to keep.
        screens: whether `screen` ever refuses.
    """

    booth: Booth
    plans: Plans
    version: str
    remembers: bool
    screens: bool = False

    def __init__(
        self,
        *,
        booth: Booth,
        plans: Plans,
        grants: Grants,
        spent: SpentStore,
        clock: Callable[[], float],
        shadow: bool,
    ) -> None:
        """Hold the parts.

        Args:
            booth: takes tolls.
            plans: what accounts meet.
            grants: reads grants.
            spent: what of grants is used up.
            clock: seconds since the epoch.
            shadow: nothing is enforced for anyone.
        """
        self.booth = booth
        self.plans = plans
        self._grants = grants
        self._spent = spent
        self._clock = clock
        self._shadow = shadow

    def stamp(self, account: Account) -> str:  # noqa: ARG002 - most decide alike about all
        """Return what decides about an account, for its records."""
        return self.version

    @abstractmethod
    def ladder(self, account: Account) -> Priced:
        """Return what challenges to an account are bound to."""

    @abstractmethod
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

    def screen(self, kept: Kept, ask: Ask, *, spent: float) -> None:  # noqa: B027 - few can tell
        """Refuse what is refused whatever the model answers, so that the model need not be called.

        Args:
            kept: the pool's state.
            ask: checked, not embedded.
            spent: inputs charged to the pool so far.

        Raises:
            RefusalError: `admit` would raise one too.
        """

    def check(self, plans: Plans) -> None:  # noqa: B027 - most plans hold everywhere
        """Refuse plans that cannot hold here.

        Raises:
            ConfigurationError: says which and why.
        """

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

    def _use_grant(self, account: Account, asks: Sequence[Ask]) -> Grant | None:
        """Take all inputs of requests from the account's grant; None if it does not cover them.

        All inputs are counted, or one new input would fetch clean answers to any number of old
        ones.
        """
        grant = self.granted(account)
        amount = sum(len(ask.inputs) for ask in asks)
        if grant is None or not self._spent.spend(
            grant.account, amount, limit=grant.inputs, expires=grant.until
        ):
            return None
        asks[0].spendings.append((grant.account, amount))
        return grant

    def refund(self, asks: Sequence[Ask]) -> None:
        """Give back what requests used up that are not answered, or are decided anew.

        Raises:
            LedgerError: the store of what is spent failed.
        """
        for ask in asks:
            while ask.spendings:
                self._spent.refund(*ask.spendings.pop())

    def prune(self, kept_s: float) -> None:
        """Forget what expired so many seconds ago.

        Raises:
            LedgerError: the store of what is spent failed.
        """
        self._spent.prune(self._clock() - kept_s)
