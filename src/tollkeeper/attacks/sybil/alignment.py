"""Two accounts brought together without one shared input when their spaces are rotated.

A rotation mixes all coordinates but leaves the shape of the cloud of answers: its axes, how far
it reaches along each, and to which side it leans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.sybil.mappers import AffineMap, procrustes
from tollkeeper.errors import InputError
from tollkeeper.types import Embeddings

_SETTLED = 1e-6
"""Change of an entry of the rotation that float32 answers cannot tell from none."""


@dataclass(frozen=True, slots=True)
class RotationMatcher:
    """Finds the rotation between two accounts by the shape of their answers.

    Principal axes of both sides are paired by variance. Each pair's sign is the one under which
    the third moments E[z_i² z_j] of the standardized components agree. From that start the
    rotation is refined: every source row is paired with the mean of its nearest target rows, and
    the Procrustes rotation onto these is the next guess.

    The refinement is that of Dar, "mini-vec2vec: Scaling Universal Geometry Alignment with
    Linear Transformations", arXiv 2510.02348. Differences from the paper: it starts from axes
    and moments, which suffice when both sides are the same encoder, instead of clusters matched
    by quadratic assignment; all rows take part in each round, rotations are not averaged over
    rounds, and there is no last pass over clusters. Needs several times more rows than
    coordinates, works the better the more the cloud leans, and does nothing against a transform
    that changes angles.

    Attributes:
        rounds: refinements at most; it ends when nothing moves any more.
        neighbors: target rows that stand in for the partner of a source row.
        most_rows: rows of each side that are used, drawn at random; time grows with its square.
    """

    rounds: int = 30
    neighbors: int = 30
    most_rows: int = 4000

    def match(
        self, source: Embeddings, target: Embeddings, *, rng: np.random.Generator
    ) -> AffineMap:
        """Match two accounts' answers to different inputs; see `Matcher.match`.

        Raises:
            InputError: different widths, or not more rows than `neighbors`.
        """
        few = min(len(source), len(target))
        if source.shape[1:] != target.shape[1:] or few <= self.neighbors:
            raise InputError(
                f"expected two matrices of one width and more than {self.neighbors} rows, "
                f"got {source.shape} and {target.shape}"
            )
        one, start = _centered(_some(source, self.most_rows, rng))
        other, center = _centered(_some(target, self.most_rows, rng))
        rotation = _start(_Axes.of(one), _Axes.of(other))
        lengths = np.linalg.norm(other, axis=1, keepdims=True).clip(min=1e-12)
        directions = (other / lengths).astype(np.float32)
        for _ in range(self.rounds):
            likeness = (one @ rotation).astype(np.float32) @ directions.T
            near = np.argpartition(likeness, -self.neighbors, axis=1)[:, -self.neighbors :]
            last, (rotation, _) = rotation, procrustes(one, other[near].mean(axis=1))
            if np.abs(rotation - last).max() < _SETTLED:
                break
        return AffineMap(rotation, center - start @ rotation)


class _Axes(NamedTuple):
    """Principal axes of a cloud and the third moments along them.

    Attributes:
        basis: (d, r), strongest first.
        deviations: (r,) standard deviations along the axes.
        moments: (r, r), E[z_i² z_j] of the standardized components.
    """

    basis: NDArray[np.float64]
    deviations: NDArray[np.float64]
    moments: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float64]) -> _Axes:
        """Describe (n, d) centered rows."""
        variances, basis = np.linalg.eigh(rows.T @ rows / len(rows))
        strong = np.flatnonzero(variances > variances[-1] * 1e-10)[::-1]
        deviations = np.sqrt(variances[strong])
        components = rows @ basis[:, strong] / deviations
        moments = np.square(components).T @ components / len(rows)
        return cls(basis[:, strong], deviations, moments)


def _start(source: _Axes, target: _Axes) -> NDArray[np.float64]:
    """Return the (d, d) rotation that lays one cloud's axes on the other's."""
    rank = min(len(source.deviations), len(target.deviations))
    # Axes of large variance are the surest, so their moments weigh more.
    agreeing = source.moments[:rank, :rank] * target.moments[:rank, :rank]
    signs = np.where(target.deviations[:rank] @ agreeing < 0, -1.0, 1.0)
    return (source.basis[:, :rank] * signs) @ target.basis[:, :rank].T


def _some(embeddings: Embeddings, most: int, rng: np.random.Generator) -> Embeddings:
    """Return at most `most` of n rows."""
    return embeddings[rng.permutation(len(embeddings))[:most]]


def _centered(rows: Embeddings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n, d) rows without their mean, and the mean (d,)."""
    wide = rows.astype(np.float64)
    mean = wide.mean(axis=0)
    return wide - mean, mean
