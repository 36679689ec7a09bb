"""Attacks that are another attack, with something between it and the accounts."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.base import Attack, metered_accounts
from tollkeeper.encoders.base import Encoder
from tollkeeper.lab.progress import Progress
from tollkeeper.types import Batch


@dataclass(frozen=True, kw_only=True)
class Behind(Attack):
    """Runs an attack on accounts that are asked through something; subclasses write `put`.

    Attributes:
        inner: the attack; a sybil attack for several accounts.
    """

    inner: Attack

    @property
    def least_accounts(self) -> int:
        """Identities that the inner attack needs."""
        return self.inner.least_accounts

    @property
    def asks_per_input(self) -> int:
        """Distinct queries that one input becomes."""
        return self.inner.asks_per_input

    def most_queries(self, inputs: int, accounts: int) -> int:
        """Return the largest budget that the inner attack can spend."""
        return self.inner.most_queries(inputs, accounts)

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Run the inner attack."""
        through = [self.put(account, queries) for account in metered_accounts(victim)]
        asked = Accounts(through) if len(through) > 1 else through[0]
        return self.inner.run(asked, queries, rng=rng, progress=progress)

    @abstractmethod
    def put(self, account: Encoder, queries: Batch) -> Encoder:
        """Return what the inner attack asks in place of a metered account."""
