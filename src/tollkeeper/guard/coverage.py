"""Coverage: how much of the embedding space a pool has visited.

Each of `tables` hash tables cuts the space with `bits` secret random hyperplanes
through (or near) its middle; an embedding falls into one of 2**bits buckets of
each. A sketch is one bit per bucket: visited or not. Coverage is the share of bits
that are set; merging two sketches is their union.

Source: Dubiński et al., "Bucks for Buckets (B4B)", NeurIPS 2023, section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import GuardError
from tollkeeper.guard import draws
from tollkeeper.types import Embeddings, Sketch

_ROUNDING = 1.5e-7
"""A float32 product's error is below this times sqrt(d) |x|: u sqrt(d / 2) |x| with u = 2**-24
is the standard deviation if every partial sum rounds independently; this is 3.5 times that."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What n inputs, one after the other, did to a sketch.

    Attributes:
        sketch: with all of them in it.
        fractions: (n,) coverage after inputs 1 .. i.
        opened: (n,) buckets that input i was the first to reach, over all tables.
    """

    sketch: Sketch
    fractions: NDArray[np.float64]
    opened: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """Hyperplanes and the arithmetic on sketches they define.

    Attributes:
        hyperplanes: (d, tables * bits) float32; the columns of one table are neighbors.
        thresholds: (tables * bits,) float32; a bit is 1 above its threshold.
        tables: independent hash tables.
        bits: hyperplanes per table.
    """

    hyperplanes: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    tables: int
    bits: int
    _offsets: NDArray[np.intp] = field(init=False, repr=False)
    _place_values: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare the constants that turn bits into places in a sketch."""
        places = np.exp2(np.arange(self.bits - 1, -1, -1, dtype=np.float32))
        object.__setattr__(self, "_place_values", places)
        object.__setattr__(self, "_offsets", np.arange(self.tables) << self.bits)

    @property
    def buckets_total(self) -> int:
        """Bits in a sketch."""
        return self.tables << self.bits

    @property
    def sketch_bytes(self) -> int:
        """Bytes in a sketch: 10,240 for 20 tables of 12 bits."""
        return (self.buckets_total + 7) // 8

    def empty(self) -> Sketch:
        """Return the sketch of a pool that never asked, (sketch_bytes,) zeros."""
        return np.zeros(self.sketch_bytes, np.uint8)

    def from_bytes(self, data: bytes) -> Sketch:
        """Read `sketch.tobytes()`; no bytes at all mean an empty sketch.

        Raises:
            GuardError: the bytes are not a sketch of this guard.
        """
        return self.checked(np.frombuffer(data, np.uint8)) if data else self.empty()

    def checked(self, sketch: Sketch) -> Sketch:
        """Return `sketch` if it is one of this guard's.

        Raises:
            GuardError: wrong type, dtype or size.
        """
        if not isinstance(sketch, np.ndarray) or sketch.dtype != np.uint8:
            raise GuardError("expected a sketch of bytes; was it read from another store?")
        if sketch.shape != (self.sketch_bytes,):
            raise GuardError(
                f"expected a sketch of {self.sketch_bytes} bytes, got shape {sketch.shape}; "
                "was the guard's profile changed?"
            )
        return sketch

    def fraction(self, sketch: Sketch) -> float:
        """Return the share of buckets visited, in [0, 1]."""
        seen = np.unpackbits(self.checked(sketch)).view(np.bool_)
        return int(np.count_nonzero(seen)) / max(1, self.buckets_total)

    def merge(self, one: Sketch, other: Sketch) -> Sketch:
        """Return the sketch of a pool that asked what both asked."""
        return self.checked(one) | self.checked(other)

    def visit(self, sketch: Sketch, embeddings: Embeddings) -> Visit:
        """Charge n inputs one after the other.

        Args:
            sketch: before; not changed.
            embeddings: (n, d) clean embeddings at full width.

        Raises:
            GuardError: not a sketch of this guard, or embeddings that are not finite.
        """
        count = len(embeddings)
        cells = (self.buckets(embeddings) + self._offsets).ravel()
        seen = np.unpackbits(self.checked(sketch))
        before = np.count_nonzero(seen.view(np.bool_))
        new = np.flatnonzero(seen.take(cells) == 0)
        opened = np.zeros(count, np.intp)
        if new.size:
            # Each unseen bucket is marked with its first visitor: of repeated indices the
            # last assignment stays, so they are assigned in reverse.
            marks = seen.astype(np.min_scalar_type(count), copy=False)
            cells, visitors = cells[new], (new // self.tables + 1).astype(marks.dtype)
            marks[cells[::-1]] = visitors[::-1]
            first = visitors[marks[cells] == visitors]
            opened = np.bincount(first, minlength=count + 1)[1:]
            seen[cells] = 1
            sketch = np.packbits(seen)
        fractions = (before + opened.cumsum()) / max(1, self.buckets_total)
        return Visit(sketch, fractions, opened)

    def buckets(self, embeddings: Embeddings) -> NDArray[np.intp]:
        """Return the (n, tables) bucket numbers; a table's first hyperplane is the top bit."""
        above = self._above(embeddings).astype(np.float32)
        numbers = above.reshape(-1, self.bits) @ self._place_values
        return numbers.astype(np.intp).reshape(len(embeddings), self.tables)

    def _above(self, embeddings: Embeddings) -> NDArray[np.bool_]:
        """Return on which side of each hyperplane each embedding lies, (n, tables * bits).

        BLAS rounds a row differently in batches of different size. A bit that flips for
        that reason would charge a repeat, so sides too close to call in float32 are
        decided in float64.
        """
        total = float(np.vdot(embeddings, embeddings))
        if not math.isfinite(total):
            raise GuardError("expected finite embeddings, got NaN, infinity or too large numbers")
        margins = embeddings @ self.hyperplanes
        margins -= self.thresholds
        above = margins > 0
        distances = np.abs(margins, out=margins)
        doubt = _ROUNDING * math.sqrt(embeddings.shape[1])
        # No row is longer than the root of the total; most small batches end here.
        if distances.min(initial=np.inf) <= doubt * math.sqrt(total):
            lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
            close = np.flatnonzero(distances <= doubt * lengths[:, None])
            rows, planes = np.divmod(close, self.thresholds.size)
            products = embeddings[rows].astype(np.float64) * self.hyperplanes.T[planes]
            above[rows, planes] = products.sum(axis=1) > self.thresholds[planes]
        return above


def hyperplanes(key: bytes, dim: int, *, tables: int, bits: int) -> NDArray[np.float32]:
    """Return (dim, tables * bits) standard normal hyperplanes, secret as `key` is.

    Notes: the published code draws them from numpy's unseeded global generator.
    """
    return draws.normals(key, dim * tables * bits).reshape(dim, tables * bits)
