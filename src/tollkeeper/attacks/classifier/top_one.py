"""A classifier of which only the top class can be had."""

from __future__ import annotations

import numpy as np

from tollkeeper.attacks.asking import remaining
from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Batch, Embeddings


class TopOne:
    """Answers 1 for the victim's top class and 0 for the others, (n, k)."""

    def __init__(self, victim: Encoder) -> None:
        """Stand in front of a classifier."""
        self.name, self.dim, self.accepts = victim.name, victim.dim, victim.accepts
        self._victim = victim

    @property
    def remaining(self) -> int:
        """Distinct inputs that a metered victim may still be asked."""
        return remaining(self._victim)

    def embed(self, inputs: Batch) -> Embeddings:
        """Return (n, k) float32 one-hot rows; of equal probabilities the first counts."""
        answers = self._victim.embed(inputs)
        rows = np.zeros_like(answers)
        rows[np.arange(len(rows)), answers.argmax(axis=1)] = 1
        return rows
