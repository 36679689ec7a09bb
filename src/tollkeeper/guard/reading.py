"""Sketches read without secrets: what an operator may know of a pool."""

from __future__ import annotations

import numpy as np

from tollkeeper.guard.profiles import Profile
from tollkeeper.types import Sketch


class SketchReader:
    """Reads the sketches of one profile; needs their layout, not their hyperplanes.

    Agrees with `Guard` on everything that both do.

    Attributes:
        tracks: whether the profile measures coverage at all.
        version: profile and version, for example `recommended/1`.
    """

    def __init__(self, profile: Profile) -> None:
        """Read sketches of `profile`."""
        self._profile = profile
        self._layout = profile.layout
        self.tracks = profile.tables > 0
        self.version = f"{profile.name}/{profile.version}"

    def load(self, data: bytes) -> Sketch:
        """Read `sketch.tobytes()`; no bytes at all mean an empty sketch.

        Raises:
            GuardError: the bytes are not a sketch of this profile.
        """
        return self._layout.from_bytes(data)

    def merge(self, one: Sketch, other: Sketch) -> Sketch:
        """Return the sketch of a pool that asked what both asked."""
        return self._layout.merge(one, other)

    def fraction(self, sketch: Sketch) -> float:
        """Return the price signal of a sketch, in [0, 1]."""
        return self._layout.fraction(sketch)

    def price(self, coverage: float) -> float:
        """Return the noise scale at a coverage in [0, 1], as the profile counts it."""
        return float(self._profile.price(np.array([coverage]))[0])
