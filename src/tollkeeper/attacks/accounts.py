"""Several identities of one attacker at one service."""

from __future__ import annotations

from collections.abc import Sequence

from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings

MOST = 25
"""Accounts of one attacker at most; the experiments of the field use up to ten."""


class Accounts:
    """k accounts at the same service, each an `Encoder`.

    Attacks that know about accounts use `accounts`; for all others this is the first one.

    Attributes:
        accounts: the k encoders.
    """

    def __init__(self, accounts: Sequence[Encoder]) -> None:
        """Hold 1 to 25 accounts.

        Raises:
            ConfigurationError: too few or too many.
        """
        if not 1 <= len(accounts) <= MOST:
            raise ConfigurationError(f"expected 1 to {MOST} accounts, got {len(accounts)}")
        self.accounts = tuple(accounts)
        self.name = accounts[0].name
        self.dim = accounts[0].dim
        self.accepts = accounts[0].accepts

    def embed(self, inputs: Batch) -> Embeddings:
        """Ask the first account: (n, d) float32."""
        return self.accounts[0].embed(inputs)
