"""A victim that counts what is asked of it and stops at a budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tollkeeper.encoders.base import Encoder, Modality, RowsIndependent
from tollkeeper.encoders.inputs import digest, modality
from tollkeeper.errors import BudgetExhausted, ConfigurationError
from tollkeeper.types import Batch, Embeddings


@dataclass(frozen=True, slots=True)
class Price:
    """What a target takes for its answers, in any one currency.

    Attributes:
        per_input: for each input answered, asked before or not.
        per_call: for each call answered.
    """

    per_input: float = 0.0
    per_call: float = 0.0


FREE = Price()
"""A target that takes nothing."""


@dataclass(slots=True)
class Meter:
    """Counts shared by all accounts of one attacker.

    One query is one distinct input answered once by one account. Asking the same account
    again is a repeat: counted apart and outside the budget.

    Attributes:
        budget: queries allowed in all, at least 0.
        repeats: inputs answered that had been answered before, or came twice in one call.
        calls: calls answered, empty ones left out.
    """

    budget: int
    repeats: int = 0
    calls: int = 0
    _seen: set[tuple[int, bytes]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Refuse a negative budget."""
        if self.budget < 0:
            raise ConfigurationError(f"expected a query budget of at least 0, got {self.budget}")

    @property
    def queries_spent(self) -> int:
        """Distinct inputs answered so far, summed over accounts."""
        return len(self._seen)

    @property
    def remaining(self) -> int:
        """Distinct inputs that may still be asked."""
        return self.budget - self.queries_spent

    def charge(self, price: Price) -> float:
        """Return the money spent so far."""
        answered = self.queries_spent + self.repeats
        return price.per_input * answered + price.per_call * self.calls

    def unseen(self, account: int, inputs: Batch, kind: Modality) -> set[tuple[int, bytes]]:
        """Return the marks of inputs that are new to an account.

        Raises:
            BudgetExhausted: there are more of them than remain.
        """
        new = {(account, digest(item, kind)) for item in inputs} - self._seen
        if len(new) > self.remaining:
            raise BudgetExhausted(
                f"the call holds {len(new)} new inputs but {self.remaining} "
                f"of {self.budget} queries remain"
            )
        return new

    def count(self, new: set[tuple[int, bytes]], inputs: int) -> None:
        """Count one answered call that held `new` marks among its inputs."""
        self._seen |= new
        self.calls += 1
        self.repeats += inputs - len(new)


class MeteredEncoder:
    """Keeps the `Encoder` interface of `victim` and counts what is asked in a `Meter`.

    A call that fails counts nothing; a repeat is still passed to the victim.

    Attributes:
        meter: the counts, possibly shared with other accounts.
    """

    def __init__(
        self,
        victim: Encoder,
        *,
        budget: int | None = None,
        meter: Meter | None = None,
        account: int = 0,
    ) -> None:
        """Meter `victim`.

        Args:
            victim: whom to ask.
            budget: distinct inputs allowed, at least 0; makes a meter of its own.
            meter: counts shared with other accounts, instead of a budget.
            account: tells the accounts of a shared meter apart.

        Raises:
            ConfigurationError: the budget is negative, or there are both or neither of
                budget and meter.
        """
        if (budget is None) == (meter is None):
            raise ConfigurationError("expected either a query budget or a meter")
        self.name = victim.name
        self.dim = victim.dim
        self.accepts = victim.accepts
        self.rows_independent = isinstance(victim, RowsIndependent) and victim.rows_independent
        self.meter = meter if meter is not None else Meter(budget or 0)
        self._victim = victim
        self._account = account

    @property
    def budget(self) -> int:
        """Distinct inputs that may be asked in all."""
        return self.meter.budget

    @property
    def queries_spent(self) -> int:
        """Distinct inputs answered so far."""
        return self.meter.queries_spent

    @property
    def repeats(self) -> int:
        """Inputs answered that had been answered before."""
        return self.meter.repeats

    @property
    def calls(self) -> int:
        """Calls answered."""
        return self.meter.calls

    @property
    def remaining(self) -> int:
        """Distinct inputs that may still be asked."""
        return self.meter.remaining

    def embed(self, inputs: Batch) -> Embeddings:
        """Ask the victim, unless that would go over the budget.

        Args:
            inputs: n inputs as the victim takes them.

        Returns:
            (n, d) float32 from the victim.

        Raises:
            BudgetExhausted: the call holds more new inputs than remain; nothing was asked.
            InputError: foreign or mixed inputs; or from the victim.
            EncoderError: from the victim.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        new = self.meter.unseen(self._account, inputs, modality(inputs))
        embeddings = self._victim.embed(inputs)
        self.meter.count(new, len(inputs))
        return embeddings
