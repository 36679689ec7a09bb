"""Dataset inference that asks pair after pair and stops as soon as the evidence is enough."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import gates
from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.consistency import Mode, agreement
from tollkeeper.audit.dataset_inference import (
    ALTERNATIVE,
    DatasetInference,
    Residuals,
    SplitEvidence,
    judge,
)
from tollkeeper.audit.multiplicity import p_from_e
from tollkeeper.audit.sequential import LAMBDAS, THRESHOLD, bet_scale, log_wealth
from tollkeeper.audit.split import batches, embed_views, fit_frames
from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Scores

_LARGEST = 700.0
"""Logarithm of the largest evidence stated; float64 ends a little above."""


@dataclass(frozen=True, slots=True)
class SequentialInference:
    """Dataset inference that may stop at any look.

    Trained images are paired at random with held ones. Scores are standardized and calibrated by
    all rows asked so far, which does not tell which one of a new pair is the trained one, so each
    bet is fair under the null: exchangeable sides, whatever the suspect was trained on. The
    p-value is 1 over the largest evidence seen (Ville's inequality).

    Attributes:
        mode: in which views are compared.
        step: pairs asked between looks.
        threshold: evidence at which to stop.
        alpha: level of the positive control.
        least: samples per side.
        name: of the test.
    """

    mode: Mode = "std"
    step: int = 250
    threshold: float = THRESHOLD
    alpha: float = gates.ALPHA
    least: int = gates.LEAST
    name: str = field(default="dataset-inference-sequential", init=False)

    def run(
        self, suspect: Encoder, evidence: SplitEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect until the evidence or the pool is spent; see `OwnershipTest.run`."""
        fixed = DatasetInference((self.mode,), alpha=self.alpha, least=self.least)
        fixed.check_controls(evidence, rng)
        split, pool = evidence.split, evidence.split.pool()
        frame = fit_frames(suspect, split.public, (self.mode,))[self.mode]
        pairs = _pairs(evidence.trained, rng)
        scores = np.full(len(pool), np.nan)
        wealth = np.zeros((1, len(LAMBDAS)))
        done, largest = 0, 0.0
        while done < len(pairs) and largest < np.log(self.threshold):
            new = pairs[done : done + self.step]
            for rows in batches(rng.permutation(new.ravel())):
                views = embed_views(suspect, pool[rows], split.views, rows)
                scores[rows] = agreement(views, frame)
            done += len(new)
            residuals = _residuals(scores, evidence.references[self.mode], pairs[:done])
            wealth = wealth[-1] + _bets(residuals, len(new))
            largest = max(largest, float(_log_mean(wealth).max()))
        return self._result(residuals, done, largest, rng)

    def _result(
        self, residuals: Residuals, pairs: int, largest: float, rng: np.random.Generator
    ) -> OwnershipResult:
        found = judge(residuals, np.tile([True, False], pairs), rng=rng)
        e_value = float(np.exp(min(largest, _LARGEST)))
        return OwnershipResult(
            test=self.name,
            null="data",
            statistic=largest,
            p_value=p_from_e(e_value),
            effect_size=found.two.d,
            interval=found.two.ci,
            null_distribution=np.empty(0),
            alternative=ALTERNATIVE,
            e_value=e_value,
            details={"floor": found.floor, "pairs": float(pairs), "beta": found.beta},
        )


def _pairs(trained: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return (m, 2) rows of the pool, a trained one and a held one each."""
    sides = [rng.permutation(np.flatnonzero(side)) for side in (trained, ~trained)]
    count = min(map(len, sides))
    return np.stack([side[:count] for side in sides], axis=1)


def _residuals(
    scores: Scores, references: NDArray[np.float64], pairs: NDArray[np.intp]
) -> Residuals:
    """Return residuals of the rows asked, a trained one and a held one in turn."""
    rows = pairs.ravel()
    return Residuals.of(scores[rows], references[:, rows])


def _bets(residuals: Residuals, new: int) -> NDArray[np.float64]:
    """Return (new, l) logarithms of what each gambler's money is multiplied by so far."""
    twins = residuals.suspect.reshape(-1, 2)[-new:]
    return log_wealth(twins[:, 0] - twins[:, 1], s=bet_scale(residuals.references))


def _log_mean(wealth: NDArray[np.float64]) -> Scores:
    """Return (m,) logarithms of the mean over gamblers, without overflow."""
    top = wealth.max(axis=1)
    found: Scores = top + np.log(np.exp(wealth - top[:, np.newaxis]).mean(axis=1))
    return found
