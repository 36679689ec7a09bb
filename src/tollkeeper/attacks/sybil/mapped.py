"""Any attack through several accounts whose answers are mapped into one space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from tollkeeper.attacks.asking import remaining
from tollkeeper.attacks.base import Attack, metered_accounts
from tollkeeper.attacks.sybil.mappers import Mapper, RidgeMapper
from tollkeeper.attacks.sybil.pool import SybilPool
from tollkeeper.encoders.base import Encoder
from tollkeeper.lab.progress import Progress
from tollkeeper.types import Batch


@dataclass(frozen=True, kw_only=True)
class Mapped(Attack):
    """Spread the queries over accounts, map all answers into the first one's space, then attack.

    The thief of Dubinski et al., "Bucks for Buckets (B4B)", NeurIPS 2023, section 3.4 and
    appendix. Differences from the released code: overlapping inputs are queries like all others
    and stay in the training set, they are as few as `anchors`, and any mapper fits (the released
    one is `ThreeLayerMapper`, with 10,000 inputs an account).

    Attributes:
        inner: the attack on the mapped answers.
        mapper: estimates the map between two accounts from their answers to the same inputs.
        anchors: inputs asked through every account; fewer where they would take more than half
            of the budget.
    """

    paper: ClassVar[str] = "Dubinski et al., NeurIPS 2023"
    inner: Attack
    mapper: Mapper = field(default_factory=RidgeMapper)
    anchors: int = 300

    @property
    def least_accounts(self) -> int:
        """Identities without which the method makes no sense."""
        return 2

    @property
    def asks_per_input(self) -> int:
        """Distinct queries that one input becomes."""
        return self.inner.asks_per_input

    def most_queries(self, inputs: int, accounts: int) -> int:
        """Return the largest budget that can be spent: each input once, anchors by everyone."""
        once = self.inner.most_queries(inputs, 1)
        most = accounts * once
        # A smaller budget has fewer anchors, with which less can be asked again.
        while most > (less := once + (accounts - 1) * min(once, self._shared(most, accounts))):
            most = less
        return most

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Attack the pool of accounts as if it were one encoder."""
        pooling, attacking = rng.spawn(2)
        accounts = metered_accounts(victim)
        anchors = self._shared(remaining(victim), len(accounts))
        pool = SybilPool(accounts, anchors=anchors, mapper=self.mapper, rng=pooling)
        return self.inner.run(pool, queries, rng=attacking, progress=progress)

    def _shared(self, budget: int, accounts: int) -> int:
        """Return the anchors of a budget; at most half of it goes into them."""
        return max(2, min(self.anchors, budget // (2 * accounts)))
