"""Defenses without memory: every answer is L2-normalized and perturbed in the same way.

The three that encoder theft is usually tried against, in the strength of the code of Wu et al.,
"Refine, Discriminate and Align", ECCV 2024, as defaults. Unlike a guard they know no accounts,
so an honest user gets what a thief gets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tollkeeper.bench.theft.probes import unit
from tollkeeper.encoders.base import Encoder, Modality
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings

Perturbation = Callable[[Embeddings, np.random.Generator], Embeddings]
"""Unit rows (n, d) and a source of draws to the rows (n, d) that leave the service."""


@dataclass(frozen=True, slots=True)
class TopK:
    """Keeps the features of largest size of each row and sets the others to 0.

    Attributes:
        k: features kept; all if there are fewer.
    """

    k: int = 5

    def __post_init__(self) -> None:
        """Refuse to keep nothing."""
        if self.k < 1:
            raise ConfigurationError(f"expected to keep at least 1 feature, got {self.k}")

    def __call__(self, rows: Embeddings, rng: np.random.Generator) -> Embeddings:
        """Return rows (n, d) with at most k features other than 0."""
        del rng
        count = min(self.k, rows.shape[1])
        largest = np.argpartition(np.abs(rows), -count, axis=1)[:, -count:]
        kept = np.zeros_like(rows)
        np.put_along_axis(kept, largest, np.take_along_axis(rows, largest, axis=1), axis=1)
        return kept


@dataclass(frozen=True, slots=True)
class Rounding:
    """Rounds every feature.

    Attributes:
        decimals: digits kept after the point.
    """

    decimals: int = 1

    def __call__(self, rows: Embeddings, rng: np.random.Generator) -> Embeddings:
        """Return rounded rows (n, d)."""
        del rng
        rounded: Embeddings = np.round(rows, self.decimals)
        return rounded


@dataclass(frozen=True, slots=True)
class Noise:
    """Adds Gaussian noise, drawn anew for every answer: asking twice gives two answers.

    Attributes:
        deviation: of each feature, beside rows of length 1.
    """

    deviation: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a negative deviation."""
        if not self.deviation >= 0:
            raise ConfigurationError(f"expected a deviation of at least 0, got {self.deviation}")

    def __call__(self, rows: Embeddings, rng: np.random.Generator) -> Embeddings:
        """Return noisy rows (n, d)."""
        noise = rng.standard_normal(rows.shape, dtype=np.float32)
        return rows + np.float32(self.deviation) * noise


class Perturbed:
    """Keeps the `Encoder` interface of `encoder` and perturbs its normalized answers.

    Attributes:
        name: of the encoder.
        dim: of the encoder.
        accepts: of the encoder.
    """

    def __init__(
        self, encoder: Encoder, perturbation: Perturbation, *, rng: np.random.Generator
    ) -> None:
        """Stand in front of an encoder; `rng` makes all draws of the perturbation."""
        self.name = encoder.name
        self.dim = encoder.dim
        self.accepts: frozenset[Modality] = encoder.accepts
        self._encoder, self._perturbation, self._rng = encoder, perturbation, rng

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs: (n, d) float32.

        Raises:
            TollkeeperError: from the encoder.
        """
        return self._perturbation(unit(self._encoder.embed(inputs)), self._rng)


STRONG: Mapping[str, Perturbation] = {
    "top_k": TopK(),
    "rounding": Rounding(),
    "noise": Noise(),
}
"""As in RDA's code. Of 512 features of unit length few reach .05, so rounding keeps few, and
noise of length 11 beside answers of length 1 leaves an honest search nothing."""

MILD: Mapping[str, Perturbation] = {
    "top_k_mild": TopK(350),
    "rounding_mild": Rounding(2),
    "noise_mild": Noise(0.005),
}
"""The strongest of `builtin:image` (512 features) that leave an honest user recall@10 above .9:
on four tasks top 300 gave .88, 400 .95; 1 decimal .67, 2 .96; noise .01 .86, .005 .93."""
