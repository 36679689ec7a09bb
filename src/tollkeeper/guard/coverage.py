"""Coverage: how much of the embedding space a pool has visited.

Each of `tables` hash tables cuts the space with `bits` secret random hyperplanes
through (or near) its middle; an embedding falls into one of 2**bits buckets of
each. A sketch is one bit per bucket: visited or not. Coverage is the share of bits
that are set; merging two sketches is their union.

Source: Dubiński et al., "Bucks for Buckets (B4B)", NeurIPS 2023, section 3.1. With
landmarks the buckets only tell new inputs from old ones, and the price reads the share of
landmarks instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import GuardError
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.keys import derive
from tollkeeper.guard.landmarks import Landmarks
from tollkeeper.guard.layout import Layout
from tollkeeper.guard.planes import ROUNDING, Planes, Sides
from tollkeeper.guard.profiles import Profile
from tollkeeper.types import Embeddings, Sketch

_FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
"""One for each table that names a fine cell: with 12 bits each, there are 2**36 cells."""

_HALF, _ONE = np.uint64(32), np.uint32(1)


@dataclass(frozen=True, slots=True)
class Visit:
    """What n inputs, one after the other, did to a sketch.

    Attributes:
        sketch: with all of them in it.
        before: price signal before the first.
        fractions: (n,) price signal after inputs 1 .. i.
        opened: (n,) buckets that input i was the first to reach, over all tables, its
            landmark included.
        places: (n, k) the bits of a sketch that each input sets.
        spared: what still does not count afterwards; None where everything does.
    """

    sketch: Sketch
    before: float
    fractions: NDArray[np.float64]
    opened: NDArray[np.intp]
    places: NDArray[np.intp]
    spared: Sketch | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """Hyperplanes and landmarks, and the arithmetic on sketches they define.

    Attributes:
        planes: tables * bits hyperplanes, those of one table being neighbors; a bit is 1
            above its plane.
        tables: independent hash tables.
        bits: hyperplanes per table.
        landmarks: cells of the price signal; None reads it from the buckets.
        samples: hashes of fine cells that a sketch keeps.
        layout: of the sketches.
    """

    planes: Planes
    tables: int
    bits: int
    landmarks: Landmarks | None = None
    samples: int = 0
    layout: Layout = field(init=False)
    _offsets: NDArray[np.intp] = field(init=False, repr=False)
    _place_values: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare the constants that turn bits into places in a sketch."""
        places = np.exp2(np.arange(self.bits - 1, -1, -1, dtype=np.float32))
        object.__setattr__(self, "_place_values", places)
        object.__setattr__(self, "_offsets", np.arange(self.tables) << self.bits)
        count = 0 if self.landmarks is None else self.landmarks.count
        layout = Layout(self.tables, self.bits, count, self.samples)
        object.__setattr__(self, "layout", layout)

    @property
    def sketch_bytes(self) -> int:
        """Bytes in a sketch."""
        return self.layout.sketch_bytes

    def empty(self) -> Sketch:
        """Return the sketch of a pool that never asked."""
        return self.layout.empty()

    def from_bytes(self, data: bytes) -> Sketch:
        """Read a sketch; see `Layout.from_bytes`."""
        return self.layout.from_bytes(data)

    def fraction(self, sketch: Sketch) -> float:
        """Return the price signal of a sketch, in [0, 1]."""
        return self.layout.fraction(sketch)

    def merge(self, one: Sketch, other: Sketch) -> Sketch:
        """Return the sketch of a pool that asked what both asked."""
        return self.layout.merge(one, other)

    def visit(self, sketch: Sketch, embeddings: Embeddings, spared: Sketch | None = None) -> Visit:
        """Charge n inputs one after the other.

        Args:
            sketch: before; not changed.
            embeddings: (n, d) clean embeddings at full width.
            spared: what of the sketch does not count; see `Layout.signal`.

        Raises:
            GuardError: not a sketch of this guard, or embeddings that are not finite.
        """
        count = len(embeddings)
        places = self.places(embeddings)
        cells = places.ravel()
        bitmap = self.layout.bitmap(sketch)
        seen = np.unpackbits(bitmap)
        priced = self.layout.priced
        before = np.count_nonzero(seen[priced].view(np.bool_))
        new = np.flatnonzero(seen.take(cells) == 0)
        opened = paid = np.zeros(count, np.intp)
        if new.size:
            # Each unseen bucket is marked with its first visitor: of repeated indices the
            # last assignment stays, so they are assigned in reverse.
            marks = seen.astype(np.min_scalar_type(count), copy=False)
            cells, visitors = cells[new], (new // places.shape[1] + 1).astype(marks.dtype)
            marks[cells[::-1]] = visitors[::-1]
            first = marks[cells] == visitors
            opened = paid = np.bincount(visitors[first], minlength=count + 1)[1:]
            if self.landmarks is not None:
                first &= cells >= priced.start
                paid = np.bincount(visitors[first], minlength=count + 1)[1:]
            seen[cells] = 1
            bitmap = np.packbits(seen)
        sketch = self._with_sample(bitmap, sketch, places)
        total = self.layout.priced_count
        if spared is not None:
            before -= int(np.unpackbits(spared).sum())
            reached, spared = self.layout.unspare(spared, places, np.flatnonzero(opened))
            paid = paid + reached
        fractions = (before + paid.cumsum()) / total
        return Visit(sketch, before / total, fractions, opened, places, spared)

    def mark(self, sketch: Sketch, places: NDArray[np.intp]) -> Sketch:
        """Return a sketch with inputs in it, given by their `places`; nothing is priced."""
        seen = np.unpackbits(self.layout.bitmap(sketch))
        seen[places.ravel()] = 1
        return self._with_sample(np.packbits(seen), sketch, places)

    def _with_sample(self, bitmap: Sketch, before: Sketch, places: NDArray[np.intp]) -> Sketch:
        """Return the sketch of new bits, with the hashes of what was asked in its sample."""
        if not self.samples:
            return bitmap
        sample = self.layout.sample(before)
        hashes = self._hashes(places)
        hashes = hashes[hashes > sample[0]]
        if hashes.size:
            sample = self.layout.largest(sample, hashes)
        return self.layout.joined(bitmap, sample)

    def _hashes(self, places: NDArray[np.intp]) -> NDArray[np.uint32]:
        """Return (n,) hashes of fine cells, never 0: those of the first tables taken together.

        Two inputs share a cell if they lie on the same side of each of three tables' planes,
        as identical ones do and near-duplicates mostly. The hash is multilinear: products with
        odd 64-bit numbers, of whose sum the upper half counts.
        """
        tables = min(len(_FACTORS), self.tables)
        fine = places[:, :tables].astype(np.uint64) * _FACTORS[:tables]
        hashes: NDArray[np.uint32] = (fine.sum(axis=1, dtype=np.uint64) >> _HALF).astype(np.uint32)
        return np.maximum(hashes, _ONE)

    def buckets(self, embeddings: Embeddings) -> NDArray[np.intp]:
        """Return the (n, tables) bucket numbers; a table's first hyperplane is the top bit."""
        return self._numbers(self.planes(embeddings))

    def _numbers(self, sides: Sides) -> NDArray[np.intp]:
        numbers = sides.astype(np.float32).reshape(-1, self.bits) @ self._place_values
        return numbers.astype(np.intp).reshape(len(sides), self.tables)

    def places(self, embeddings: Embeddings) -> NDArray[np.intp]:
        """Return the (n, tables) places in a sketch, and one more with landmarks.

        Raises:
            GuardError: embeddings that are not finite.
        """
        if not math.isfinite(float(np.vdot(embeddings, embeddings))):
            raise GuardError("expected finite embeddings, got NaN, infinity or too large numbers")
        if self.landmarks is None:
            return self.buckets(embeddings) + self._offsets
        margins = np.empty((len(embeddings), self.tables * self.bits), np.float32)
        numbers = self._numbers(self.planes(embeddings, out=margins))
        nearest = self.landmarks.nearest(
            margins,
            # Rounding errors of h products of (d,) embeddings with normals of up to sqrt(d).
            doubts=ROUNDING
            * math.sqrt(embeddings.shape[1] * margins.shape[1])
            * _norms(embeddings),
            exact=lambda row: self.planes.exact(embeddings[row]),
        )
        places = nearest + self.layout.buckets
        return np.concatenate([numbers + self._offsets, places[:, None]], axis=1)


def _norms(rows: Embeddings) -> NDArray[np.float32]:
    norms: NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return norms


def drawn(profile: Profile, calibration: Calibration, key: bytes) -> Coverage:
    """Draw a profile's secret hyperplanes and landmarks.

    Raises:
        CalibrationError: the sample is too small for the landmarks.
    """
    planes = profile.planes.draw(
        key, calibration, profile.tables * profile.bits, centered=profile.centered
    )
    landmarks = None
    if profile.landmarks:
        margins = np.empty((len(calibration.sample), profile.tables * profile.bits), np.float32)
        planes(calibration.sample, out=margins)
        landmarks = Landmarks.choose(derive(key, "landmarks"), margins, profile.landmarks)
    return Coverage(planes, profile.tables, profile.bits, landmarks, profile.samples)
