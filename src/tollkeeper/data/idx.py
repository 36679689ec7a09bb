"""MNIST's idx format: gray pictures in one gzipped file, labels in another."""

from __future__ import annotations

import gzip
import math

import numpy as np
from numpy.typing import NDArray


def files(prefix: str) -> tuple[str, str]:
    """Return the names of the image file and the label file of a split."""
    return f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"


def decode(packed: bytes) -> NDArray[np.uint8]:
    """Decode a gzipped idx file of unsigned bytes: magic 0 0 8 rank, big-endian sizes, data.

    Raises:
        ValueError: not such a file, or cut short.
    """
    content = gzip.decompress(packed)
    if content[:3] != b"\x00\x00\x08":
        raise ValueError("not an idx file of unsigned bytes")
    start = 4 + 4 * content[3]
    shape = [int(size) for size in np.frombuffer(content[4:start], dtype=">u4")]
    if len(content) - start != math.prod(shape):
        raise ValueError(f"idx file cut short: {len(content) - start} bytes for shape {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def rgb(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """View (n, h, w) gray as (n, h, w, 3), every channel the same memory."""
    return np.broadcast_to(gray[..., None], (*gray.shape, 3))
