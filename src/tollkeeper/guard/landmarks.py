"""Landmarks: the cells in which the price signal counts where an account has been.

Some embeddings of the calibration sample, chosen in secret, are landmarks; an input belongs
to the one that lies in the nearest direction, seen from the middle of the sample and through
the guard's secret projections. Cells of a random hash cut through every subject, so a narrow
account keeps opening new ones; a narrow subject lies within few landmarks' cells however much
of it is asked, and a broad account is in most of them after a few hundred inputs
(docs/decisions/0018).

Source: ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import CalibrationError
from tollkeeper.guard import draws
from tollkeeper.guard.planes import ROUNDING

_APART = 1 - 1e-6
"""Directions of a larger cosine are one landmark: an embedding that was rounded in two ways, as
float16 upstreams do, or embeddings that all lie on one line."""


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """k directions among h projections.

    Attributes:
        directions: (h, k) float32, unit columns.
    """

    directions: NDArray[np.float32]

    @classmethod
    def choose(cls, key: bytes, margins: NDArray[np.float32], count: int) -> Landmarks:
        """Choose `count` different ones of m embeddings.

        Args:
            key: secret of one deployment and model.
            margins: (m, h) signed lengths of the embeddings along the guard's projections,
                from their middle.
            count: k.

        Raises:
            CalibrationError: there are fewer.
        """
        lengths = np.linalg.norm(margins.astype(np.float64), axis=1)
        there = lengths > 0
        directions = (margins[there] / lengths[there, None]).astype(np.float32)
        different = _apart(np.unique(directions, axis=0))
        if len(different) < count:
            raise CalibrationError(
                f"expected a calibration with at least {count} different embeddings for "
                f"landmarks, got {len(different)}; calibrate with more inputs; repeats do "
                "not count"
            )
        chosen = different[draws.permutation(key, len(different))[:count]]
        return cls(np.ascontiguousarray(chosen.T))

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.directions.shape[1])

    def nearest(
        self,
        margins: NDArray[np.float32],
        *,
        doubts: NDArray[np.float32],
        exact: Callable[[int], NDArray[np.float64]],
    ) -> NDArray[np.intp]:
        """Return the (n,) landmark of each of n embeddings, given as (n, h) margins.

        A row's landmark does not depend on the other rows of its batch: BLAS rounds a row
        differently in batches of different size, so what is too close to call in float32 is
        decided by margins that are the same in every batch.

        Args:
            margins: perhaps rounded differently in another batch.
            doubts: (n,) by how much their rounding can move them along a direction.
            exact: a row's number to its (h,) margins in float64.
        """
        along = margins @ self.directions
        nearest: NDArray[np.intp] = along.argmax(axis=1)
        lengths = np.sqrt(np.einsum("ij,ij->i", margins, margins))
        doubt = 2 * (ROUNDING * math.sqrt(margins.shape[1]) * lengths + doubts)
        best = np.take_along_axis(along, nearest[:, None], axis=1).ravel()
        close = np.count_nonzero(along >= (best - doubt)[:, None], axis=1) > 1
        for row in np.flatnonzero(close):
            nearest[row] = (exact(int(row)) @ self.directions).argmax()
        return nearest


def _apart(directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (m, h) unit rows without those that nearly repeat an earlier one."""
    exact = directions.astype(np.float64)
    cosines = np.triu(exact @ exact.T, 1)
    return directions[(cosines <= _APART).all(axis=0)]
