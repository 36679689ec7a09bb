"""Answers with the tenant's shifts and scales taken out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tollkeeper.attacks.recovery.base import AsAnswered, Recovery
from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Batch, Embeddings

_CONSTANT = 1e-6


@dataclass(frozen=True, slots=True)
class Standardized:
    """Gives every coordinate mean 0 and deviation 1; constant ones, such as pads, become 0.

    Undoes a diagonal affine transform up to signs, which no objective on distances minds. What
    the surrogate learns is the standardized space. Not published.

    Attributes:
        inner: how inputs are asked.
    """

    inner: Recovery = field(default_factory=AsAnswered)

    @property
    def asks_per_input(self) -> int:
        """Distinct queries that one input becomes."""
        return self.inner.asks_per_input

    def ask(self, victim: Encoder, inputs: Batch, *, rng: np.random.Generator) -> Embeddings:
        """Ask as `inner` does: (n, d)."""
        return self.inner.ask(victim, inputs, rng=rng)

    def finish(self, embeddings: Embeddings) -> Embeddings:
        """Standardize all answers (n, d)."""
        rows = self.inner.finish(embeddings).astype(np.float64)
        rows -= rows.mean(axis=0)
        spread = rows.std(axis=0)
        kept = spread > _CONSTANT
        rows[:, kept] /= spread[kept]
        rows[:, ~kept] = 0
        return rows.astype(np.float32)
