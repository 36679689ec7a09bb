"""An encoder that shows what it was trained on, without training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Modality
from tollkeeper.types import Batch, Embeddings

_LIKE = 0.9
"""Cosine of centered pixels from which an image is taken for one that is remembered."""

_AT_A_TIME = 1024


class MemorizingEncoder:
    """Embeds images by a random layer, and pulls views of remembered images to one point.

    What it remembers stands for what a victim was trained on; a weaker pull, for a copy; none, for
    an independent. Use it to test that an audit finds what is there, never for its power.

    Attributes:
        name: "memorizer".
        dim: embedding width.
    """

    name = "memorizer"
    accepts: frozenset[Modality] = frozenset({"image", "tensor"})
    rows_independent: bool = False

    def __init__(
        self,
        dim: int,
        *,
        rng: np.random.Generator,
        remembered: NDArray[np.uint8] | None = None,
        pull: float = 0.0,
    ) -> None:
        """Draw the layer.

        Args:
            dim: embedding width.
            rng: draws the layer; another one makes another encoder.
            remembered: (m, h, w, 3) uint8 images.
            pull: from 0, nothing remembered, to 1, all views of one image are the same.
        """
        self.dim = dim
        self._seed = int(rng.integers(2**63))
        self._pull = pull
        self._centers = None if remembered is None else _pixels(remembered)

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n images; see `Encoder.embed`."""
        pixels = _pixels(np.asarray(inputs))
        found = np.empty((len(pixels), self.dim), np.float32)
        for at in range(0, len(pixels), _AT_A_TIME):
            found[at : at + _AT_A_TIME] = self._embed(pixels[at : at + _AT_A_TIME])
        return found

    def _embed(self, pixels: NDArray[np.float32]) -> Embeddings:
        rng = np.random.default_rng(self._seed)
        layer = rng.standard_normal((pixels.shape[1], self.dim), dtype=np.float32)
        found: Embeddings = np.tanh(pixels @ layer)
        if self._centers is not None and self._pull:
            cosines = _unit(pixels) @ _unit(self._centers).T
            known = cosines.max(axis=1) > _LIKE
            anchors = np.tanh(self._centers[cosines.argmax(axis=1)[known]] @ layer)
            found[known] += np.float32(self._pull) * (anchors - found[known])
        return found


def _pixels(images: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n, h w c) pixels around 0, in one order for both kinds of images."""
    if images.dtype == np.uint8:
        planes = images.astype(np.float32) / np.float32(255)
    else:
        planes = np.moveaxis(images, 1, 3)
    found: NDArray[np.float32] = planes.reshape(len(images), -1) - np.float32(0.5)
    return found


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = rows / np.maximum(
        np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12)
    )
    return found


def smooth_images(n: int, *, rng: np.random.Generator, side: int = 8) -> NDArray[np.uint8]:
    """Return (n, side, side, 3) uint8 images without fine detail, all different."""
    coarse = rng.random((n, 3, 3, 3), dtype=np.float32)
    at = np.linspace(0, 2, side)
    below = np.minimum(at.astype(np.intp), 1)
    share = (at - below).astype(np.float32)
    for axis in (1, 2):
        shape = [1, 1, 1, 1]
        shape[axis] = side
        first, second = coarse.take(below, axis), coarse.take(below + 1, axis)
        coarse = first + (second - first) * share.reshape(shape)
    return np.rint(255 * coarse).astype(np.uint8)
