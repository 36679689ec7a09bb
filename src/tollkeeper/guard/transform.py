"""Per-tenant secret transforms: what a tenant sees instead of the encoder's own space.

A family turns a tenant's key into a transform; the transform maps (n, d) to (n, d').
Every row of the result depends on that row alone, to the last bit, whatever else
is in the batch: a repeat must be the same bytes, and BLAS alone does not promise it.

The published families: Dubiński et al., "Bucks for Buckets (B4B)", NeurIPS 2023,
section 3.3 and its released code. Our own family is in `orthogonal.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollkeeper.guard import draws
from tollkeeper.guard.keys import derive
from tollkeeper.types import Embeddings


class Transform(Protocol):
    """One tenant's map."""

    @property
    def out_dim(self) -> int:
        """Width d' of the result."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of parameters held."""
        ...

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Return (n, d') float32 for (n, d) float32; the argument is not changed."""
        ...


class TransformFamily(Protocol):
    """All transforms of one kind."""

    def for_tenant(self, key: bytes, dim: int) -> Transform:
        """Derive the transform of width `dim` that belongs to `key`."""
        ...


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The identity, as family and as transform."""

    out_dim: int = 0
    nbytes: int = 0

    def for_tenant(self, key: bytes, dim: int) -> Unchanged:  # noqa: ARG002 - the interface's
        """Return the identity on width `dim`."""
        return Unchanged(dim)

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Return a copy."""
        return embeddings.copy()


@dataclass(frozen=True, slots=True, eq=False)
class DiagonalAffineMap:
    """y = s * x + t, coordinate by coordinate.

    Attributes:
        scale: s, (d,) float32.
        shift: t, (d,) float32.
    """

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]

    @property
    def out_dim(self) -> int:
        """Width d."""
        return self.scale.size

    @property
    def nbytes(self) -> int:
        """Bytes of parameters."""
        return self.scale.nbytes + self.shift.nbytes

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Return (n, d)."""
        return embeddings * self.scale + self.shift


@dataclass(frozen=True, slots=True)
class DiagonalAffine:
    """B4B's remap-study "affine": s and t uniform on (-1, 1)."""

    def for_tenant(self, key: bytes, dim: int) -> DiagonalAffineMap:
        """Draw s and t."""
        scale = draws.uniforms(derive(key, "scale"), dim, low=-1, high=1)
        shift = draws.uniforms(derive(key, "shift"), dim, low=-1, high=1)
        return DiagonalAffineMap(scale.astype(np.float32), shift.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class PadShuffleMap:
    """y = P [x ; u]: constants appended, then all coordinates in a secret order.

    Attributes:
        pad: u, (p,) float32, the same in every answer.
        order: (d + p,), output coordinate i is coordinate order[i] of [x ; u].
    """

    pad: NDArray[np.float32]
    order: NDArray[np.intp]

    @property
    def out_dim(self) -> int:
        """Width d + p."""
        return self.order.size

    @property
    def nbytes(self) -> int:
        """Bytes of parameters."""
        return self.pad.nbytes + self.order.nbytes

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Return (n, d + p)."""
        pads = np.broadcast_to(self.pad, (len(embeddings), self.pad.size))
        return np.concatenate([embeddings, pads], axis=1).take(self.order, axis=1)


@dataclass(frozen=True, slots=True)
class PadShuffle:
    """B4B's pad+shuffle: pads are standard normal, 1,536 of them at any d (as coded)."""

    pad_dim: int = 1536

    def for_tenant(self, key: bytes, dim: int) -> PadShuffleMap:
        """Draw the pads and the order."""
        return PadShuffleMap(
            draws.normals(derive(key, "pad"), self.pad_dim),
            draws.permutation(derive(key, "order"), dim + self.pad_dim),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ChainedMap:
    """One transform after the other."""

    first: Transform
    second: Transform

    @property
    def out_dim(self) -> int:
        """Width of the second's result."""
        return self.second.out_dim

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.first.nbytes + self.second.nbytes

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Return the second's result on the first's."""
        return self.second(self.first(embeddings))


@dataclass(frozen=True, slots=True)
class AffinePadShuffle:
    """B4B's affine+pad+shuffle: diagonal affine on x, then pads (not scaled), then order."""

    pad_dim: int = 1536

    def for_tenant(self, key: bytes, dim: int) -> ChainedMap:
        """Draw both parts."""
        return ChainedMap(
            DiagonalAffine().for_tenant(key, dim), PadShuffle(self.pad_dim).for_tenant(key, dim)
        )


@dataclass(frozen=True, slots=True, eq=False)
class DenseAffineMap:
    """y = x A + b with a full matrix.

    Attributes:
        matrix: A, (d, d) float64 odd multiples of 2**-16 in (-1, 1).
        shift: b, (d,) float64.
    """

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]

    @property
    def out_dim(self) -> int:
        """Width d."""
        return self.shift.size

    @property
    def nbytes(self) -> int:
        """Bytes of parameters."""
        return self.matrix.nbytes + self.shift.nbytes

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Return (n, d).

        The product is exact: x on a grid of 2**-25 of its row's bound, times A, summed
        over d up to 4,096, needs 25 + 16 + 12 = 53 bits, so no BLAS can round it.
        """
        rows = embeddings.astype(np.float64)
        _, exponents = np.frexp(np.abs(rows).max(axis=1, keepdims=True))
        # Adding 1.5 * 2**52 grid steps and taking them away rounds to whole steps.
        anchor = np.ldexp(1.5, exponents + 52 - 25)
        on_grid = (rows + anchor) - anchor
        answer: Embeddings = (on_grid @ self.matrix + self.shift).astype(np.float32)
        return answer


@dataclass(frozen=True, slots=True)
class DenseAffine:
    """B4B's end-to-end "affine": A and b uniform on (-1, 1)."""

    def for_tenant(self, key: bytes, dim: int) -> DenseAffineMap:
        """Draw A and b."""
        cells = draws.integers(derive(key, "matrix"), dim * dim, bits=16).astype(np.float64)
        matrix = (cells * 2 + 1) / 2.0**16 - 1
        shift = draws.uniforms(derive(key, "shift"), dim, low=-1, high=1)
        return DenseAffineMap(matrix.reshape(dim, dim), shift)


@dataclass(frozen=True, slots=True, eq=False)
class BinaryMap:
    """y_j = 1 where x is above hyperplane j, else 0.

    Attributes:
        normals: (2 d, d) float64, row j is w_j.
        offsets: (2 d,) float64, w_j . p_j.
    """

    normals: NDArray[np.float64]
    offsets: NDArray[np.float64]

    @property
    def out_dim(self) -> int:
        """Width 2 d."""
        return self.offsets.size

    @property
    def nbytes(self) -> int:
        """Bytes of parameters."""
        return self.normals.nbytes + self.offsets.nbytes

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Return (n, 2 d) zeros and ones; float64 keeps sides from flipping with the batch."""
        above = embeddings.astype(np.float64) @ self.normals.T > self.offsets
        return above.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Binary:
    """B4B's binary: 2 d hyperplanes through the unit cube, whatever the features' scale."""

    def for_tenant(self, key: bytes, dim: int) -> BinaryMap:
        """Draw normals -tan(2 π U(0, 1)) with a last entry 1, and points on a 1,000-level grid."""
        turns = draws.uniforms(derive(key, "normals"), 2 * dim * dim, low=0, high=1)
        normals = -np.tan(2 * np.pi * turns.reshape(2 * dim, dim))
        normals[:, -1] = 1
        levels = draws.uniforms(derive(key, "points"), 2 * dim * dim, low=0, high=1000)
        points = np.floor(levels).reshape(2 * dim, dim) / 999
        return BinaryMap(normals, (normals * points).sum(axis=1))
