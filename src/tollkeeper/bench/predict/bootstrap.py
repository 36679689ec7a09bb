"""How sure the figures of a detector are, and whether one detector beats another.

Honest and malicious queries are drawn again with replacement, each by themselves, 1,000 times.
Queries are taken to be independent: those of one attack that builds on earlier ones are less so,
and their intervals are too narrow by that much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.predict.metrics import FIGURES, Ranked
from tollkeeper.types import Scores

RESAMPLES = 1000
_CELLS = 1 << 20
"""Counts held at once; samples are worked off in parts of this size."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95% interval.

    Attributes:
        value: of the scores themselves.
        interval: (low, high), low <= value <= high.
    """

    value: float
    interval: tuple[float, float]


def estimates(
    honest: Scores, malicious: Scores, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Mapping[str, Estimate]:
    """Return each of `metrics.FIGURES` with its interval.

    Args:
        honest: (n,) scores.
        malicious: (m,) scores.
        rng: draws the samples.
        resamples: how many.

    Raises:
        ValueError: no scores, or NaN among them.
    """
    ranked = Ranked.of(honest, malicious)
    (value,) = ranked.figures(*ranked.counts())
    (drawn,) = _drawn([ranked], rng, resamples)
    return _estimates(value, drawn)


def differences(
    one: tuple[Scores, Scores],
    other: tuple[Scores, Scores],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Mapping[str, Estimate]:
    """Return by how much a detector's figures are above another's, judged on the same queries.

    Both see the same samples, so that what is easy or hard for both cancels out.

    Args:
        one: (n,) honest and (m,) malicious scores of a detector.
        other: another detector's of the same queries in the same order.
        rng: draws the samples.
        resamples: how many.

    Raises:
        ValueError: other numbers of queries, no scores, or NaN among them.
    """
    pair = [Ranked.of(*scores) for scores in (one, other)]
    sizes = [(len(ranked.honest), len(ranked.malicious)) for ranked in pair]
    if sizes[0] != sizes[1]:
        raise ValueError(f"expected scores of the same queries, got {sizes[0]} and {sizes[1]}")
    values = [ranked.figures(*ranked.counts())[0] for ranked in pair]
    mine, others = _drawn(pair, rng, resamples)
    return _estimates(values[0] - values[1], mine - others)


def _estimates(value: NDArray[np.float64], drawn: NDArray[np.float64]) -> Mapping[str, Estimate]:
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    # Draws with replacement make ties, which can push a percentile past the value itself.
    low, high = np.minimum(low, value), np.maximum(high, value)
    rows = zip(FIGURES, value.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: Estimate(middle, (least, most)) for name, middle, least, most in rows}


def _drawn(
    detectors: Sequence[Ranked], rng: np.random.Generator, resamples: int
) -> list[NDArray[np.float64]]:
    """Return for each detector (resamples, 7) figures of the same samples."""
    size = max(1, _CELLS // max(ranked.places for ranked in detectors))
    found: list[list[NDArray[np.float64]]] = [[] for _ in detectors]
    for count in _parts(resamples, size):
        samples = [
            [rng.integers(0, len(group), len(group)) for _ in range(count)]
            for group in (detectors[0].honest, detectors[0].malicious)
        ]
        for rows, ranked in zip(found, detectors, strict=True):
            groups = ranked.honest, ranked.malicious
            counts = [
                np.stack([np.bincount(group[some], minlength=ranked.places) for some in drawn])
                for group, drawn in zip(groups, samples, strict=True)
            ]
            rows.append(ranked.figures(*(one.astype(np.float64) for one in counts)))
    return [np.concatenate(rows) for rows in found]


def _parts(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)
