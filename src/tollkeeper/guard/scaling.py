"""Norms of embeddings, row by row."""

from __future__ import annotations

import numpy as np

from tollkeeper.types import Embeddings


def norms_of(rows: Embeddings) -> Embeddings:
    """Return the (n, 1) Euclidean norms, each a function of its row alone."""
    squares: Embeddings = np.square(rows).sum(axis=1, keepdims=True)
    return np.sqrt(squares)


def with_norms(rows: Embeddings, norms: Embeddings | float) -> Embeddings:
    """Return `rows` scaled to the given norms; rows of zeros stay as they are."""
    found = norms_of(rows)
    found[found == 0] = 1
    scaled: Embeddings = rows * (norms / found)
    return scaled
