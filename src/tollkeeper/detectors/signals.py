"""What the fused detector looks at beside reconstruction: levels, color and distances."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Images, Scores

LEVELS = 256
"""Pixels are counted in as many levels: those of the picture files that honest pixels come from."""

FEWEST_PIXELS = 3
"""Height and width from which on a picture has second differences."""

_ATOM = 0.006
_BINS = 16
_SHRINK = 1e-3
_FEWEST_OF_A_CLASS = 20


@dataclass(frozen=True, slots=True, eq=False)
class LevelShares:
    """Square roots of the shares of a picture's pixels, and of steps between neighbors, per bin.

    A level that more than 0.6 % of honest pixels have is a bin of its own; the others share 16 bins
    of about as many honest pixels each. So a background that is not quite flat, or strokes that are
    not quite saturated, show as what they are: levels that honest pictures hardly have. The root
    makes the spread of a small share comparable to that of a large one.

    Attributes:
        level_bins: (256,) bin of each level.
        step_bins: (256,) bin of each absolute difference of levels.
    """

    level_bins: NDArray[np.intp]
    step_bins: NDArray[np.intp]

    @classmethod
    def fitted(cls, images: Images) -> Self:
        """Choose the bins by (n, c, h, w) honest pictures in [0, 1]."""
        levels = _levels(images)
        steps = np.concatenate([_steps(levels, axis).ravel() for axis in (2, 3)])
        return cls(_bins(levels), _bins(steps))

    def __call__(self, images: Images) -> NDArray[np.float64]:
        """Return (n, b) features of (n, c, h, w) pictures in [0, 1]."""
        levels = _levels(images)
        parts = [
            _shares(self.level_bins, levels),
            *(_shares(self.step_bins, _steps(levels, axis)) for axis in (2, 3)),
        ]
        found: NDArray[np.float64] = np.sqrt(np.concatenate(parts, axis=1))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Nearness:
    """Logarithm of the squared Mahalanobis distance to the center of a class.

    Source: Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks", NeurIPS 2018, equation 2: one covariance for all classes.
    Notes: features are standardized and the covariance is shrunk by a thousandth towards the
    identity; the class is the one the victim names, not the nearest.

    Attributes:
        centers: (k, d), one row for each class; a single row serves all.
        whiten: (d, d), by which the covariance becomes the identity.
    """

    centers: NDArray[np.float64]
    whiten: NDArray[np.float64]

    @classmethod
    def fitted(
        cls,
        features: NDArray[np.float64],
        named: NDArray[np.intp] | None = None,
        *,
        classes: int = 1,
    ) -> Self:
        """Fit centers and covariance.

        Args:
            features: (n, d) of honest queries.
            named: (n,) classes; None for a single center.
            classes: k. One that fewer than 20 queries have gets the center of all.

        Raises:
            ConfigurationError: fewer queries than features.
        """
        n, d = features.shape
        if n <= d:
            raise ConfigurationError(
                f"expected more than {d} honest queries to fit {d} features on, got {n}"
            )
        named = np.zeros(n, np.intp) if named is None else named
        centers = np.tile(features.mean(axis=0), (classes, 1))
        for each in np.flatnonzero(np.bincount(named, minlength=classes) >= _FEWEST_OF_A_CLASS):
            centers[each] = features[named == each].mean(axis=0)
        rest = features - centers[named]
        # A feature that never varies is left at its own scale.
        spread = np.where(rest.std(axis=0) > 0, rest.std(axis=0), 1)
        covariance = np.cov((rest / spread).T).reshape(d, d)
        shrunk = covariance + _SHRINK * np.eye(d)
        root = np.linalg.cholesky(np.linalg.inv(shrunk))
        # Rounded as they are stored, so that a fit scores as its file does.
        return cls(*(_rounded(part) for part in (centers, root / spread[:, None])))

    def __call__(
        self, features: NDArray[np.float64], named: NDArray[np.intp] | None = None
    ) -> Scores:
        """Return (n,) logarithms for (n, d) features of classes `named`."""
        rest = features - (self.centers[0] if named is None else self.centers[named])
        # Not a matrix product: a BLAS may sum rows of another batch in another order.
        far = np.square(np.einsum("nd,de->ne", rest, self.whiten)).sum(axis=1)
        found: Scores = np.log(far + np.finfo(np.float64).tiny)
        return found

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the fit as arrays."""
        return {
            "centers": self.centers.astype(np.float32),
            "whiten": self.whiten.astype(np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Self:
        """Return what `arrays` took apart."""
        return cls(arrays["centers"], arrays["whiten"])


def color_detail(images: Images) -> NDArray[np.float64]:
    """Return (n, c (c - 1) / 2) how alike the fine detail of two channels is, per pair.

    Detail is the second difference along both axes; alike is the cosine over a picture's pixels.
    In photographs it is nearly gray: what a lens, a demosaicing filter and JPEG leave of the finest
    scale is brightness. A step along a network's gradient is not, and neither is what a network
    paints. Gray pictures have no pairs, and pictures without a second difference count as gray.

    Args:
        images: (n, c, h, w) in [0, 1].
    """
    n, c = images.shape[:2]
    if min(images.shape[2:]) < FEWEST_PIXELS:
        return np.empty((n, 0))
    detail = np.diff(np.diff(_levels(images).astype(np.float32), n=2, axis=2), n=2, axis=3)
    detail = detail.reshape(n, c, math.prod(detail.shape[2:]))
    # One gray level of length for a channel without detail, which is like no other.
    length = np.sqrt(np.square(detail).mean(axis=2)) + 1
    pairs = [(one, other) for one in range(c) for other in range(one)]
    found = np.empty((n, len(pairs)))
    for at, (one, other) in enumerate(pairs):
        common = (detail[:, one] * detail[:, other]).mean(axis=1)
        found[:, at] = common / (length[:, one] * length[:, other])
    return found


def _rounded(array: NDArray[np.float64]) -> NDArray[np.float64]:
    return array.astype(np.float32).astype(np.float64)


def _levels(images: Images) -> NDArray[np.int16]:
    found: NDArray[np.int16] = np.rint(images * (LEVELS - 1)).astype(np.int16)
    return found


def _steps(levels: NDArray[np.int16], axis: int) -> NDArray[np.int16]:
    found: NDArray[np.int16] = np.abs(np.diff(levels, axis=axis))
    return found


def _bins(levels: NDArray[np.int16]) -> NDArray[np.intp]:
    """Return the bin of each of 256 levels."""
    shares = np.bincount(levels.ravel(), minlength=LEVELS) / levels.size
    atoms = shares > _ATOM
    rest = np.where(atoms, 0, shares)
    below = np.cumsum(rest) - rest
    group = (_BINS * below / max(rest.sum(), np.finfo(float).tiny)).astype(np.intp)
    # An atom ends one bin and begins the next, so no bin spans it.
    changed = (np.diff(group) != 0) | atoms[1:] | atoms[:-1]
    return np.concatenate([[0], np.cumsum(changed)]).astype(np.intp)


def _shares(bins: NDArray[np.intp], levels: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return (n, b) shares of n pictures' levels in each bin."""
    n, count = len(levels), int(bins[-1]) + 1
    size = math.prod(levels.shape[1:])
    placed = bins[levels.reshape(n, size)] + count * np.arange(n)[:, None]
    counted = np.bincount(placed.ravel(), minlength=n * count).reshape(n, count)
    found: NDArray[np.float64] = counted / size
    return found
