"""What an attack is, and what one finished run of it yields.

An attack turns a victim and a pool of inputs into a surrogate. The final `__call__` meters,
times and watches the victim; a new attack writes one method, `run`, and does no counting of its
own. An attack knows an `Encoder` and nothing else: whether a guard stands in front of it
makes no difference to its code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.encoders.metered import FREE, Meter, MeteredEncoder, Price
from tollkeeper.errors import ConfigurationError, EncoderError, TollkeeperError
from tollkeeper.lab.progress import Progress, silent
from tollkeeper.types import Batch, Embeddings

Clock = Callable[[], float]
"""Monotonic seconds."""

UNLIMITED = 2**63 - 1
"""What `most_queries` returns for an attack that makes its queries itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Theft:
    """One finished run of an attack.

    Attributes:
        surrogate: the copy.
        queries_spent: distinct inputs that were answered, summed over accounts.
        repeats: inputs that were answered again.
        calls: calls that were answered.
        charge: money spent at the stated price.
        seconds: from the first query to the finished surrogate.
        asking_s: seconds of those that the victim took.
        partial: why the victim, or one of several accounts, had stopped answering by the end;
            empty if none had.
    """

    surrogate: Encoder
    queries_spent: int
    repeats: int
    calls: int
    charge: float
    seconds: float
    asking_s: float
    partial: str = ""


class Attack(ABC):
    """One way to copy an encoder; hyperparameters are fields of a frozen dataclass.

    Attributes:
        paper: where the method was published.
    """

    paper: ClassVar[str] = ""

    @property
    def least_accounts(self) -> int:
        """Identities without which the method makes no sense."""
        return 1

    @property
    def asks_per_input(self) -> int:
        """Distinct queries that one input of the pool can become for one account."""
        return 1

    def most_queries(self, inputs: int, accounts: int) -> int:
        """Return the largest budget that the attack can spend.

        Args:
            inputs: in the pool; an attack that makes its queries itself returns `UNLIMITED`.
            accounts: that are asked; few attacks ask two of them the same.
        """
        del accounts
        return inputs * self.asks_per_input

    @final
    def __call__(
        self,
        victim: Encoder,
        queries: Batch,
        *,
        budget: int,
        rng: np.random.Generator,
        clock: Clock,
        price: Price = FREE,
        progress: Progress = silent,
    ) -> Theft:
        """Copy `victim`.

        Args:
            victim: whom to ask; `Accounts` for an attacker with several identities.
            queries: the attacker's pool of n inputs.
            budget: distinct inputs that may be asked, from `asks_per_input` to `most_queries`.
            rng: all randomness of the run.
            clock: monotonic seconds.
            price: what the target takes.
            progress: told after each step.

        Returns:
            The surrogate and what it cost. A victim that stops answering half-way yields a
            surrogate of what was answered, with `partial` set.

        Raises:
            ConfigurationError: the budget does not fit the pool, or there are too few accounts.
            TollkeeperError: whatever the victim raised before it had answered anything.
        """
        self._check(victim, queries, budget)
        meter = Meter(budget)
        watches = [Watch(clock) for _ in range(accounts_in(victim))]
        began = clock()
        surrogate = self.run(_metered(victim, meter, watches), queries, rng=rng, progress=progress)
        assert meter.queries_spent <= budget, "an attack went around its meter"
        return Theft(
            surrogate=surrogate,
            queries_spent=meter.queries_spent,
            repeats=meter.repeats,
            calls=meter.calls,
            charge=meter.charge(price),
            seconds=clock() - began,
            asking_s=sum(watch.seconds for watch in watches),
            partial=_failure(watches),
        )

    @abstractmethod
    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Return the surrogate; the one method that an attack writes.

        Args:
            victim: metered; `tollkeeper.attacks.asking.remaining(victim)` queries are left.
            queries: the pool of n inputs.
            rng: all randomness of the run.
            progress: told after each step.
        """

    @final
    def check_accounts(self, count: int) -> None:
        """Refuse too few identities.

        Raises:
            ConfigurationError: fewer than `least_accounts`.
        """
        if count < self.least_accounts:
            raise ConfigurationError(
                f"expected at least {self.least_accounts} accounts, got {count}: of a URL one "
                "is an API key, of an encoder of this process `--accounts` tells how many"
            )

    def _check(self, victim: Encoder, queries: Batch, budget: int) -> None:
        accounts = accounts_in(victim)
        self.check_accounts(accounts)
        least, most = self.asks_per_input, self.most_queries(len(queries), accounts)
        if budget < least and most >= UNLIMITED:
            raise ConfigurationError(f"expected a budget of at least {least:,}, got {budget:,}")
        if not least <= budget <= most:
            raise ConfigurationError(
                f"expected a budget between {least:,} and {most:,} queries, which is what the "
                f"attack can ask of a pool of {len(queries):,} inputs, got {budget:,}"
            )


def accounts_in(victim: Encoder) -> int:
    """Return how many accounts a victim is asked through."""
    return len(victim.accounts) if isinstance(victim, Accounts) else 1


@dataclass(slots=True)
class Watch:
    """What happened at the border to one account.

    Attributes:
        clock: monotonic seconds.
        seconds: spent waiting for answers.
        failure: how the last call was refused or failed; empty if it was answered.
    """

    clock: Clock
    seconds: float = 0.0
    failure: str = ""


class _Watched:
    """Passes calls on, times them, checks the answers and notes failures."""

    def __init__(self, victim: Encoder, watch: Watch) -> None:
        self.name, self.dim, self.accepts = victim.name, victim.dim, victim.accepts
        self._victim, self._watch = victim, watch

    def embed(self, inputs: Batch) -> Embeddings:
        began = self._watch.clock()
        try:
            answers = checked(self._victim.embed(inputs), n=len(inputs), dim=self.dim)
        except TollkeeperError as error:
            self._watch.failure = str(error)
            raise
        except (OSError, ValueError, TypeError) as error:
            # A callable of the user's or a broken connection; one line, not a traceback.
            self._watch.failure = f"the victim failed: {error!r}"
            raise EncoderError(self._watch.failure) from error
        finally:
            self._watch.seconds += self._watch.clock() - began
        self._watch.failure = ""
        return answers


def _failure(watches: Sequence[Watch]) -> str:
    """Return how the first account that had stopped did; empty if none had."""
    for number, watch in enumerate(watches, start=1):
        if watch.failure:
            which = f"account {number} of {len(watches)}: " if len(watches) > 1 else ""
            return which + watch.failure
    return ""


def _metered(victim: Encoder, meter: Meter, watches: Sequence[Watch]) -> Encoder:
    if not isinstance(victim, Accounts):
        return MeteredEncoder(_Watched(victim, watches[0]), meter=meter)
    pairs = zip(victim.accounts, watches, strict=True)
    return Accounts(
        [
            MeteredEncoder(_Watched(one, watch), meter=meter, account=number)
            for number, (one, watch) in enumerate(pairs)
        ]
    )


def metered_accounts(victim: Encoder) -> Sequence[Encoder]:
    """Return the accounts of a victim as `run` gets it; a single one if it has no others."""
    return victim.accounts if isinstance(victim, Accounts) else (victim,)
