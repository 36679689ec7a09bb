"""A continuous secret noise field over the embedding space.

Noise that is a function of the input alone is averaged away over near-duplicates of it; noise
that is a continuous function of the clean embedding is shared by them. One row is

    n(x) = sqrt(1 - w) C f(S Q x / l) + sqrt(w) R f(S P x / l)

with secret rotations P, Q and R of each deployment and price level, waves f with secret phases,
secret frequencies S, and C which mixes the calibration's own sample. The covariance of n(x)
and n(y) is close to exp(-|x/|x| - y/|y|| / l). Most of it lies along the directions in which
embeddings differ, so that no projection tells it from signal, and the share w lies in all
directions, so that none is clean.

The field has no derivative on purpose: noise with the smooth kernel exp(-|x - y|**2 / 2 l**2) is
extrapolated from the differences among a few dozen near-duplicates (docs/decisions/0019).

Sources: random features of Rahimi and Recht, "Random Features for Large-Scale Kernel
Machines", NeurIPS 2007, here of the exponential kernel, with the orthogonal rows of Yu et
al., "Orthogonal Random Features", NeurIPS 2016. Differences: structured rotations, and
parabolas instead of cosines, which are exactly reproducible. As a noise field of an
embedding service: ours.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.guard import draws
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.keys import derive
from tollkeeper.guard.orthogonal import Orthogonal, OrthogonalMap
from tollkeeper.types import Embeddings

_WAVE_RMS = math.sqrt(8 / 15)
"""Root mean square of the parabolic wave over a period."""

_MEMO = 256

_LEAST_SIZE = 0.02
"""Keeps phases so small that float32 resolves them; one wave in sixty is slower than drawn."""


@dataclass(frozen=True, slots=True)
class Field:
    """Noise that near-duplicates share, and that all tenants of a deployment share.

    Tenants differ in their transforms only: with a field for each, linked tenants could average
    their answers to one question, which costs their pool nothing. Rotations mix all
    coordinates from a width of 16 on; the field of narrower embeddings is coarser.

    Attributes:
        reach: l, the distance of unit embeddings over which noise changes. At 0.5 noise is
            correlated by .91 at clean cosine .999, by .53 at .95 and by .14 at .5; the best
            linear combination of 400 answers at cosine .999 keeps more than .8 of the noise's
            variance (tests/guard/test_field.py).
        white: w, the share of the noise's variance that is alike in all directions. A sample
            of too few rows, or none, has only that.
    """

    is_shared: ClassVar[bool] = True

    reach: float = 0.5
    white: float = 0.25

    def __call__(
        self,
        scales: NDArray[np.float64],
        clean: Embeddings,
        *,
        key: bytes,
        identities: Sequence[bytes],  # noqa: ARG002 - near-duplicates have other identities
        rng: np.random.Generator,  # noqa: ARG002 - the interface's
        calibration: Calibration,
    ) -> Embeddings:
        """Return (n, d) noise; a row depends on the key, its level and its embedding alone."""
        lengths = np.sqrt(np.square(clean).sum(axis=1, keepdims=True))
        lengths[lengths == 0] = 1
        places = clean / lengths
        noise = np.empty_like(clean)
        for level in np.unique(scales):
            rows = np.flatnonzero(scales == level)
            level_key = derive(key, "level", struct.pack("<d", level).hex())
            noise[rows] = self._of_level(level_key, places[rows], calibration)
        return noise

    def _of_level(self, key: bytes, places: Embeddings, calibration: Calibration) -> Embeddings:
        dim = places.shape[1]
        # Waves differ in how much they move; mixed, every direction gets its share.
        white = _mixed(derive(key, "mix"), dim)(self._features(derive(key, "white"), places, dim))
        mixer = _mixer(calibration)
        if mixer is None:
            return white
        features = self._features(derive(key, "shaped"), places, len(mixer))
        # A product of fixed shape for each row, so its bytes do not depend on the batch.
        shaped = np.matmul(features[:, None, :], mixer)[:, 0, :]
        noise: Embeddings = shaped * np.float32(math.sqrt(1 - self.white))
        noise += white * np.float32(math.sqrt(self.white))
        return noise

    def _features(self, key: bytes, places: Embeddings, count: int) -> NDArray[np.float32]:
        """Return (n, count) waves of variance 1."""
        dim = places.shape[1]
        scale = np.float32(math.sqrt(dim) / (2 * math.pi * self.reach))
        parts = []
        for block in range(-(-count // dim)):
            rotation, turns, phases = _waves(derive(key, "block", block), dim)
            parts.append(_wave(rotation(places) * (scale * turns) + phases))
        whole = np.concatenate(parts, axis=1)[:, :count]
        return np.ascontiguousarray(whole)


def _wave(turns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a parabola's wave of period 1 and variance 1; like a sine within 6%."""
    x = turns - np.rint(turns)
    wave: NDArray[np.float32] = x * (1 - 2 * np.abs(x)) * np.float32(8 / _WAVE_RMS)
    return wave


@functools.lru_cache(maxsize=_MEMO)
def _waves(key: bytes, dim: int) -> tuple[OrthogonalMap, NDArray[np.float32], NDArray[np.float32]]:
    """Return a block's rotation, (d,) frequencies and (d,) phases; a cache of a pure function.

    Frequencies of the exponential kernel are normal over the size of another normal number.
    """
    phases = draws.uniforms(derive(key, "phases"), dim, low=0.0, high=1.0)
    sizes = np.abs(draws.normals(derive(key, "frequencies"), dim))
    turns = (1 / np.maximum(sizes, _LEAST_SIZE)).astype(np.float32)
    rotation = Orthogonal().for_tenant(derive(key, "rotation"), dim)
    return rotation, turns, phases.astype(np.float32)


@functools.lru_cache(maxsize=_MEMO)
def _mixed(key: bytes, dim: int) -> OrthogonalMap:
    """Return the rotation that mixes waves; a cache of a pure function."""
    return Orthogonal().for_tenant(key, dim)


@functools.lru_cache(maxsize=16)
def _mixer(calibration: Calibration) -> NDArray[np.float32] | None:
    """Return the (m, d) sample around its mean, so scaled that waves become variance 1.

    A cache of a pure function; a calibration is known by its identity.
    """
    arms = calibration.sample.astype(np.float64) - calibration.mean
    size = math.sqrt(float(np.square(arms).sum(axis=0).mean())) if arms.size else 0.0
    return None if size == 0 else (arms / size).astype(np.float32)
