"""Every suspect before every claim, by our rule and by the published test, and again re-split."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from tollkeeper.audit.consistency import Mode
from tollkeeper.audit.dataset_inference import (
    DatasetInference,
    Residuals,
    SplitEvidence,
    judge,
    verdict,
)
from tollkeeper.audit.gates import ALPHA
from tollkeeper.audit.mixture import CORRECTED, PAPER, MixtureRecipe, gmm_scores, halved_p
from tollkeeper.audit.two_sample import welch
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.types import Embeddings, Scores

PRIMARY: tuple[Mode, ...] = ("std",)
"""What is tested where no obfuscation is expected."""

TRIALS = 3
"""Densities of the published test, whose p-values its table averages."""

_LOOK = 3
"""Re-splits whose formula gives a p-value up to this many times the level are tested in full."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One encoder before one claim.

    Attributes:
        name: of the encoder, for progress.
        claim: number.
        scores: (2 n,) by mode.
        plain: (2 n, d) embeddings for the published test; None leaves it out.
        modes: tested, the primary first.
        resplits: how often the sides are drawn anew.
        seed: of all draws.
    """

    name: str
    claim: int
    scores: dict[Mode, Scores]
    plain: Embeddings | None
    modes: tuple[Mode, ...]
    resplits: int
    seed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mixture:
    """What the published test says of one split.

    Attributes:
        t: mean over trials of its statistic, which the paper calls an effect size.
        d: mean standardized effect.
        p: mean over trials of Welch's one-sided p-value, as the paper averages.
        halved: mean of the released script's p-value, which does not look at the sign.
    """

    t: float
    d: float
    p: float
    halved: float


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was found.

    Attributes:
        t: calibrated.
        plain_t: the same without calibration, in the primary mode.
        d: effect size.
        interval: 99% of it.
        p: exact, corrected for the modes.
        p_reference: for a split that nobody randomized: as one more of the references.
        e: e-value.
        derived: verdict of a randomized split.
        by_mode: mode to t.
        accused: re-splits with the verdict "derived".
        rejected: re-splits with a p-value up to the level.
        low: re-splits with a p-value up to 1%.
        mixtures: the published test as `paper` and `corrected`, and with swapped sides.
    """

    t: float
    plain_t: float
    d: float
    interval: tuple[float, float]
    p: float
    p_reference: float
    e: float
    derived: bool
    by_mode: dict[str, float]
    accused: int = 0
    rejected: int = 0
    low: int = 0
    mixtures: dict[str, Mixture] = field(default_factory=dict)

    @property
    def derived_legacy(self) -> bool:
        """Whether it would be "derived" had nobody randomized the split."""
        return self.derived and self.p_reference <= ALPHA


def rule(payload: Payload[tuple[SplitEvidence, ...]], case: Case) -> Ruling:
    """Judge a case; a job of a worker process."""
    evidence = _loaded(payload)[case.claim]
    rng = np.random.default_rng(case.seed)
    result = DatasetInference(modes=case.modes).decide(case.scores, evidence, rng=rng)
    trained = evidence.trained
    primary = case.scores[case.modes[0]]
    residuals = evidence.residuals(case.modes[0], case.scores)
    accused, rejected, low = resplit(residuals, int(trained.sum()), case.resplits, rng=rng)
    return Ruling(
        t=result.statistic,
        plain_t=welch(primary[trained], primary[~trained])[0],
        d=result.effect_size,
        interval=result.interval,
        p=result.p_value,
        p_reference=result.details["p_reference"],
        e=result.e_value or 0.0,
        derived=verdict(result) == "derived",
        by_mode={mode: result.details[f"{mode}.t"] for mode in case.modes},
        accused=accused,
        rejected=rejected,
        low=low,
        mixtures={} if case.plain is None else mixtures(case.plain, trained, rng),
    )


@cache
def _loaded(payload: Payload[tuple[SplitEvidence, ...]]) -> tuple[SplitEvidence, ...]:
    """Return the evidence; once per worker process."""
    return payload.load()


def resplit(
    found: Residuals, size: int, count: int, *, rng: np.random.Generator, alpha: float = ALPHA
) -> tuple[int, int, int]:
    """Judge an encoder as if other images had been trained on.

    Nothing in the residuals depends on the split, so each drawn split is as good a claim as the
    true one, and one that no encoder can answer to.

    Args:
        found: of the pool.
        size: images on the trained side.
        count: splits to draw.
        rng: draws them.
        alpha: level of an accusation.

    Returns:
        How many splits accuse, how many have a p-value up to alpha, and how many up to 1%.
    """
    labels = np.zeros((count, len(found.suspect)), bool)
    labels[:, :size] = True
    labels = rng.permuted(labels, axis=1)
    p = _tails(labels, found.suspect)
    accused = sum(
        _derived(found, labels[row], rng, alpha) for row in np.flatnonzero(p <= _LOOK * alpha)
    )
    return accused, int((p <= alpha).sum()), int((p <= 0.01).sum())


def _derived(
    found: Residuals, trained: NDArray[np.bool_], rng: np.random.Generator, alpha: float
) -> bool:
    """Return the verdict of `DatasetInference` in one mode."""
    finding = judge(found, trained, rng=rng)
    return finding.p_value(randomized=True) <= alpha and finding.two.ci[0] > finding.floor


def _tails(labels: NDArray[np.bool_], scores: Scores) -> NDArray[np.float64]:
    """Return Welch's one-sided p-value under each row of labels."""
    ones = labels.astype(np.float64)
    counts = np.stack([ones.sum(axis=1), (1 - ones).sum(axis=1)])
    total, square = scores.sum(), np.square(scores).sum()
    sums, squares = ones @ scores, ones @ np.square(scores)
    means = np.stack([sums, total - sums]) / counts
    parts = np.stack([squares, square - squares]) / counts - means**2
    errors = parts / (counts - 1)
    t = (means[0] - means[1]) / np.sqrt(errors.sum(axis=0))
    freedom = errors.sum(axis=0) ** 2 / (errors**2 / (counts - 1)).sum(axis=0)
    tails: NDArray[np.float64] = stdtr(freedom, -t)
    return tails


# -- the published test ----------------------------------------------------------


def mixtures(
    plain: Embeddings, trained: NDArray[np.bool_], rng: np.random.Generator
) -> dict[str, Mixture]:
    """Test as published and as corrected; and with the sides swapped, which is as likely a claim.

    Args:
        plain: (2 n, d) embeddings of the pool.
        trained: (2 n,) which were trained on; one half fits the density, the other is scored.
        rng: draws the halves and the densities' seeds.
    """
    sides = {"": (plain[trained], plain[~trained]), "_swapped": (plain[~trained], plain[trained])}
    return {
        f"{name}{label}": _mixture(first, second, recipe, rng)
        for label, (first, second) in sides.items()
        for name, recipe in (("paper", PAPER), ("corrected", CORRECTED))
    }


def _mixture(
    trained: Embeddings, held: Embeddings, recipe: MixtureRecipe, rng: np.random.Generator
) -> Mixture:
    found = []
    for _ in range(TRIALS if recipe.seeds == 1 else 1):
        order = rng.permutation(len(trained))
        fit, score = np.array_split(trained[order], 2)
        one, other = gmm_scores(fit, score, held, recipe=recipe, rng=rng)
        t, freedom = welch(one, other)
        found.append(
            (
                t,
                t * np.sqrt(1 / len(one) + 1 / len(other)),
                float(stdtr(freedom, -t)),
                halved_p(one, other),
            )
        )
    return Mixture(*(float(value) for value in np.mean(found, axis=0)))
