"""The published mutual-information score between encoders, and why it is no evidence.

Source: Dziedzic et al., "Dataset Inference for Self-Supervised Models", NeurIPS 2022, section 5.
The score puts I(victim, suspect) between that of a random encoder and I(victim, victim), each by
nearest-neighbor entropies (Kozachenko and Leonenko 1987)::

    H(X) = ln(n - 1) + gamma + ln V_d + (d / n) sum_i ln R_i,   I(v, s) = H(v) + H(s) - H([v, s])

with R_i the distance of x_i to its nearest other row and V_d the volume of the unit ball.

Proof that it tells nothing. Lay X beside itself: every distance of [X, X] is sqrt(2) times that of
X, so the sums over ln R_i cancel and::

    I(v, v) = ln(n - 1) + gamma + 2 ln V_d - ln V_2d - d ln 2,

a constant of n and d: the score's upper end is the same for every encoder, a constant noise
generator included (`self_information`). At hundreds of dimensions and thousands of rows the
estimator is far outside the range where it converges: true mutual information is never negative,
yet independent embeddings give I of -6 to -74 (method spec, section 9.1). The lower end is thus
a number of the estimator's bias, and the paper's own independents score .63 to .90.

Nothing in an audit reads this score. It is here so that a report that quotes it can be answered.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import AuditRefused

Points = NDArray[np.floating[Any]]
"""Embeddings in any precision."""

_CHUNK = 1 << 22


def entropy(rows: Points) -> float:
    """Return the nearest-neighbor estimate of the entropy of (n, d) rows, in nats.

    Raises:
        AuditRefused: fewer than two rows, NaN, or two equal rows, whose logarithm has no value.
    """
    if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
        raise AuditRefused(f"expected two or more finite rows (n, d), got shape {rows.shape}")
    n, d = rows.shape
    distances = _nearest(np.asarray(rows, np.float64))
    if not distances.all():
        raise AuditRefused("two inputs have the same embedding; remove duplicates")
    return float(math.log(n - 1) + np.euler_gamma + _ball(d) + d * np.log(distances).mean())


def mutual_information(a: Points, b: Points) -> float:
    """Return the estimate I(a, b) = H(a) + H(b) - H([a, b]) of (n, d1) and (n, d2) rows.

    Raises:
        AuditRefused: rows of different inputs, NaN, or equal rows.
    """
    if len(a) != len(b):
        raise AuditRefused(f"expected embeddings of the same inputs, got {len(a)} and {len(b)}")
    return entropy(a) + entropy(b) - entropy(np.concatenate([a, b], axis=1))


def self_information(n: int, d: int) -> float:
    """Return I(v, v) of any encoder of width d on n inputs: the proof above."""
    return math.log(n - 1) + np.euler_gamma + 2 * _ball(d) - _ball(2 * d) - d * math.log(2)


def published_score(victim: Points, suspect: Points, untrained: Points) -> float:
    """Return the published score in [0, 1]. It is no evidence: see the module's docstring.

    Args:
        victim: (n, d).
        suspect: (n, d), of the same inputs.
        untrained: (n, d), of a randomly initialized encoder.

    Notes: the released script has a comma for a dot in an index, calls two functions without
    their sample size, leaves the random encoder in training mode, and takes pi for 3.14; this is
    the paper's formula.
    """
    low = mutual_information(victim, untrained)
    share = (mutual_information(victim, suspect) - low) / (self_information(*victim.shape) - low)
    return min(1.0, max(0.0, share))


def _ball(d: int) -> float:
    """Return the logarithm of the volume of the unit ball in d dimensions."""
    return d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)


def _nearest(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's distance to its nearest other row, (n,)."""
    squares = np.square(rows).sum(axis=1)
    step = max(1, _CHUNK // len(rows))
    nearest = np.empty(len(rows), np.intp)
    for at in range(0, len(rows), step):
        gaps = squares - 2 * (rows[at : at + step] @ rows.T)
        own = np.arange(len(gaps))
        gaps[own, at + own] = np.inf
        nearest[at : at + step] = gaps.argmin(axis=1)
    # Once more by differences: what the expansion loses would make near neighbors equal.
    distances: NDArray[np.float64] = np.linalg.norm(rows - rows[nearest], axis=1)
    return distances
