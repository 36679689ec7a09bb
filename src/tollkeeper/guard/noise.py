"""Noise: fresh for every answer, or a fixed secret function of the question."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollkeeper.guard import draws
from tollkeeper.types import Embeddings


class Noise(Protocol):
    """Draws the standard normal rows that are scaled and added to clean embeddings."""

    def __call__(
        self,
        scales: NDArray[np.float64],
        dim: int,
        *,
        key: bytes,
        identities: Sequence[bytes],
        rng: np.random.Generator,
    ) -> Embeddings:
        """Return (n, dim) float32 standard normal noise; rows whose scale is 0 may be 0.

        Args:
            scales: (n,) relative noise scales, the name of each input's price level.
            dim: full embedding width.
            key: the tenant's noise key.
            identities: what makes each input that input, n byte strings.
            rng: source of fresh noise.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fresh:
    """New noise for every answer, as B4B describes; asking again averages it away."""

    def __call__(
        self,
        scales: NDArray[np.float64],
        dim: int,
        *,
        key: bytes,
        identities: Sequence[bytes],
        rng: np.random.Generator,
    ) -> Embeddings:
        """Return (n, dim) noise from `rng`; key and identities do not matter."""
        return rng.standard_normal((len(scales), dim), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Keyed:
    """The same noise whenever one tenant asks one question at one price level.

    Row i depends on the key, the level's scale and the input's identity, and on nothing
    else: not on the batch, the order, the replica, the time or `dimensions`. Levels and
    tenants have unrelated noise, so differences of answers do not cancel it.
    """

    def __call__(
        self,
        scales: NDArray[np.float64],
        dim: int,
        *,
        key: bytes,
        identities: Sequence[bytes],
        rng: np.random.Generator,
    ) -> Embeddings:
        """Return (n, dim) noise from the key; `rng` is not touched."""
        noise = np.zeros((len(scales), dim), np.float32)
        for row in np.flatnonzero(scales):
            level = struct.pack("<d", scales[row])
            # Every field but the last has a fixed length, so no two questions collide.
            seed = hashlib.sha256(key).digest() + level + identities[row]
            noise[row] = draws.normals(seed, dim)
        return noise
