"""Other pictures, drawn as the victim's users draw theirs.

What a detector sees of look-alikes is often how they were scanned and not who sends them. A thief
with a few honest pictures removes that difference before asking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Images

_INK = 0.2
"""Value above which a pixel is ink, where a character's size is measured."""

_MOST_ZOOM = 2.0
"""A speck is not blown up to a character."""


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """A `View` of pictures with bright strokes on a dark ground, (n, c, h, w) in [0, 1].

    Each picture is scaled to the honest size, moved so that its center of mass is where honest
    ones have it, and given the pixel values of an honest picture with as much ink among its like,
    the brightest pixel the brightest value: strokes become as thin, as sharp and as saturated, and
    the ground as clean.

    Attributes:
        size: longer edge of the box around the ink, in pixels.
        center: (2,) row and column of the center of mass, in [-1, 1].
        inks: (m,) ink of the thief's pictures after scaling, ascending.
        profiles: (m', c * h * w) sorted values of honest pictures, those with least ink first.
    """

    size: float
    center: NDArray[np.float64]
    inks: NDArray[np.float64]
    profiles: NDArray[np.float32]

    @classmethod
    def fitted(cls, honest: Images, pool: Images) -> Rendering:
        """Measure some honest pictures and some of the thief's own.

        Raises:
            ConfigurationError: there are none, or they are of another shape.
        """
        if not len(honest) or not len(pool) or honest.shape[1:] != pool.shape[1:]:
            raise ConfigurationError(
                f"expected pictures of one shape, got {honest.shape} and {pool.shape}"
            )
        size = float(np.median(_sizes(honest)))
        center = _centers(honest).mean(axis=0)
        flat = np.sort(honest.reshape(len(honest), -1), axis=1)
        profiles = flat[np.argsort(flat.sum(axis=1), kind="stable")]
        inks = _inks(_placed(pool, size, center))
        return cls(size, center, np.sort(inks), profiles)

    def __call__(self, images: Images) -> Images:
        """Return n pictures, rendered as honest ones are; the same picture always alike."""
        placed = _placed(images, self.size, self.center)
        ranks = np.searchsorted(self.inks, _inks(placed)) / len(self.inks)
        rows = np.round(ranks * (len(self.profiles) - 1)).astype(np.intp)
        flat = placed.reshape(len(placed), -1)
        order = np.argsort(flat, axis=1, kind="stable")
        rendered = np.empty_like(flat)
        np.put_along_axis(rendered, order, self.profiles[rows], axis=1)
        return rendered.reshape(images.shape)


def _placed(images: Images, size: float, center: NDArray[np.float64]) -> Images:
    """Return n pictures with ink of one size and its centers of mass at `center`."""
    there = _centers(images)
    shrink = np.clip(_sizes(images) / size, 1 / _MOST_ZOOM, _MOST_ZOOM)[:, None]
    theta = np.zeros((len(images), 2, 3), np.float32)
    theta[:, [0, 1], [0, 1]] = shrink
    # Where output o is taken from: input = (o - center) * shrink + there; x comes first.
    theta[:, :, 2] = (there - center * shrink)[:, ::-1]
    grid = functional.affine_grid(torch.from_numpy(theta), list(images.shape), align_corners=False)
    pixels = torch.from_numpy(images.copy())  # Data sets are read-only.
    placed: Images = functional.grid_sample(pixels, grid, align_corners=False).numpy()
    return placed


def _inks(images: Images) -> NDArray[np.float64]:
    """Return (n,) sums of pixels."""
    inks: NDArray[np.float64] = images.reshape(len(images), -1).sum(axis=1, dtype=np.float64)
    return inks


def _centers(images: Images) -> NDArray[np.float64]:
    """Return (n, 2) row and column of the centers of mass in [-1, 1]; 0 of an empty picture."""
    gray = images.mean(axis=1, dtype=np.float64)
    mass = np.maximum(gray.sum(axis=(1, 2)), 1e-12)
    rows, columns = (
        (2 * np.arange(size) + 1) / size - 1 for size in (gray.shape[1], gray.shape[2])
    )
    down = (gray.sum(axis=2) @ rows) / mass
    across = (gray.sum(axis=1) @ columns) / mass
    found: NDArray[np.float64] = np.stack([down, across], axis=1)
    return found


def _sizes(images: Images) -> NDArray[np.float64]:
    """Return (n,) longer edges of the boxes around the ink; 1 for a picture without ink."""
    inked = images.max(axis=1) > _INK
    edges = []
    for axis in (1, 2):
        line = inked.any(axis=axis)
        first, last = line.argmax(axis=1), line.shape[1] - line[:, ::-1].argmax(axis=1)
        edges.append(np.where(line.any(axis=1), last - first, 1))
    longer: NDArray[np.float64] = np.maximum(*edges).astype(np.float64)
    return longer
