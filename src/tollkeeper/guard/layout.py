"""What a sketch holds and how it is read: no secret is needed for that.

A sketch is one bit per bucket, table after table, and behind them one bit per landmark;
1 means visited. The price signal is the share of landmarks visited, or of buckets for
profiles without landmarks. Behind the bits stands a sample of the fine cells visited: the
largest few of their hashes, which two pools have in common as far as they asked the same
inputs. Merging two sketches is their union, and the largest hashes of both.

Source of the sample: Broder, "On the resemblance and containment of documents", 1997, as
"bottom-k sketch"; here the largest values, so that an empty sketch is all zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import GuardError
from tollkeeper.types import Sketch


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes of a sketch's parts.

    Attributes:
        tables: hash tables.
        bits: hyperplanes per table, so 2**bits buckets each.
        landmarks: cells of the price signal; 0 reads it from the buckets.
        samples: hashes of fine cells kept, as evidence of shared inputs.
    """

    tables: int
    bits: int
    landmarks: int = 0
    samples: int = 0

    @property
    def buckets(self) -> int:
        """Bits of all tables."""
        return self.tables << self.bits

    @property
    def bitmap_bytes(self) -> int:
        """Bytes of all bits."""
        return (self.buckets + self.landmarks + 7) // 8

    @property
    def sketch_bytes(self) -> int:
        """Bytes in a sketch: 11,296 for 20 tables of 12 bits, 256 landmarks and 256 hashes."""
        return self.bitmap_bytes + 4 * self.samples

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
                "was the guard's profile changed, or Tollkeeper upgraded and not started since?"
            )
        return sketch

    def bitmap(self, sketch: Sketch) -> Sketch:
        """Return the bits of a sketch, packed."""
        return self.checked(sketch)[: self.bitmap_bytes]

    def sample(self, sketch: Sketch) -> NDArray[np.uint32]:
        """Return (samples,) hashes of fine cells, rising; zeros where there are fewer."""
        return self.checked(sketch)[self.bitmap_bytes :].view("<u4")

    def joined(self, bitmap: Sketch, sample: NDArray[np.uint32]) -> Sketch:
        """Return the sketch of these parts."""
        return np.concatenate([bitmap, sample.astype("<u4", copy=False).view(np.uint8)])

    def largest(self, *hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return (samples,) the largest different hashes, rising; zeros where there are fewer."""
        # What np.unique does, with fewer calls: each new input comes through here.
        values = np.concatenate(hashes)
        values.sort()
        first = np.ones(len(values), np.bool_)
        np.not_equal(values[1:], values[:-1], out=first[1:])
        found = values[first][-self.samples :]
        largest = np.zeros(self.samples, np.uint32)
        largest[self.samples - len(found) :] = found
        return largest

    def merge(self, one: Sketch, other: Sketch) -> Sketch:
        """Return the sketch of a pool that asked what both asked."""
        bits = self.bitmap(one) | self.bitmap(other)
        if not self.samples:
            return bits
        return self.joined(bits, self.largest(self.sample(one), self.sample(other)))

    def signal(self, sketch: Sketch, spared: Sketch | None = None) -> NDArray[np.bool_]:
        """Return (priced_count,) the bits that count, without those that are spared.

        Args:
            sketch: of a pool.
            spared: packed, what it reached under allowances only; None where there is nothing.
        """
        seen = np.unpackbits(self.bitmap(sketch))[self.priced].view(np.bool_)
        return seen if spared is None else seen & ~self._unpacked(spared)

    def fraction(self, sketch: Sketch, spared: Sketch | None = None) -> float:
        """Return the price signal of a sketch, in [0, 1]."""
        return int(np.count_nonzero(self.signal(sketch, spared))) / self.priced_count

    def spare(self, counting: NDArray[np.bool_], sketch: Sketch) -> Sketch | None:
        """Return what of a sketch does not count, packed, where only `counting` does."""
        spared = self.signal(sketch) & ~counting
        return np.packbits(spared) if spared.any() else None

    def unspare(
        self, spared: Sketch, places: NDArray[np.intp], rows: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], Sketch | None]:
        """Let inputs of their own count where only allowances had been.

        Args:
            spared: packed; not changed.
            places: (n, k) the bits that each input sets.
            rows: which inputs ask something new.

        Returns:
            (n,) how many spared bits each input is the first to reach, and what is left.
        """
        bits, reached = self._unpacked(spared).copy(), np.zeros(len(places), np.intp)
        start, stop = self.priced.start, self.priced.stop
        for row in rows.tolist():
            cells = places[row]
            cells = cells[(cells >= start) & (cells < stop)] - start
            reached[row] = np.count_nonzero(bits[cells])
            bits[cells] = False
        return reached, np.packbits(bits) if bits.any() else None

    def _unpacked(self, spared: Sketch) -> NDArray[np.bool_]:
        return np.unpackbits(spared)[: self.priced_count].view(np.bool_)

    def shared(self, one: Sketch, other: Sketch) -> tuple[float, int]:
        """Estimate how many of all inputs of two pools were asked by both.

        Returns:
            The share, and how many hashes it was seen in: with fewer than a handful it may
            be chance.
        """
        if not self.samples:
            return 0.0, 0
        mine, theirs = self.sample(one), self.sample(other)
        both = self.largest(mine, theirs)
        both = both[both > 0]
        common = np.count_nonzero(np.isin(both, mine) & np.isin(both, theirs))
        return float(common / max(1, len(both))), int(common)
