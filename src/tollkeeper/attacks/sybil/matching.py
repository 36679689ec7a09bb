"""Two accounts brought together without one shared input: coordinate by coordinate.

A diagonal affine transform with pads and a secret order leaves every coordinate's distribution
its shape, and every pair of coordinates its correlation up to sign. Two accounts that ask
different inputs of the same kind therefore see the same coordinates twice, and these can be told
by their statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from tollkeeper.attacks.sybil.mappers import Map, varying
from tollkeeper.errors import InputError
from tollkeeper.types import Embeddings

_LEVELS = (np.arange(64) + 0.5) / 64
"""Probabilities of the quantiles that describe a distribution."""


class Matcher(Protocol):
    """A way to learn a map without pairs."""

    def match(self, source: Embeddings, target: Embeddings, *, rng: np.random.Generator) -> Map:
        """Learn the map from one account's answers to another's for other inputs of that kind.

        Args:
            source: (n1, d1).
            target: (n2, d2); rows do not correspond.
            rng: all randomness of the match.

        Returns:
            The map (m, d1) to (m, d2).

        Raises:
            InputError: too few rows, or matrices that cannot belong together.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class CoordinateMap:
    """y_j = scale_j x_order_j + shift_j.

    Attributes:
        order: (d2,) the source coordinate that each target coordinate is made of.
        scale: (d2,) float64, 0 where a target coordinate is constant or has no partner.
        shift: (d2,) float64.
        agreement: correlation in [-1, 1] of the two accounts' absolute correlations after
            matching; near 1 tells the attacker that the match is right, near 0 that it is not.
    """

    order: NDArray[np.intp]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    agreement: float

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Map (m, d1) to (m, d2)."""
        mapped: Embeddings = (embeddings[:, self.order] * self.scale + self.shift).astype(
            np.float32
        )
        return mapped


@dataclass(frozen=True, slots=True)
class CoordinateMatcher:
    """Matches coordinates by their statistics; needs no shared input.

    Constant coordinates are pads and dropped. The others are standardized, turned so that they
    lean to the right (features after a ReLU do), and described by quantiles of their values and
    of their correlations with all others; the Hungarian algorithm pairs the descriptions. Then
    every coordinate is described by its absolute correlations with the paired ones, which
    forgive wrong signs, and paired again until nothing moves. Signs follow from the
    correlations, scale and shift from standard deviations and means. Time grows with d³.

    Ours, not published.

    Attributes:
        most_rounds: cap on the refinement; it settles after 3 to 20 rounds if it settles at all.
    """

    most_rounds: int = 50

    def match(
        self, source: Embeddings, target: Embeddings, *, rng: np.random.Generator
    ) -> CoordinateMap:
        """Match two accounts' answers to different inputs; see `Matcher.match`. No randomness."""
        del rng
        mine, theirs = _Side.of(source), _Side.of(target)
        chosen = self._pair(theirs, mine)
        paired = chosen >= 0
        lines, partners = np.flatnonzero(paired), chosen[paired]
        own = theirs.correlation[np.ix_(lines, lines)]
        other = mine.correlation[np.ix_(partners, partners)]
        scale = np.zeros(target.shape[1])
        order = np.zeros(target.shape[1], dtype=np.intp)
        place = theirs.index[lines]
        order[place] = mine.index[partners]
        sign = _signs(own * other, theirs.skewness[lines] * mine.skewness[partners])
        scale[place] = sign * theirs.spread[lines] / mine.spread[partners]
        shift = target.mean(axis=0, dtype=np.float64)
        shift -= scale * source.mean(axis=0, dtype=np.float64)[order]
        return CoordinateMap(order, scale, shift, _agreement(own, other))

    def _pair(self, one: _Side, other: _Side) -> NDArray[np.intp]:
        """Return for each of one side's coordinates its partner, -1 where there is none left."""
        chosen = _assign(one.unlikeness(other))
        lines, columns = np.abs(one.correlation), np.abs(other.correlation)
        np.fill_diagonal(lines, 0)
        np.fill_diagonal(columns, 0)
        for _ in range(self.most_rounds):
            paired = chosen >= 0
            likeness = lines[:, paired] @ columns[:, chosen[paired]].T
            again = _assign(-likeness)
            if np.array_equal(again, chosen):
                break
            chosen = again
        return chosen


class _Description(NamedTuple):
    """What c standardized coordinates look like.

    Attributes:
        values: (c, 64) quantiles of the values.
        relations: (c, 64) quantiles of the correlations with the other coordinates.
    """

    values: NDArray[np.float64]
    relations: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float64]) -> _Description:
        """Describe (n, c) standardized rows."""
        correlation = rows.T @ rows / len(rows)
        others = ~np.eye(len(correlation), dtype=bool)
        relations = correlation[others].reshape(len(correlation), -1)
        return cls(np.quantile(rows, _LEVELS, axis=0).T, np.quantile(relations, _LEVELS, axis=1).T)


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One account's varying coordinates, c of them, by their statistics.

    Attributes:
        index: (c,) their positions.
        spread: (c,) standard deviations.
        skewness: (c,) third standardized moments.
        correlation: (c, c).
        whole: description of all rows, coordinates turned to lean to the right.
        halves: the same for every second row, and for the others.
    """

    index: NDArray[np.intp]
    spread: NDArray[np.float64]
    skewness: NDArray[np.float64]
    correlation: NDArray[np.float64]
    whole: _Description
    halves: tuple[_Description, _Description]

    @classmethod
    def of(cls, embeddings: Embeddings) -> _Side:
        """Describe (n, d) embeddings.

        Raises:
            InputError: fewer than 4 rows, or fewer than 2 coordinates vary.
        """
        if embeddings.ndim != 2 or len(embeddings) < 4:
            raise InputError(f"expected at least 4 rows to match by, got {embeddings.shape}")
        index = np.flatnonzero(varying(embeddings))
        if len(index) < 2:
            raise InputError(f"expected at least 2 coordinates that vary, got {len(index)}")
        rows = embeddings[:, index].astype(np.float64)
        spread = rows.std(axis=0)
        rows = (rows - rows.mean(axis=0)) / spread
        correlation = rows.T @ rows / len(rows)
        skewness = (rows**3).mean(axis=0)
        rows *= np.where(skewness < 0, -1.0, 1.0)
        whole, *halves = (_Description.of(some) for some in (rows, rows[::2], rows[1::2]))
        return cls(index, spread, skewness, correlation, whole, (halves[0], halves[1]))

    def unlikeness(self, other: _Side) -> NDArray[np.float64]:
        """Return (c, c') squared distances of the descriptions.

        Values and relations each weigh by how little they differ between halves of one side,
        so that what is mere sampling does not outvote what tells coordinates apart.
        """
        total = np.zeros((len(self.index), len(other.index)))
        for mine, theirs, one, two in zip(self.whole, other.whole, *self.halves, strict=True):
            total += cdist(mine, theirs, "sqeuclidean") / np.square(one - two).mean()
        return total


def _assign(cost: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return for each row its column in the assignment of least cost, -1 for rows left over."""
    rows, columns = linear_sum_assignment(cost)
    chosen = np.full(len(cost), -1, dtype=np.intp)
    chosen[rows] = columns
    return chosen


def _signs(product: NDArray[np.float64], leaning: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the relative signs (c,) of paired coordinates.

    Args:
        product: (c, c) one account's correlations times the other's. Where both signs of a pair
            are right it is positive, so the leading eigenvector carries the signs.
        leaning: (c,) product of the skewnesses, which settles the sign of them all.
    """
    _, vectors = eigh(product, subset_by_index=[len(product) - 1, len(product) - 1])
    signs = np.where(vectors[:, 0] < 0, -1.0, 1.0)
    return signs if signs @ leaning >= 0 else -signs


def _agreement(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the correlation of two (c, c) matrices' absolute values above the diagonal."""
    above = np.triu_indices(len(own), k=1)
    return float(np.corrcoef(np.abs(own[above]), np.abs(other[above]))[0, 1])
