"""What detectors found, as metrics with intervals: each by itself, and one above another.

One draw of queries serves all detectors, so that their differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.experiment import Direction, Metric
from tollkeeper.bench.predict.metrics import FIGURES, LOWER_IS_BETTER, Ranked
from tollkeeper.types import Scores

NAMES: Mapping[str, str] = {
    **{name: name for name in FIGURES},
    "average_precision": "ap",
    "tpr_at_1pct": "tpr_at_fpr1",
    "tpr_at_01pct": "tpr_at_fpr01",
}
"""What metrics are called after."""

_CELLS = 1 << 21
_RANKS = 2000
"""Samples are judged by scores rounded to so many ranks, which is ten times as fast; the figures of
the queries themselves are exact."""

AUROC, AT_ONE_PERCENT = FIGURES.index("auroc"), FIGURES.index("tpr_at_1pct")

Found = dict[str, Metric]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """All detectors on the same queries.

    Attributes:
        values: detector to (7,) `FIGURES`.
        drawn: detector to (r, 7) of the same r samples of the queries.
    """

    values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    drawn: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def metrics(self, path: str, attack: str, *, only: Sequence[str] = FIGURES) -> Found:
        """Return metrics `<figure>.<path>.<detector>.<attack>` of some `FIGURES`."""
        found: Found = {}
        for detector, values in self.values.items():
            for name in only:
                at = FIGURES.index(name)
                drawn = self.drawn[detector][:, at]
                direction: Direction = "lower" if name in LOWER_IS_BETTER else "higher"
                found[f"{NAMES[name]}.{path}.{detector}.{attack}"] = interval(
                    values[at], drawn, direction=direction
                )
        return found

    def above(self, one: str, other: str, *, figure: int = AUROC) -> Metric:
        """Return by how much a figure of `one` is above that of `other`."""
        value = self.values[one][figure] - self.values[other][figure]
        drawn = self.drawn[one][:, figure] - self.drawn[other][:, figure]
        return interval(value, drawn, direction="higher")

    def above_best(self, one: str, others: Sequence[str]) -> Metric:
        """Return by how much AUROC of `one` is above the best of `others`.

        The best is chosen once, by the queries as they are, and not anew in each sample.
        """
        return self.above(one, max(others, key=lambda name: float(self.values[name][AUROC])))


def balanced(honest: Mapping[str, Scores], malicious: Mapping[str, Scores]) -> dict[str, Scores]:
    """Return as many of the honest scores as there are malicious ones."""
    count = min((len(scores) for scores in malicious.values()), default=0)
    return {name: scores[:count] for name, scores in honest.items()}


def curve(honest: Scores, malicious: Scores, at: Sequence[float]) -> list[float]:
    """Return the malicious share caught at shares of false alarms: a ROC curve.

    Args:
        honest: (n,) scores.
        malicious: (m,) scores.
        at: false alarms, in (0, 1).
    """
    limits = np.quantile(honest, 1 - np.asarray(at), method="higher")
    return [round(float((malicious > limit).mean()), 4) for limit in limits]


def interval(
    value: float, drawn: NDArray[np.float64], *, direction: Direction, unit: str = "share"
) -> Metric:
    """Return a metric with the 95% percentile interval of its samples (r,)."""
    low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (value, value)
    around = min(float(low), float(value)), max(float(high), float(value))
    return Metric(float(value), unit, direction, around if len(drawn) else None)


def judge(
    honest: Mapping[str, Scores],
    malicious: Mapping[str, Scores],
    *,
    resamples: int,
    rng: np.random.Generator,
) -> Judged:
    """Return the figures of detectors that scored the same queries.

    Args:
        honest: detector to (n,) scores, all of the same n queries.
        malicious: detector to (m,) scores.
        resamples: of the bootstrap; honest and malicious queries are drawn apart.
        rng: draws.
    """
    exact = {name: Ranked.of(honest[name], malicious[name]) for name in malicious}
    ranked = {name: _rounded(one) for name, one in exact.items()}
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ranked}
    sizes = [len(next(iter(group.values()))) for group in (honest, malicious)]
    for count in _parts(resamples, max(1, _CELLS // sum(sizes))):
        places = [rng.integers(0, size, (count, size)) for size in sizes]
        for name, one in ranked.items():
            samples = (
                _counts(group[some], one.places)
                for group, some in zip((one.honest, one.malicious), places, strict=True)
            )
            drawn[name].append(one.figures(*samples))
    return Judged(
        {name: one.figures(*one.counts())[0] for name, one in exact.items()},
        {
            name: np.concatenate([np.empty((0, len(FIGURES))), *rows])
            for name, rows in drawn.items()
        },
    )


def _rounded(one: Ranked) -> Ranked:
    step = -(-one.places // _RANKS)
    return Ranked(one.honest // step, one.malicious // step, -(-one.places // step))


def _counts(found: NDArray[np.intp], places: int) -> NDArray[np.float64]:
    """Return (r, places) how often each place occurs in each row of (r, n)."""
    rows = len(found)
    shifted = found + places * np.arange(rows)[:, np.newaxis]
    return np.bincount(shifted.ravel(), minlength=rows * places).reshape(rows, places).astype(float)


def _parts(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)
