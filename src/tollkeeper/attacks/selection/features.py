"""What inputs look like without asking anybody."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import InputError
from tollkeeper.types import Batch

Features = Callable[[Batch], NDArray[np.float32]]
"""Cheap features of n inputs: (n, p) float32. May be any encoder's `embed` but the victim's."""

SIDE = 8
"""Pixels a side of a thumbnail: 192 numbers an image tell light, color and rough layout."""


def thumbnails(queries: Batch) -> NDArray[np.float32]:
    """Shrink n RGB images of any size to 8x8 by area and flatten them.

    Args:
        queries: n uint8 images (h, w, 3).

    Returns:
        (n, 192) float32 in [0, 1].

    Raises:
        InputError: an input is no RGB image; such pools need features of their own.
    """
    rows = np.empty((len(queries), SIDE * SIDE * 3), dtype=np.float32)
    for position, image in enumerate(queries):
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"input {position}: expected an (h, w, 3) image to make a thumbnail of; "
                "hand in `features` for other inputs"
            )
        height, width, _ = image.shape
        short = (_area_means(height) @ image.reshape(height, -1)).reshape(SIDE, width, 3)
        rows[position] = (_area_means(width) @ short).ravel()
    rows /= 255
    return rows


@cache
def _area_means(length: int) -> NDArray[np.float32]:
    """Return the (8, length) matrix that averages a line of pixels over 8 equal stretches."""
    borders = np.linspace(0, length, SIDE + 1)
    pixels = np.arange(length)
    begin = np.maximum(borders[:-1, None], pixels)
    end = np.minimum(borders[1:, None], pixels + 1)
    shares = np.maximum(end - begin, 0) * (SIDE / length)
    means: NDArray[np.float32] = shares.astype(np.float32)
    return means
