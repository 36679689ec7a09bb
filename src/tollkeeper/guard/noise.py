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
        """Return (n, dim) float32 standard normal noise.

        Args:
            scales: (n,) positive relative noise scales, the names of the inputs' price levels.
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
        key: bytes,  # noqa: ARG002 - the interface's
        identities: Sequence[bytes],  # noqa: ARG002 - the interface's
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
        rng: np.random.Generator,  # noqa: ARG002 - the interface's
    ) -> Embeddings:
        """Return (n, dim) noise from the key; `rng` is not touched."""
        # Every field but the last has a fixed length, so no two questions collide.
        secret = hashlib.sha256(key).digest()
        levels = [struct.pack("<d", scale) for scale in scales]
        seeds = [
            secret + level + identity for level, identity in zip(levels, identities, strict=True)
        ]
        return draws.normal_rows(seeds, dim)
