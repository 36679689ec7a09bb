"""What a detector's scores are worth, and what a copy is worth; all as shares, not percent.

Positive is malicious and higher is more suspicious throughout. Definitions are those of SAME's
released code (Xie et al., AAAI 2024) where it has them; average precision and the true positives
at few false ones are added, since a constant scorer gets .75 of the published AUPR and since the
published FPR95 says nothing of a threshold that a service could use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.types import Probabilities, Scores

FIGURES = (
    "auroc",
    "aupr",
    "average_precision",
    "fpr95",
    "fpr90",
    "tpr_at_1pct",
    "tpr_at_01pct",
)
"""Of a detector, in the order of `Ranked.figures`: the area under the ROC curve; under the curve
of precision over recall, by trapezoids and by steps; the honest share above the threshold that
catches 95% and 90% of the malicious; the malicious share above one that 1% and .1% of the honest
exceed at most."""

LOWER_IS_BETTER = frozenset({"fpr95", "fpr90"})

_SMALLEST = 1e-12
"""Probability below which a copy's logarithm is cut."""

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Scores of honest and malicious queries, by rank among all of them.

    Attributes:
        honest: (n,) place of each honest score among the distinct ones, 0 the highest.
        malicious: (m,) of each malicious one.
        places: distinct scores there are.
    """

    honest: NDArray[np.intp]
    malicious: NDArray[np.intp]
    places: int

    @classmethod
    def of(cls, honest: ArrayLike, malicious: ArrayLike) -> Ranked:
        """Rank scores.

        Raises:
            ValueError: one of the lists is empty or holds NaN.
        """
        both = np.asarray(honest, np.float64), np.asarray(malicious, np.float64)
        for name, scores in zip(("honest", "malicious"), both, strict=True):
            if scores.ndim != 1 or not scores.size or np.isnan(scores).any():
                raise ValueError(f"expected one or more {name} scores and no NaN, got {scores}")
        distinct, places = np.unique(-np.concatenate(both), return_inverse=True)
        size = len(both[0])
        return cls(places[:size], places[size:], len(distinct))

    def figures(self, honest: Counts, malicious: Counts) -> NDArray[np.float64]:
        """Return (r, 7) `FIGURES` of r samples.

        Args:
            honest: (r, places) how many honest scores of each sample are at each place.
            malicious: (r, places) how many malicious ones.
        """
        false, true = _cumulated(honest), _cumulated(malicious)
        fpr, tpr = false / false[:, -1:], true / true[:, -1:]
        chosen = true + false
        # Before anything is chosen, precision is 1, as in scikit-learn's curve.
        precision = np.divide(true, chosen, out=np.ones_like(true), where=chosen > 0)
        columns = (
            _area(fpr, tpr),
            _area(tpr, precision),
            (np.diff(tpr) * precision[:, 1:]).sum(axis=1),
            _crossed(tpr, fpr, 0.95),
            _crossed(tpr, fpr, 0.90),
            _within(fpr, tpr, 0.01),
            _within(fpr, tpr, 0.001),
        )
        return np.stack(columns, axis=1)

    def counts(self) -> tuple[Counts, Counts]:
        """Return (1, places) counts of the scores themselves."""
        return _counted(self.honest, self.places), _counted(self.malicious, self.places)


def _counted(places: NDArray[np.intp], count: int) -> Counts:
    return np.bincount(places, minlength=count).astype(np.float64)[np.newaxis]


def figures(honest: Scores, malicious: Scores) -> Mapping[str, float]:
    """Return the `FIGURES` of a detector's scores by name.

    Args:
        honest: (n,) scores.
        malicious: (m,) scores.

    Raises:
        ValueError: one of the lists is empty or holds NaN.
    """
    ranked = Ranked.of(honest, malicious)
    (row,) = ranked.figures(*ranked.counts())
    return dict(zip(FIGURES, row.tolist(), strict=True))


def _cumulated(counts: Counts) -> Counts:
    """Return (r, places + 1) sums that begin with 0, where the threshold is above all scores."""
    found = np.zeros((len(counts), counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=found[:, 1:])
    return found


def _area(across: Counts, up: Counts) -> NDArray[np.float64]:
    """Return (r,) areas under r curves by trapezoids."""
    found: NDArray[np.float64] = (np.diff(across) * (up[:, 1:] + up[:, :-1])).sum(axis=1) / 2
    return found


def _crossed(tpr: Counts, fpr: Counts, level: float) -> NDArray[np.float64]:
    """Return (r,) fpr at a tpr below 1, between points by a line, the most where it has several.

    This is `scipy.interpolate.interp1d(tpr, fpr)` of the published code, which hands over to
    `numpy.interp`; without that it would take the least.
    """
    rows, last = np.arange(len(tpr)), (tpr <= level).sum(axis=1) - 1
    low, high = tpr[rows, last], tpr[rows, last + 1]
    share = (level - low) / (high - low)
    found: NDArray[np.float64] = (1 - share) * fpr[rows, last] + share * fpr[rows, last + 1]
    return found


def _within(fpr: Counts, tpr: Counts, level: float) -> NDArray[np.float64]:
    """Return (r,) the most tpr of a threshold whose fpr is not above the level."""
    last = (fpr <= level).sum(axis=1) - 1
    found: NDArray[np.float64] = tpr[np.arange(len(tpr)), last]
    return found


def accuracy(answers: Probabilities, labels: NDArray[np.int64]) -> float:
    """Return the share of (n, k) answers whose largest class is the label, (n,)."""
    return float((answers.argmax(axis=1) == labels).mean())


def agreement(answers: Probabilities, others: Probabilities) -> float:
    """Return the share of (n, k) answers that have the same largest class in both."""
    return float((answers.argmax(axis=1) == others.argmax(axis=1)).mean())


def divergence(victims: Probabilities, copies: Probabilities) -> float:
    """Return the mean Kullback-Leibler divergence KL(victim || copy) of (n, k) answers, in nats."""
    p, q = victims.astype(np.float64), np.maximum(copies.astype(np.float64), _SMALLEST)
    logs = np.log(np.maximum(p, _SMALLEST)) - np.log(q)
    return float((p * logs).sum(axis=1).mean())
