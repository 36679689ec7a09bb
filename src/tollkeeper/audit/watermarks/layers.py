"""Small networks that are secret keys: drawn from a seed, computed without torch."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.watermarks.decoys import Draws
from tollkeeper.types import Embeddings


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """Linear layers with ReLUs between them.

    Attributes:
        weights: one (inputs, outputs) float32 a layer.
        biases: one (outputs,) float32 a layer.
    """

    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]

    @property
    def dim(self) -> int:
        """Width of what the first layer takes."""
        return len(self.weights[0])

    def __call__(self, rows: Embeddings) -> Embeddings:
        """Return (n, outputs) of (n, dim)."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            rows = np.maximum(rows @ weight + bias, 0)
        last: Embeddings = rows @ self.weights[-1] + self.biases[-1]
        return last


def draw_layers(draws: Draws, widths: tuple[int, ...]) -> Layers:
    """Return the network of a key: every number uniform within 1/sqrt(inputs), as torch draws them.

    Args:
        draws: of the key.
        widths: of the input, between the layers, and of the output.
    """
    weights, biases = [], []
    for inputs, outputs in itertools.pairwise(widths):
        drawn = (2 * draws.uniform(inputs + 1, outputs) - 1) / np.sqrt(inputs)
        weights.append(drawn[:-1].astype(np.float32))
        biases.append(drawn[-1].astype(np.float32))
    return Layers(tuple(weights), tuple(biases))


def digest_of(*arrays: NDArray[np.generic]) -> str:
    """Return the SHA-256 of arrays in hex: their types, shapes and bytes, in little-endian order."""
    told = hashlib.sha256()
    for array in arrays:
        plain = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
        told.update(f"{plain.dtype.str}{plain.shape}".encode())
        told.update(plain.tobytes())
    return told.hexdigest()
