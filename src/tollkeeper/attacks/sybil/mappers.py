"""Maps between two accounts' spaces, fitted on inputs that both were asked.

A tenant's transform is the same for all its answers, so a map that is right on a few shared
inputs carries everything else one account answered into the other's space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import svd

from tollkeeper.errors import InputError
from tollkeeper.types import Embeddings

Map = Callable[[Embeddings], Embeddings]
"""Carries one account's answers (m, d1) into another's space: (m, d2) float32."""

_Solve = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

_PENALTIES = np.logspace(-12, 3, 31)
"""Ridge penalties tried, in units of the largest squared singular value: from below what float32
embeddings can tell from zero to almost a constant map, two a decade."""


class Mapper(Protocol):
    """A way to learn a map from pairs."""

    def fit(self, source: Embeddings, target: Embeddings, *, rng: np.random.Generator) -> Map:
        """Learn the map from one account's answers to another's for the same inputs.

        Args:
            source: (n, d1), row i for input i.
            target: (n, d2), row i for input i.
            rng: all randomness of the fit.

        Returns:
            The map (m, d1) to (m, d2).

        Raises:
            InputError: not two matrices with equally many rows, at least 2.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AffineMap:
    """y = x M + b.

    Attributes:
        matrix: M, (d1, d2) float64.
        shift: b, (d2,) float64.
    """

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Map (m, d1) to (m, d2)."""
        mapped: Embeddings = (embeddings @ self.matrix + self.shift).astype(np.float32)
        return mapped


@dataclass(frozen=True, slots=True)
class RidgeMapper:
    """The affine map of least squared error, held back by a penalty chosen on the pairs.

    Both sides are centered and the source's coordinates scaled to variance 1, which undoes a
    diagonal transform's scales; constant ones (pads) are left out. The penalty minimizes
    generalized cross-validation (Golub, Heath and Wahba, "Generalized Cross-Validation as a
    Method for Choosing a Good Ridge Parameter", Technometrics 1979) over all target coordinates
    together. Works with fewer pairs than coordinates: then the map is 0 where no pair points.
    Without noise, d1 + 2 pairs give an affine transform up to rounding: one more than it has
    unknowns in a row, so that cross-validation can see that no penalty is needed.
    """

    def fit(self, source: Embeddings, target: Embeddings, *, rng: np.random.Generator) -> AffineMap:
        """Fit on n pairs; see `Mapper.fit`. No randomness."""
        del rng
        return _affine(source, target, _ridge)


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (d1, d2) ridge solution of centered pairs without constant coordinates."""
    scale = x.std(axis=0)
    left, strengths, right = svd(x / scale, full_matrices=False)
    strengths = strengths[: len(x) - 1]  # Centering took one direction.
    rank = int((strengths > strengths[0] * max(x.shape) * np.finfo(np.float64).eps).sum())
    left, strengths, right = left[:, :rank], strengths[:rank], right[:rank]
    weights = left.T @ y
    penalty = _best_penalty(strengths, weights, y - left @ weights)
    shrunk = strengths / (np.square(strengths) + penalty)
    solution: NDArray[np.float64] = (right.T / scale[:, None]) @ (shrunk[:, None] * weights)
    return solution


def _best_penalty(
    strengths: NDArray[np.float64], weights: NDArray[np.float64], rest: NDArray[np.float64]
) -> float:
    """Return the penalty of least generalized cross-validation error.

    Args:
        strengths: (r,) singular values of the centered source, all positive.
        weights: (r, d2) target components along the r left singular vectors.
        rest: (n, d2) of the target that no penalty explains.
    """
    penalties = _PENALTIES * np.square(strengths).max()
    # One minus the fit's eigenvalues; one more degree of freedom went into the mean.
    left_over = penalties[:, None] / (np.square(strengths) + penalties[:, None])
    free = len(rest) - 1 - strengths.size
    # With as many directions as rows the rest is rounding, and must not decide.
    unexplained = np.square(rest).sum() if free else 0.0
    error = np.square(left_over) @ np.square(weights).sum(axis=1) + unexplained
    scores = error / np.square(free + left_over.sum(axis=1))
    return float(penalties[scores.argmin()])


@dataclass(frozen=True, slots=True)
class ProcrustesMapper:
    """The rotation (or reflection), shift and scale of least squared error.

    Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika
    1966. Has d(d-1)/2 unknowns where an affine map has d², so it needs fewer pairs, but fits only
    transforms that keep angles. Of unequal widths the wider space is taken to hold the narrower
    one. Directions that the pairs do not determine are mapped to 0 rather than guessed.
    """

    def fit(self, source: Embeddings, target: Embeddings, *, rng: np.random.Generator) -> AffineMap:
        """Fit on n pairs; see `Mapper.fit`. No randomness."""
        del rng
        return _affine(source, target, _scaled_rotation)


def _scaled_rotation(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (d1, d2) rotation times scale of centered pairs."""
    rotation, strength = procrustes(x, y)
    spread = np.square(x @ rotation).sum()
    return rotation * (strength / spread if spread > 0 else 0.0)


def procrustes(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the partial isometry R (d1, d2) that maximizes trace(R' x' y), and that maximum.

    Args:
        x: (n, d1).
        y: (n, d2).
    """
    left, strengths, right = svd(x.T @ y, full_matrices=False)
    known = strengths > strengths.max(initial=0) * max(len(left), right.shape[1]) * 1e-14
    return left[:, known] @ right[known], float(strengths.sum())


def _affine(source: Embeddings, target: Embeddings, solve: _Solve) -> AffineMap:
    """Return the map that `solve` finds between the coordinates that vary, centered."""
    x, y = pairs(source, target)
    start, center = x.mean(axis=0), y.mean(axis=0)
    lines, columns = varying(source), varying(target)
    matrix = np.zeros((x.shape[1], y.shape[1]))
    if lines.any() and columns.any():
        found = solve((x - start)[:, lines], (y - center)[:, columns])
        matrix[np.ix_(lines, columns)] = found
    return AffineMap(matrix, center - start @ matrix)


def pairs(
    source: Embeddings, target: Embeddings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both sides in float64.

    Raises:
        InputError: not two matrices with equally many rows, at least 2.
    """
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target) or len(source) < 2:
        raise InputError(
            "expected at least 2 pairs of answers to the same inputs, "
            f"got {source.shape} and {target.shape}"
        )
    return source.astype(np.float64), target.astype(np.float64)


def varying(embeddings: Embeddings) -> NDArray[np.bool_]:
    """Tell which of d coordinates are not the same in all rows; pads are constant to the bit."""
    varies: NDArray[np.bool_] = embeddings.max(axis=0) > embeddings.min(axis=0)
    return varies
