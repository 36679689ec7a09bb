"""What a sketch holds and how it is read: no secret is needed for that.

A sketch is one bit per bucket, table after table, and behind them one bit per landmark;
1 means visited. Merging two sketches is their union. The price signal is the share of
landmarks visited, or of buckets for profiles without landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tollkeeper.errors import GuardError
from tollkeeper.types import Sketch


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes of a sketch's parts.

    Attributes:
        tables: hash tables.
        bits: hyperplanes per table, so 2**bits buckets each.
        landmarks: cells of the price signal; 0 reads it from the buckets.
    """

    tables: int
    bits: int
    landmarks: int = 0

    @property
    def buckets(self) -> int:
        """Bits of all tables."""
        return self.tables << self.bits

    @property
    def sketch_bytes(self) -> int:
        """Bytes in a sketch: 10,272 for 20 tables of 12 bits and 256 landmarks."""
        return (self.buckets + self.landmarks + 7) // 8

    @property
    def priced(self) -> slice:
        """The bits that the price signal is the share of."""
        start = self.buckets if self.landmarks else 0
        return slice(start, self.buckets + self.landmarks)

    @property
    def priced_count(self) -> int:
        """How many they are, at least 1."""
        return max(1, self.landmarks or self.buckets)

    def empty(self) -> Sketch:
        """Return the sketch of a pool that never asked, (sketch_bytes,) zeros."""
        return np.zeros(self.sketch_bytes, np.uint8)

    def from_bytes(self, data: bytes) -> Sketch:
        """Read `sketch.tobytes()`; no bytes at all mean an empty sketch.

        Raises:
            GuardError: the bytes are not a sketch of this layout.
        """
        return self.checked(np.frombuffer(data, np.uint8)) if data else self.empty()

    def checked(self, sketch: Sketch) -> Sketch:
        """Return `sketch` if it is one of this layout.

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

    def merge(self, one: Sketch, other: Sketch) -> Sketch:
        """Return the sketch of a pool that asked what both asked."""
        return self.checked(one) | self.checked(other)

    def fraction(self, sketch: Sketch) -> float:
        """Return the price signal of a sketch, in [0, 1]."""
        seen = np.unpackbits(self.checked(sketch))[self.priced].view(np.bool_)
        return int(np.count_nonzero(seen)) / self.priced_count
