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
from tollkeeper.guard.planes import Planes
from tollkeeper.types import Embeddings, Sketch


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
        planes: tables * bits hyperplanes, those of one table being neighbors; a bit is 1
            above its plane.
        tables: independent hash tables.
        bits: hyperplanes per table.
    """

    planes: Planes
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
        if not math.isfinite(float(np.vdot(embeddings, embeddings))):
            raise GuardError("expected finite embeddings, got NaN, infinity or too large numbers")
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
        above = self.planes(embeddings).astype(np.float32)
        numbers = above.reshape(-1, self.bits) @ self._place_values
        return numbers.astype(np.intp).reshape(len(embeddings), self.tables)
