"""Noise: fresh for every answer, or a fixed secret function of the question.

`draw` is called with the clean embeddings; only `Field` looks at them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tollkeeper.guard import draws
from tollkeeper.guard.calibration import Calibration
from tollkeeper.types import Embeddings


class Noise(Protocol):
    """Draws rows of variance 1 that are scaled and added to clean embeddings.

    Attributes:
        is_shared: whether all tenants of a deployment get noise of one key.
    """

    is_shared: ClassVar[bool]

    def __call__(
        self,
        scales: NDArray[np.float64],
        clean: Embeddings,
        *,
        key: bytes,
        identities: Sequence[bytes],
        rng: np.random.Generator,
        calibration: Calibration,
    ) -> Embeddings:
        """Return (n, d) float32 noise with a mean square of 1 in the mean over coordinates.

        Args:
            scales: (n,) positive relative noise scales, the names of the inputs' price levels.
            clean: (n, d) embeddings at full width.
            key: the noise key, of a tenant or of all.
            identities: what makes each input that input, n byte strings.
            rng: source of fresh noise.
            calibration: of the encoder.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fresh:
    """New noise for every answer, as B4B describes; asking again averages it away."""

    is_shared: ClassVar[bool] = False

    def __call__(
        self,
        scales: NDArray[np.float64],  # noqa: ARG002 - the interface's
        clean: Embeddings,
        *,
        key: bytes,  # noqa: ARG002 - the interface's
        identities: Sequence[bytes],  # noqa: ARG002 - the interface's
        rng: np.random.Generator,
        calibration: Calibration,  # noqa: ARG002 - the interface's
    ) -> Embeddings:
        """Return (n, d) noise from `rng`; nothing else matters."""
        return rng.standard_normal(clean.shape, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Keyed:
    """The same noise whenever one tenant asks one question at one price level.

    Row i depends on the key, the level's scale and the input's identity, and on nothing
    else: not on the batch, the order, the replica, the time or `dimensions`. Levels and
    tenants have unrelated noise, so differences of answers do not cancel it.
    """

    is_shared: ClassVar[bool] = False

    def __call__(
        self,
        scales: NDArray[np.float64],
        clean: Embeddings,
        *,
        key: bytes,
        identities: Sequence[bytes],
        rng: np.random.Generator,  # noqa: ARG002 - the interface's
        calibration: Calibration,  # noqa: ARG002 - the interface's
    ) -> Embeddings:
        """Return (n, d) noise from the key; `rng` is not touched."""
        # Every field but the last has a fixed length, so no two questions collide.
        secret = hashlib.sha256(key).digest()
        levels = [struct.pack("<d", scale) for scale in scales]
        seeds = [
            secret + level + identity for level, identity in zip(levels, identities, strict=True)
        ]
        return draws.normal_rows(seeds, clean.shape[1])
