"""A victim that counts what is asked of it and stops at a budget."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from tollkeeper.encoders.base import Encoder, Modality, RowsIndependent
from tollkeeper.encoders.inputs import modality
from tollkeeper.errors import BudgetExhausted, ConfigurationError
from tollkeeper.types import Batch, Embeddings


class MeteredEncoder:
    """Keeps the `Encoder` interface of `victim` and counts distinct inputs.

    One query is one distinct input answered once. Asking the same input again
    is a repeat: counted apart, free, and still passed to the victim. A call
    that fails counts nothing.

    Attributes:
        budget: distinct inputs that may be asked in all.
        queries_spent: distinct inputs answered so far.
        repeats: inputs answered that had been answered before, or came twice in one call.
        calls: calls answered, empty ones left out.
    """

    def __init__(self, victim: Encoder, *, budget: int) -> None:
        """Meter `victim`.

        Args:
            victim: whom to ask.
            budget: distinct inputs allowed, at least 0.

        Raises:
            ConfigurationError: the budget is negative.
        """
        if budget < 0:
            raise ConfigurationError(f"expected a query budget of at least 0, got {budget}")
        self.name = victim.name
        self.dim = victim.dim
        self.accepts = victim.accepts
        self.rows_independent = isinstance(victim, RowsIndependent) and victim.rows_independent
        self.budget = budget
        self.repeats = 0
        self.calls = 0
        self._victim = victim
        self._seen: set[bytes] = set()

    @property
    def queries_spent(self) -> int:
        """Distinct inputs answered so far."""
        return len(self._seen)

    @property
    def remaining(self) -> int:
        """Distinct inputs that may still be asked."""
        return self.budget - self.queries_spent

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
        kind = modality(inputs)
        new = {_digest(item, kind) for item in inputs} - self._seen
        if len(new) > self.remaining:
            raise BudgetExhausted(
                f"the call holds {len(new)} new inputs but {self.remaining} "
                f"of {self.budget} queries remain"
            )
        embeddings = self._victim.embed(inputs)
        self._seen |= new
        self.calls += 1
        self.repeats += len(inputs) - len(new)
        return embeddings


def _digest(item: Any, kind: Modality) -> bytes:
    """Return 16 bytes that are equal for equal inputs of a kind; kinds never collide."""
    if kind == "text":
        content = item.encode()
    elif kind == "tokens":
        # A fixed dtype makes lists, tuples and arrays of the same ids equal.
        content = np.asarray(item, dtype=np.int64).tobytes()
    else:
        content = f"{item.shape}".encode() + item.tobytes()
    return hashlib.blake2b(content, digest_size=16, person=kind.encode()).digest()
