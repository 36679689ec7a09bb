"""Several accounts as one encoder, in the space of the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tollkeeper.attacks.asking import remaining, take
from tollkeeper.attacks.sybil.mappers import Map, Mapper
from tollkeeper.attacks.sybil.roster import Roster
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings


class SybilPool:
    """Asks every account for the first inputs, and spreads all others over the accounts.

    The shared inputs tell the map from each account's space into the first one's; through it go
    all other answers. Inputs are dealt out in turn; a repeat goes to the account that answered
    before, where it opens no bucket. An account that refuses or fails drops out and its share
    goes to the others; when none is left the last refusal is raised, and what was answered in
    that call is given without asking when it is asked for again. One account is passed through.

    Source: Dubiński et al., "Bucks for Buckets (B4B)", NeurIPS 2023, its sybil attacker.
    Differences from the released code: the shared inputs are used as answers too, the defense is
    whatever stands behind the accounts, and any mapper fits.

    Attributes:
        accounts: the k encoders.
        dim: width of the first account's answers.
        roster: who answered how much.
    """

    def __init__(
        self,
        accounts: Sequence[Encoder],
        *,
        anchors: int,
        mapper: Mapper | None,
        rng: np.random.Generator,
        turn: int = 1,
    ) -> None:
        """Pool accounts.

        Args:
            accounts: 1 to 25 encoders.
            anchors: distinct inputs that all accounts are asked, the first ones to come; each
                costs k queries. At least 2, or 0 without a mapper.
            mapper: learns the maps; None gives answers as they come, for accounts in one space.
            rng: for the mapper.
            turn: new inputs that an account gets in a row; 1 lets all see the same mix.

        Raises:
            ConfigurationError: the number of accounts, anchors or turns makes no sense, or there
                is no mapper for accounts of different width.
        """
        if (mapper is None and anchors != 0) or (mapper is not None and anchors < 2):
            raise ConfigurationError(
                f"expected at least 2 anchors for a mapper and 0 without one, got {anchors}"
            )
        self.roster = Roster(accounts, turn=turn)
        self.accounts = self.roster.accounts
        self.name, self.dim = accounts[0].name, accounts[0].dim
        self.accepts = accounts[0].accepts
        if mapper is None and any(account.dim != self.dim for account in accounts):
            raise ConfigurationError("expected a mapper for accounts of different width, got none")
        self._mapper = mapper
        self._unshared = anchors if len(self.accounts) > 1 else 0
        self._rngs = rng.spawn(len(self.accounts))
        self._shared: list[list[Embeddings]] = [[] for _ in self.accounts]
        self._maps: dict[int, Map] = {}

    @property
    def remaining(self) -> int:
        """Distinct inputs that may still be asked when the accounts share a budget.

        Raises:
            ConfigurationError: the accounts are not metered.
        """
        left, each = remaining(self.accounts[0]), max(1, len(self.roster.left))
        return max(left // each, left - self._unshared * (each - 1))

    def embed(self, inputs: Batch) -> Embeddings:
        """Ask for n inputs: (n, d) float32 in the first account's space.

        Raises:
            InputError: from an account.
            RefusalError: every account refuses, the last one like this; or the first one does
                before it has answered two shared inputs.
            EncoderError: likewise.
        """
        if len(self.accounts) == 1:
            return self.accounts[0].embed(inputs)
        if self._unshared:
            self._share(inputs)
        rows = np.empty((len(inputs), self.dim), dtype=np.float32)
        for share in self.roster.ask(inputs):
            rows[share.positions] = self._mapped(share.account, share.embeddings)
        return rows

    def _share(self, inputs: Batch) -> None:
        """Ask every account for the new ones of n inputs, until there are enough shared inputs."""
        inputs = take(inputs, self.roster.new(inputs)[: self._unshared])
        answers = self.roster.ask_one(0, inputs)
        inputs = inputs[: len(answers)]
        self.roster.keep(0, inputs, answers)
        self._shared[0].append(answers)
        for number in self.roster.left:
            if number > 0:
                self._shared[number].append(self.roster.ask_one(number, inputs))
        # Without the first account no input can be shared any more.
        self._unshared = self._unshared - len(answers) if 0 in self.roster.left else 0

    def _mapped(self, number: int, rows: Embeddings) -> Embeddings:
        """Return (m, d) answers of one account in the first account's space."""
        if number == 0 or self._mapper is None:
            return rows
        if number not in self._maps:
            source, target = (np.concatenate(self._shared[one]) for one in (number, 0))
            if len(target) < 2:
                raise self.roster.refusals[0]
            self._maps[number] = self._mapper.fit(source, target, rng=self._rngs[number])
        return self._maps[number](rows)
