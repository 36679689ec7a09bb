"""One attack through several accounts that take turns, against detectors with a memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tollkeeper.attacks.asking import remaining
from tollkeeper.attacks.base import Attack, metered_accounts
from tollkeeper.attacks.sybil.roster import Roster
from tollkeeper.encoders.base import Encoder
from tollkeeper.lab.progress import Progress
from tollkeeper.types import Batch, Embeddings


class Turns:
    """Several accounts as one victim: each input goes to the account whose turn it is.

    An input asked before goes to the account that answered it, where it is a repeat. An account
    that refuses is left, and the others are asked what it did not answer.
    """

    def __init__(self, roster: Roster) -> None:
        """Take turns among the accounts of a roster."""
        first = roster.accounts[0]
        self.name, self.dim, self.accepts = first.name, first.dim, first.accepts
        self._first, self._roster = first, roster

    @property
    def remaining(self) -> int:
        """Distinct inputs that may still be asked of all metered accounts together."""
        return remaining(self._first)

    def embed(self, inputs: Batch) -> Embeddings:
        """Return (n, k) answers in input order.

        Raises:
            TollkeeperError: no account is left.
        """
        rows = np.empty((len(inputs), self.dim), np.float32)
        for share in self._roster.ask(inputs) if len(inputs) else []:
            rows[share.positions] = share.embeddings
        return rows


@dataclass(frozen=True, kw_only=True)
class Rotating(Attack):
    """Any attack on a classifier, through accounts that take turns.

    With k accounts each asks a k-th of the queries and has that many distances or neighbors
    for PRADA and its like to judge.

    Attributes:
        inner: the attack.
        turn: pictures that an account is asked before it is the next one's turn.
    """

    paper: ClassVar[str] = "ours"
    inner: Attack
    turn: int = 1

    @property
    def least_accounts(self) -> int:
        """Two, to take turns."""
        return 2

    @property
    def asks_per_input(self) -> int:
        """Distinct queries that one input becomes."""
        return self.inner.asks_per_input

    def most_queries(self, inputs: int, accounts: int) -> int:
        """Return the largest budget that the inner attack can spend: no input is asked twice."""
        del accounts
        return self.inner.most_queries(inputs, 1)

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Run the inner attack."""
        turns = Turns(Roster(metered_accounts(victim), turn=self.turn))
        return self.inner.run(turns, queries, rng=rng, progress=progress)
