"""Several accounts as one encoder, without one input that two of them are asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.asking import remaining
from tollkeeper.attacks.sybil.mappers import Map
from tollkeeper.attacks.sybil.matching import Matcher
from tollkeeper.attacks.sybil.roster import Roster
from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Batch, Embeddings


class DisjointPool:
    """Spreads inputs over the accounts and matches the spaces by the statistics of the answers.

    Matching wants many answers: `collect` everything first, then `embed` gives it out without
    asking again. Without that, accounts are matched anew whenever they have twice the answers
    they were matched by, and answers given before keep their worse map. Refusals and repeats are
    handled as by `SybilPool`.

    Attributes:
        accounts: the k encoders.
        dim: width of the first account's answers.
        roster: who answered how much.
    """

    def __init__(
        self,
        accounts: Sequence[Encoder],
        *,
        matcher: Matcher,
        rng: np.random.Generator,
        turn: int = 1,
    ) -> None:
        """Pool accounts.

        Args:
            accounts: 1 to 25 encoders.
            matcher: learns the maps.
            rng: for the matcher.
            turn: new inputs that an account gets in a row; 1 lets all see the same mix, which
                matching needs: shards of different classes match much worse.

        Raises:
            ConfigurationError: the number of accounts or turns makes no sense.
        """
        self._recorded = [_Recorded(account) for account in accounts]
        self.roster = Roster(self._recorded, turn=turn)
        self.accounts = tuple(accounts)
        self.name, self.dim = accounts[0].name, accounts[0].dim
        self.accepts = accounts[0].accepts
        self._matcher = matcher
        self._rng = rng
        self._maps: dict[int, tuple[int, Map]] = {}  # By account, behind the rows matched by.

    @property
    def remaining(self) -> int:
        """Distinct inputs that may still be asked when the accounts share a budget.

        Collected inputs count: they are there for the asking.

        Raises:
            ConfigurationError: the accounts are not metered.
        """
        return remaining(self.accounts[0]) + self.roster.collected

    def collect(self, inputs: Batch) -> NDArray[np.bool_]:
        """Ask for n inputs and keep the answers for `embed`.

        Returns:
            (n,) whether the answer is there; all of them unless every account refuses.
        """
        return self.roster.collect(inputs)

    def embed(self, inputs: Batch) -> Embeddings:
        """Give the answers to n inputs: (n, d) float32 in the first account's space.

        Raises:
            InputError: from an account; or too few answers to match by.
            RefusalError: every account refuses, the last one like this; or the first one did
                before it had answered anything.
            EncoderError: likewise.
        """
        rows = np.empty((len(inputs), self.dim), dtype=np.float32)
        for share in self.roster.ask(inputs):
            rows[share.positions] = self._mapped(share.account, share.embeddings)
        return rows

    def _mapped(self, number: int, rows: Embeddings) -> Embeddings:
        """Return (m, d) answers of one account in the first account's space."""
        if number == 0:
            return rows
        if 0 in self.roster.refusals and not self._recorded[0].count:
            raise self.roster.refusals[0]
        few = min(self._recorded[0].count, self._recorded[number].count)
        matched_by, _ = self._maps.get(number, (0, None))
        if few >= 2 * matched_by:
            source, target = self._recorded[number].rows(), self._recorded[0].rows()
            self._maps[number] = few, self._matcher.match(source, target, rng=self._rng)
        return self._maps[number][1](rows)


class _Recorded:
    """An encoder that remembers its answers.

    Attributes:
        count: answers so far.
    """

    def __init__(self, account: Encoder) -> None:
        self.name, self.dim, self.accepts = account.name, account.dim, account.accepts
        self.count = 0
        self._account = account
        self._answers: list[Embeddings] = []

    def embed(self, inputs: Batch) -> Embeddings:
        answers = self._account.embed(inputs)
        self._answers.append(answers)
        self.count += len(answers)
        return answers

    def rows(self) -> Embeddings:
        """Return all answers (n, d)."""
        return np.concatenate(self._answers)
