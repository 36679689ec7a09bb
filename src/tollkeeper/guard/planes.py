"""Secret hyperplanes: which side of each an embedding lies on.

`GaussianPlanes` is the published hash, a dense product. `RotatedPlanes` measures along
the axes of a secret structured rotation instead, at a fraction of the cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollkeeper.guard import draws
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.keys import derive
from tollkeeper.guard.orthogonal import hadamard
from tollkeeper.types import Embeddings

Sides = NDArray[np.bool_]
Margins = NDArray[np.float32]

ROUNDING = 1.5e-7
"""A float32 product's error is below this times sqrt(d) |x|: u sqrt(d / 2) |x| with u = 2**-24
is the standard deviation if every partial sum rounds independently; this is 3.5 times that."""

_SIDE = 16
"""Coordinates mixed by one Hadamard matrix; two rounds mix 256 into each plane."""

_CACHE_FLOATS = 1 << 16
"""Rows are projected in blocks of about this many numbers, which stay in the L2 cache."""


class Planes(Protocol):
    """h hyperplanes in d dimensions, thresholds included."""

    def __call__(self, embeddings: Embeddings, *, out: Margins | None = None) -> Sides:
        """Return (n, h): whether each of (n, d) embeddings lies above each hyperplane.

        A row's sides do not depend on the other rows of its batch.

        Args:
            embeddings: (n, d).
            out: (n, h) float32, filled with the signed lengths from the planes along their
                normals; these may be rounded differently in another batch.
        """
        ...

    def exact(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the (h,) signed lengths of one (d,) embedding, the same in every batch."""
        ...


class PlaneFamily(Protocol):
    """A way to draw hyperplanes."""

    def draw(self, key: bytes, calibration: Calibration, count: int, *, centered: bool) -> Planes:
        """Draw `count` hyperplanes from a key.

        Args:
            key: secret of one deployment and model.
            calibration: gives the width, and the thresholds if `centered`.
            count: h.
            centered: whether each plane halves the calibration sample; otherwise it
                passes through 0.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class GaussianPlanes:
    """Standard normal hyperplanes, the published hash.

    BLAS rounds a row differently in batches of different size. A bit that flips for that
    reason would charge a repeat, so sides too close to call in float32 are decided in
    float64.

    Attributes:
        matrix: (d, h) float32.
        thresholds: (h,) float32.
    """

    matrix: NDArray[np.float32]
    thresholds: NDArray[np.float32]

    def __call__(self, embeddings: Embeddings, *, out: Margins | None = None) -> Sides:
        """Return (n, h) sides."""
        total = float(np.vdot(embeddings, embeddings))
        margins = embeddings @ self.matrix
        margins -= self.thresholds
        if out is not None:
            out[...] = margins
        above: Sides = margins > 0
        distances = np.abs(margins, out=margins)
        doubt = ROUNDING * math.sqrt(embeddings.shape[1])
        # No row is longer than the root of the total; most small batches end here.
        if distances.min(initial=np.inf) <= doubt * math.sqrt(total):
            lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
            close = np.flatnonzero(distances <= doubt * lengths[:, None])
            rows, planes = np.divmod(close, self.thresholds.size)
            products = embeddings[rows].astype(np.float64) * self.matrix.T[planes]
            above[rows, planes] = products.sum(axis=1) > self.thresholds[planes]
        return above

    def exact(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (h,) signed lengths from float64 products."""
        along: NDArray[np.float64] = embedding.astype(np.float64) @ self.matrix
        along -= self.thresholds
        return along


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Draws `GaussianPlanes`.

    Source: Dubiński et al., "Bucks for Buckets (B4B)", NeurIPS 2023, section 3.1.
    Notes: the published code draws them from numpy's unseeded global generator.
    """

    def draw(
        self, key: bytes, calibration: Calibration, count: int, *, centered: bool
    ) -> GaussianPlanes:
        """Draw (d, count) standard normal numbers."""
        matrix = draws.normals(key, calibration.dim * count).reshape(calibration.dim, count)
        return GaussianPlanes(matrix, _thresholds(calibration, matrix, centered=centered))


@dataclass(frozen=True, slots=True, eq=False)
class RotatedPlanes:
    """Some axes of the rotation H P H D: secret signs, Hadamard groups, a secret choice.

    Each second-round group takes at most one coordinate of each first-round group, so each
    plane's normal has 256 entries of size 1/16 and secret sign, and zeros elsewhere. Where 16
    does not divide d, the last first-round group is padded, and normals that use it have d mod
    16 entries there instead of 16. Each row is one product of fixed shape, so it is rounded
    alike in every batch.

    Source: the structured rotations of Andoni et al., "Practical and Optimal LSH for
    Angular Distance", NeurIPS 2015, section 4, with Hadamard groups of 16.

    Attributes:
        signs: (d',) float32 of 1 and -1, d' being d rounded up to whole groups.
        order: (h',) which mixed coordinates go on, h' being h rounded up to whole groups;
            16 neighbors make a second-round group.
        thresholds: (h,) float32.
    """

    signs: NDArray[np.float32]
    order: NDArray[np.intp]
    thresholds: NDArray[np.float32]
    _hadamard: NDArray[np.float32] = field(default_factory=lambda: hadamard(_SIDE), repr=False)

    def __call__(self, embeddings: Embeddings, *, out: Margins | None = None) -> Sides:
        """Return (n, h) sides."""
        above = np.empty((len(embeddings), self.thresholds.size), np.bool_)
        block = max(1, _CACHE_FLOATS // self.signs.size)
        for start in range(0, len(embeddings), block):
            rows = slice(start, start + block)
            along = self.project(embeddings[rows])
            np.greater(along, self.thresholds, out=above[rows])
            if out is not None:
                np.subtract(along, self.thresholds, out=out[rows])
        return above

    def exact(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (h,) signed lengths; each row is one product of fixed shape anyway."""
        margins: NDArray[np.float64] = self.project(embedding[None])[0].astype(np.float64)
        margins -= self.thresholds
        return margins

    def project(self, embeddings: Embeddings) -> NDArray[np.float32]:
        """Return (n, h) signed lengths along the planes' normals."""
        count, width = embeddings.shape
        signed = np.zeros((count, self.signs.size), np.float32)
        np.multiply(embeddings, self.signs[:width], out=signed[:, :width])
        mixed = np.matmul(signed.reshape(count, -1, _SIDE), self._hadamard)
        chosen = mixed.reshape(count, -1).take(self.order, axis=1)
        along: NDArray[np.float32] = np.matmul(chosen.reshape(count, -1, _SIDE), self._hadamard)
        return along.reshape(count, -1)[:, : self.thresholds.size]


@dataclass(frozen=True, slots=True)
class Rotated:
    """Draws `RotatedPlanes`, or Gaussian ones where d is too small to choose from."""

    def draw(self, key: bytes, calibration: Calibration, count: int, *, centered: bool) -> Planes:
        """Draw signs and places; the thresholds are those of the planes as a matrix."""
        dim, places = calibration.dim, _whole_groups(count)
        if dim < max(places, _SIDE**2):
            return Gaussian().draw(key, calibration, count, centered=centered)
        width = _whole_groups(dim)
        coins = np.unpackbits(
            draws.integers(derive(key, "plane-signs"), -(-width // 8), bits=8), count=width
        )
        order = _order(key, sources=width // _SIDE, groups=places // _SIDE)
        bare = RotatedPlanes(1 - 2 * coins.astype(np.float32), order, np.zeros(count, np.float32))
        matrix = bare.project(np.eye(dim, dtype=np.float32))
        thresholds = _thresholds(calibration, matrix, centered=centered)
        return RotatedPlanes(bare.signs, order, thresholds)


def _order(key: bytes, *, sources: int, groups: int) -> NDArray[np.intp]:
    """Choose which coordinates go on after the first round.

    Each second-round group takes one coordinate of each of the 16 least used first-round
    groups, ties being broken at random; so no first-round group is used more than once more
    than another, and all are used if there are at most 16 * `groups`.

    Args:
        key: of these planes.
        sources: first-round groups, at least 16 and at least `groups`.
        groups: second-round groups.

    Returns:
        (16 * groups,) distinct coordinates, second-round group by group.
    """
    ties = draws.integers(derive(key, "plane-groups"), groups * sources, bits=64)
    tickets = draws.integers(derive(key, "plane-places"), sources * _SIDE, bits=64)
    places = np.argsort(tickets.reshape(sources, _SIDE), axis=1, kind="stable")
    uses = np.zeros(sources, np.intp)
    order = np.empty((groups, _SIDE), np.intp)
    for group, tie in enumerate(ties.reshape(groups, sources)):
        chosen = np.lexsort((tie, uses))[:_SIDE]
        order[group] = chosen * _SIDE + places[chosen, uses[chosen]]
        uses[chosen] += 1
    return order.ravel()


def _thresholds(
    calibration: Calibration, matrix: NDArray[np.float32], *, centered: bool
) -> NDArray[np.float32]:
    if centered:
        return calibration.thresholds(matrix)
    return np.zeros(matrix.shape[1], np.float32)


def _whole_groups(count: int) -> int:
    return -(-count // _SIDE) * _SIDE
