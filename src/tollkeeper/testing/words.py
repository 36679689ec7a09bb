"""An encoder of text whose geometry is known: words are fixed random vectors."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Modality
from tollkeeper.encoders.tokenizer import split
from tollkeeper.types import Batch, Embeddings


class WordEncoder:
    """Embeds a text as the mean of its words' vectors, scaled to length 1.

    Two with another salt agree on nothing. A text without words is refused by numpy.

    Example:
        >>> encoder = WordEncoder(8)
        >>> float(encoder.embed(["a b"])[0] @ encoder.embed(["b a"])[0]) > 0.999
        True
    """

    accepts: frozenset[Modality] = frozenset({"text"})
    rows_independent: bool = True

    def __init__(self, dim: int, *, salt: str = "") -> None:
        """Make an encoder of width `dim`, named `words-<dim>`."""
        self.name = f"words-{dim}"
        self.dim = dim
        self._salt = salt

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n texts: (n, d) float32 unit vectors."""
        rows = np.stack(
            [
                np.mean([_vector(f"{self._salt} {word}", self.dim) for word in split(text)], axis=0)
                for text in inputs
            ]
        )
        scaled: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return scaled


@lru_cache(maxsize=10_000)
def _vector(word: str, dim: int) -> NDArray[np.float64]:
    """Return a word's fixed (dim,) vector."""
    digest = hashlib.sha256(word.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big")).normal(size=dim)
