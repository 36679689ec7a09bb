"""A secret rotation that keeps every cosine, in O(d) memory and O(d log d) time.

y = H2 D2 H1 D1 P x, where P is a secret order of the coordinates, D1 and D2 secret
signs, and H1, H2 Hadamard matrices on groups of k coordinates (k = 16 from d = 16
on): H1 on neighbors, H2 on coordinates that come from different groups of H1. So each
coordinate enters k**2 of the outputs. Where k does not divide d, H1 leaves out the last
few coordinates and H2 the first few; each coordinate is in at least one of them.

The sums are exact. Numbers of 20 bits on one grid, 16 of them added, need 24 bits,
which float32 has; hence the same bytes for any batch, BLAS, thread count and processor.
Rounding to that grid is the only error: about 1e-6 of a vector's norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.guard import draws
from tollkeeper.guard.keys import derive
from tollkeeper.types import Embeddings

_GRID_BITS = 20
_CACHE_FLOATS = 1 << 16
"""Rows are transformed in blocks of about this many numbers, which stay in the L2 cache."""


@dataclass(frozen=True, slots=True, eq=False)
class OrthogonalMap:
    """One tenant's rotation, held in 2 d + d / 4 bytes.

    Attributes:
        order: (d,) uint16 (uint32 above 65,536), the order P.
        signs: (2, ceil(d / 8)) uint8, packed coins of D1 and D2.
    """

    order: NDArray[Any]
    signs: NDArray[np.uint8]

    @property
    def out_dim(self) -> int:
        """Width d."""
        return self.order.size

    @property
    def nbytes(self) -> int:
        """Bytes of parameters: 3,456 at d = 1,536."""
        return self.order.nbytes + self.signs.nbytes

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Return (n, d)."""
        dim = self.out_dim
        hadamard = _HADAMARD[_group_size(dim)]
        side = len(hadamard)
        mixed = dim - dim % side
        order = self.order.astype(np.intp)
        weights = 1 - 2 * np.unpackbits(self.signs, count=dim).astype(np.float32)
        result = np.empty(embeddings.shape, np.float32)
        block = max(1, _CACHE_FLOATS // dim)
        for start in range(0, len(embeddings), block):
            rows = embeddings[start : start + block] * weights
            if GRID: to_grid(rows, bits=20)
            groups = rows[:, :mixed].reshape(len(rows), -1, side)
            rows[:, :mixed] = np.matmul(groups, hadamard).reshape(len(rows), mixed)
            rows = rows.take(order, axis=1)
            if GRID: to_grid(rows, bits=20)
            out = result[start : start + block]
            out[:, : dim - mixed] = rows[:, : dim - mixed]
            groups = rows[:, dim - mixed :].reshape(len(rows), -1, side)
            out[:, dim - mixed :] = np.matmul(groups, hadamard).reshape(len(rows), mixed)
        return result


@dataclass(frozen=True, slots=True)
class Orthogonal:
    """Structured orthogonal transforms, one per key."""

    def for_tenant(self, key: bytes, dim: int) -> OrthogonalMap:
        """Draw the order and the signs."""
        packed = np.uint16 if dim <= 1 << 16 else np.uint32
        mixed = dim - dim % _group_size(dim)
        order = np.arange(dim, dtype=packed)
        order[:mixed] = draws.permutation(derive(key, "order"), mixed)
        return OrthogonalMap(order, draws.signs(derive(key, "signs"), dim))


def to_grid(x: NDArray[Any], *, bits: int) -> None:
    """Round each row of `x` to multiples of 2**-bits of the power of two above its largest number.

    Numbers on one grid add exactly, in any order, while the sum fits the format.

    Args:
        x: (n, d) float32 or float64, overwritten.
        bits: bits to keep, at most the format's precision less two.
    """
    peaks = np.maximum(x.max(axis=1), -x.min(axis=1))
    _, exponents = np.frexp(peaks)
    # Near 1.5 * 2**(p - 1) grid steps the format's own spacing is one step (p = precision).
    precision = np.finfo(x.dtype).nmant
    anchor = np.ldexp(x.dtype.type(1.5), exponents + precision - bits)[:, None]
    x += anchor
    x -= anchor


def _group_size(dim: int) -> int:
    """Return the coordinates per group: 16, or the largest of 4, 2, 1 that fits."""
    return next(side for side in (16, 4, 2, 1) if side <= dim)


def _hadamard(side: int) -> NDArray[np.float32]:
    """Return Sylvester's (side, side) matrix over sqrt(side); side is a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < side:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (matrix / np.sqrt(side)).astype(np.float32)


_HADAMARD = {side: _hadamard(side) for side in (1, 2, 4, 16)}
GRID=True
