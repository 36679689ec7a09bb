"""A secret rotation that keeps every cosine, in O(d) memory and time.

y = H P H D x, where D are secret signs, P a secret order of the coordinates, and H a
Hadamard matrix on groups of k neighbors (k = 16 from d = 64 on). The second H meets
each group of the first spread over many groups, so a coordinate enters up to k**2
outputs. Where k does not divide d, the first H leaves out the last few coordinates and
the second the first few; P leaves the last few in place, so each is mixed at least once.

Each input is one matrix product of fixed shape, so its bytes do not depend on the batch:
one product over the whole batch would be rounded differently at different sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.guard import draws
from tollkeeper.guard.keys import derive
from tollkeeper.types import Embeddings

_CACHE_FLOATS = 1 << 16
"""Rows are transformed in blocks of about this many numbers, which stay in the L2 cache."""


@dataclass(frozen=True, slots=True, eq=False)
class OrthogonalMap:
    """One tenant's rotation, held in 3 d bytes.

    Attributes:
        signs: (d,) int8 of 1 and -1, the diagonal D.
        order: (d,) uint16 (uint32 above 65,536), P: coordinate i comes from order[i].
    """

    signs: NDArray[np.int8]
    order: NDArray[Any]

    @property
    def out_dim(self) -> int:
        """Width d."""
        return self.order.size

    @property
    def nbytes(self) -> int:
        """Bytes of parameters: 4,608 at d = 1,536."""
        return self.order.nbytes + self.signs.nbytes

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Return (n, d)."""
        dim, side = self.out_dim, _group_size(self.out_dim)
        signs, order = self.signs.astype(np.float32), self.order.astype(np.intp)
        result = np.empty(embeddings.shape, np.float32)
        block = max(1, _CACHE_FLOATS // dim)
        for start in range(0, len(embeddings), block):
            rows = embeddings[start : start + block] * signs
            mixed = np.empty_like(rows)
            _mix(rows, mixed, side=side, first=0)
            rows = mixed.take(order, axis=1)
            _mix(rows, result[start : start + block], side=side, first=dim % side)
        return result


@dataclass(frozen=True, slots=True)
class Orthogonal:
    """Structured orthogonal transforms, one per key."""

    def for_tenant(self, key: bytes, dim: int) -> OrthogonalMap:
        """Draw the signs and the order."""
        coins = np.unpackbits(draws.integers(derive(key, "signs"), -(-dim // 8), bits=8), count=dim)
        mixed = dim - dim % _group_size(dim)
        order = np.arange(dim, dtype=np.uint16 if dim <= 1 << 16 else np.uint32)
        order[:mixed] = draws.permutation(derive(key, "order"), mixed)
        return OrthogonalMap(1 - 2 * coins.astype(np.int8), order)


def _mix(rows: Embeddings, out: Embeddings, *, side: int, first: int) -> None:
    """Write `rows` to `out`, groups of neighbors mixed by a Hadamard matrix.

    Args:
        rows: (n, d).
        out: (n, d), overwritten.
        side: k, coordinates per group.
        first: where the groups begin; d % k coordinates before or after them are copied.
    """
    count, dim = rows.shape
    last = first + dim - dim % side
    shape = (count, dim // side, side)
    groups, mixed = rows[:, first:last].reshape(shape), out[:, first:last].reshape(shape)
    np.matmul(groups, _HADAMARD[side], out=mixed)
    if dim % side:
        out[:, :first], out[:, last:] = rows[:, :first], rows[:, last:]


def _group_size(dim: int) -> int:
    """Return the coordinates per group; with fewer than four groups two rounds could cancel."""
    return next(side for side in (16, 4, 2, 1) if dim >= 4 * side or side == 1)


def hadamard(side: int) -> NDArray[np.float32]:
    """Return Sylvester's (side, side) matrix over sqrt(side); side is a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < side:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    scaled: NDArray[np.float32] = (matrix / np.sqrt(side)).astype(np.float32)
    return scaled


_HADAMARD = {side: hadamard(side) for side in (1, 2, 4, 16)}
