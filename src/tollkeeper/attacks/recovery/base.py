"""What a recovery is, and the one that does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Batch, Embeddings


class Recovery(Protocol):
    """A way to ask for inputs that leaves less of the defender's noise in the answers.

    `ask` sees one batch after the other; `finish` sees all answers once there are no more.
    """

    @property
    def asks_per_input(self) -> int:
        """Distinct queries that one input becomes."""
        ...

    def ask(self, victim: Encoder, inputs: Batch, *, rng: np.random.Generator) -> Embeddings:
        """Ask for n inputs.

        Args:
            victim: whom to ask.
            inputs: n inputs as the victim takes them.
            rng: all randomness of the asking.

        Returns:
            (n, d) float32, one row an input.

        Raises:
            InputError: the recovery cannot work on such inputs.
            TollkeeperError: from the victim.
        """
        ...

    def finish(self, embeddings: Embeddings) -> Embeddings:
        """Clean all answers together: (n, d) rows of `ask` in asking order to (n, d)."""
        ...


@dataclass(frozen=True, slots=True)
class AsAnswered:
    """Takes answers as they come."""

    asks_per_input: ClassVar[int] = 1

    def ask(self, victim: Encoder, inputs: Batch, *, rng: np.random.Generator) -> Embeddings:
        """Ask once: (n, d)."""
        del rng
        return victim.embed(inputs)

    def finish(self, embeddings: Embeddings) -> Embeddings:
        """Return the rows as they are."""
        return embeddings
