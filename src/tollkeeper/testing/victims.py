"""Toy victims that small surrogates can learn in seconds."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from tollkeeper.types import Batch, Embeddings


class ToyImageVictim:
    """ReLU of a random projection of a 4x4 thumbnail: non-negative, (n, d)."""

    accepts = frozenset({"image"})
    name = "toy-image"

    def __init__(
        self, dim: int = 16, *, seed: int = 0, view: NDArray[np.float32] | None = None
    ) -> None:
        """Draw the projection.

        Args:
            dim: its width.
            seed: of the projection.
            view: (dim, d) matrix that one account sees the answers through.
        """
        rng = np.random.default_rng(seed)
        self.dim = dim if view is None else view.shape[1]
        self._planes = rng.normal(size=(48, dim)).astype(np.float32)
        self._view = view

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n uint8 images of one size: (n, d)."""
        images = np.stack([np.asarray(image) for image in inputs]).astype(np.float32) / 255
        n, side = len(images), images.shape[1] // 4
        thumbnails = images[:, : 4 * side, : 4 * side].reshape(n, 4, side, 4, side, 3)
        flat = thumbnails.mean(axis=(2, 4)).reshape(n, 48) - 0.5
        rows = np.maximum(flat @ self._planes, 0)
        seen: Embeddings = rows if self._view is None else rows @ self._view
        return seen


class ToyTextVictim:
    """The mean of a random vector per word, unit norm, (n, d)."""

    accepts = frozenset({"text"})
    name = "toy-text"

    def __init__(self, dim: int = 16) -> None:
        """Choose the width."""
        self.dim = dim

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n texts of at least one word: (n, d)."""
        rows = np.stack([np.mean([self._word(w) for w in text.split()], axis=0) for text in inputs])
        unit: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def _word(self, word: str) -> NDArray[np.float64]:
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dim)


def blobs(count: int, *, seed: int = 0, side: int = 16) -> NDArray[np.uint8]:
    """Return smooth random images (n, side, side, 3): two by two colors, blown up."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    return small.repeat(side // 2, axis=1).repeat(side // 2, axis=2)


def sentences(count: int, *, seed: int = 0) -> list[str]:
    """Return texts of three to seven of forty words."""
    rng = np.random.default_rng(seed)
    return [
        " ".join(f"word{number}" for number in rng.integers(0, 40, rng.integers(3, 8)))
        for _ in range(count)
    ]
