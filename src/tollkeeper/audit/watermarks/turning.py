"""Turning images: one way, in planting and in verification, as the mark lies in the corners too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.views import Pictures, check_pictures

_CHUNK = 256
"""Images that are turned together; bounds memory."""


def rotated(images: Pictures, degrees: NDArray[np.float64]) -> Pictures:
    """Turn images counterclockwise about their centers, black where nothing was.

    Args:
        images: (n, h, w, c) uint8, or (n, c, h, w) float32.
        degrees: (n,).

    Returns:
        The same shape and type; bytes are rounded.

    Raises:
        AuditRefused: neither kind of image.
    """
    check_pictures(images)
    if images.dtype == np.uint8:
        turned = _turned(images.astype(np.float32), degrees)
        whole: NDArray[np.uint8] = np.rint(turned).astype(np.uint8)
        return whole
    last = np.ascontiguousarray(images.astype(np.float32).transpose(0, 2, 3, 1))
    return np.ascontiguousarray(_turned(last, degrees).transpose(0, 3, 1, 2))


def _turned(images: NDArray[np.float32], degrees: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turn (n, h, w, c) images, some at a time."""
    parts = [
        _turned_chunk(images[at : at + _CHUNK], degrees[at : at + _CHUNK])
        for at in range(0, len(images), _CHUNK)
    ]
    return np.concatenate(parts) if parts else images


def _turned_chunk(images: NDArray[np.float32], degrees: NDArray[np.float64]) -> NDArray[np.float32]:
    """Read every pixel from where the inverse rotation puts it, between its four neighbors."""
    count, height, width, channels = images.shape
    angle = np.deg2rad(degrees)[:, None]
    down, right = (axis.ravel() for axis in np.mgrid[: float(height), : float(width)])
    down, right = down - (height - 1) / 2, right - (width - 1) / 2
    y = np.cos(angle) * down + np.sin(angle) * right + (height - 1) / 2
    x = np.cos(angle) * right - np.sin(angle) * down + (width - 1) / 2
    flat = images.reshape(count, height * width, channels)
    total = np.zeros_like(flat)
    for row, column, share in _neighbors(y, x):
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = np.where(inside, row * width + column, 0)
        weight = np.where(inside, share, 0).astype(np.float32)
        total += weight[..., None] * np.take_along_axis(flat, place[..., None], axis=1)
    # Rounding may have left a little more than the brightest pixel.
    return np.minimum(total, images.max(initial=0)).reshape(images.shape)


def _neighbors(
    y: NDArray[np.float64], x: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]]:
    """Yield row, column and share of the four pixels around each point."""
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    low, far = y - top, x - left
    for row, by_row in ((top, 1 - low), (top + 1, low)):
        for column, by_column in ((left, 1 - far), (left + 1, far)):
            yield row, column, by_row * by_column
