"""Inputs that leave no other input far away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.selection.base import Ask, check_count
from tollkeeper.attacks.selection.features import Features, thumbnails
from tollkeeper.types import Batch


@dataclass(frozen=True, slots=True)
class KCenter:
    """Greedy k-center: always the input farthest from all chosen ones, starting at random.

    The largest distance of an input to its nearest chosen one is at most twice the least
    possible (Gonzalez, "Clustering to minimize the maximum intercluster distance", TCS 1985);
    as query selection: Sener and Savarese, "Active Learning for Convolutional Neural Networks:
    A Core-Set Approach", ICLR 2018. Differences from the paper: features of the inputs instead
    of a model's, so that choosing costs no query, and the greedy choice without the
    integer program that refines it.

    Attributes:
        features: Euclidean distances between these count.
    """

    features: Features = thumbnails

    def choose(
        self, queries: Batch, count: int, *, ask: Ask, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose `count` positions, with n * count distances in all."""
        del ask
        check_count(count, queries)
        points = self.features(queries)
        points = points - points.mean(axis=0)  # Small numbers keep the expansion below exact.
        squares = np.einsum("ij,ij->i", points, points)
        chosen = np.empty(count, dtype=np.intp)
        nearest = np.full(len(points), np.inf, dtype=points.dtype)
        latest = int(rng.integers(len(points)))
        for place in range(count):
            chosen[place] = latest
            away = squares + squares[latest] - 2 * (points @ points[latest])
            np.minimum(nearest, away, out=nearest)
            nearest[latest] = -np.inf  # Also when a twin leaves it at a rounded distance.
            latest = int(nearest.argmax())
        return chosen
