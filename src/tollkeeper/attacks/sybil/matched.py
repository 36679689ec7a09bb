"""An attack through several accounts that are asked nothing in common."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from tollkeeper.attacks.asking import remaining, take
from tollkeeper.attacks.base import Attack, metered_accounts
from tollkeeper.attacks.offline import Offline
from tollkeeper.attacks.selection.base import no_answers
from tollkeeper.attacks.selection.random import FixedOrder
from tollkeeper.attacks.sybil.disjoint import DisjointPool
from tollkeeper.attacks.sybil.matching import CoordinateMatcher, Matcher
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.progress import Progress
from tollkeeper.types import Batch


@dataclass(frozen=True, kw_only=True)
class Matched(Attack):
    """Spread the queries over accounts without overlap, match the answers, then attack.

    Not published. Against orthogonal transforms use `alignment.RotationMatcher`.

    Attributes:
        inner: the attack on the matched answers.
        matcher: brings two accounts' answers together by their statistics.
    """

    paper: ClassVar[str] = "ours"
    inner: Offline
    matcher: Matcher = field(default_factory=CoordinateMatcher)

    @property
    def least_accounts(self) -> int:
        """Identities without which the method makes no sense."""
        return 2

    def __post_init__(self) -> None:
        """Refuse what would be asked beside the matched inputs.

        Raises:
            ConfigurationError: the inner attack asks several inputs in place of one.
        """
        if self.inner.asks_per_input != 1:
            raise ConfigurationError(
                "expected an inner attack that asks each input as it is, got "
                f"{self.inner.asks_per_input} queries per input"
            )

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Collect all answers first, because a match by more of them is better."""
        choosing, pooling, attacking = rng.spawn(3)
        pool = DisjointPool(metered_accounts(victim), matcher=self.matcher, rng=pooling)
        count = min(len(queries), remaining(victim))
        chosen = self.inner.selection.choose(queries, count, ask=no_answers, rng=choosing)
        there = pool.collect(take(queries, chosen))
        if not there.any():
            raise next(iter(pool.roster.refusals.values()))
        known = take(queries, chosen[there])
        inner = replace(self.inner, selection=FixedOrder())
        return inner.run(pool, known, rng=attacking, progress=progress)
