"""B4B's own bucket routine, written from its method description, as the yardstick of speed.

Differences from the original: none in what it computes or in its data structures. The
projections come in as an argument; the original draws them from the global generator.

References:
    Dubiński, Pawlak, Boenisch, Trzciński, Dziedzic. Bucks for Buckets (B4B): Active
    Defenses Against Stealing Encoders. NeurIPS 2023. The released code's
    `end2end-stealing/buckets.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tollkeeper.types import Embeddings

BITS = 12
"""Random signs per projection: 2^12 = 4,096 buckets."""

PROJECTIONS = 20
"""Independent projections whose coverage is averaged."""


def draw_projections(dim: int, *, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Return 20 Gaussian (d, 12) matrices in float64, as the original keeps them."""
    return [rng.standard_normal((dim, BITS)) for _ in range(PROJECTIONS)]


def new_buckets(embeddings: Embeddings, projection: NDArray[np.float64]) -> set[str]:
    """Return the buckets that a batch falls into, each as the text of a tuple of signs.

    Args:
        embeddings: (n, d) float32.
        projection: (d, 12) float64.
    """
    signs = (embeddings @ projection > 0).astype(int)
    rows_of_bucket: dict[tuple[int, ...], list[int]] = {}
    for row, bucket in enumerate([tuple(sign) for sign in signs]):
        rows_of_bucket.setdefault(bucket, []).append(row)
    return {str(bucket) for bucket in rows_of_bucket}


def update_coverage(
    visited: Sequence[set[str]],
    embeddings: Embeddings,
    projections: Sequence[NDArray[np.float64]],
) -> float:
    """Add a batch to the visited buckets, in place, and return the coverage.

    Args:
        visited: one set of buckets per projection.
        embeddings: (n, d) float32.
        projections: as many (d, 12) float64 matrices.

    Returns:
        Mean share of visited buckets, in [0, 1].
    """
    for buckets, projection in zip(visited, projections, strict=True):
        buckets.update(new_buckets(embeddings, projection))
    return float(np.mean([len(buckets) / 2**BITS for buckets in visited]))
