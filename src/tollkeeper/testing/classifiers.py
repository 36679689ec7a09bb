"""A toy classifier that small copies can learn in seconds, and pictures for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.classifiers.base import canonical, softmax
from tollkeeper.types import Batch, Images, Probabilities

SIDE = 16


class ToyClassifier:
    """Says which quarter of a gray 16x16 picture is brightest."""

    name = "toy-classifier"
    dim = 4
    accepts = frozenset({"image", "tensor"})
    classes = ("upper left", "upper right", "lower left", "lower right")
    input_shape = (1, SIDE, SIDE)

    def __init__(self, sharpness: float = 12.0) -> None:
        """Choose how sure it is."""
        self._sharpness = sharpness

    def embed(self, inputs: Batch) -> Probabilities:
        """Return (n, 4) probabilities of n pictures or tensors."""
        rows = canonical(inputs, self.input_shape, name=self.name)
        half = SIDE // 2
        means = rows.reshape(len(rows), 2, half, 2, half).mean(axis=(2, 4)).reshape(-1, 4)
        return softmax(self._sharpness * means, n=len(rows), classes=4)


def spots(count: int, *, seed: int = 0) -> tuple[Images, NDArray[np.int64]]:
    """Return pictures (n, 1, 16, 16) with one bright quarter, and which it is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = rng.uniform(0, 0.4, (count, 2, 2, SIDE // 2, SIDE // 2))
    images[np.arange(count), labels // 2, labels % 2] += 0.5
    tiled = images.transpose(0, 1, 3, 2, 4).reshape(count, 1, SIDE, SIDE)
    return tiled.astype(np.float32), labels
