"""From kept embeddings to a verdict: a pure function, the same for the owner and for whoever checks.

Notes: what each method of a plan computes of the consistency of each picture's views, calibrated
by the references (a reference's own scores are left out of its references): method spec, 4.2, 4.3.

- inclusion: the sign-flip test on differences within pairs, exact whatever the suspect was trained
  on, and the e-process on the same differences (10.2).
- dataset-inference: the larger of the permutation p of trained against held pictures and of the p
  of its t among those of the references (10.3c), behind a blind test of the pictures (10.3a).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import gates
from tollkeeper.audit.consistency import Mode, calibrate, consistency, standardized
from tollkeeper.audit.dataset_inference import Residuals, judge
from tollkeeper.audit.evidence.findings import Role, Row
from tollkeeper.audit.evidence.plan import flips
from tollkeeper.audit.inclusion import betting, check_pairs, sign_flip
from tollkeeper.audit.sequential import bet_scale
from tollkeeper.types import Embeddings, Scores

Coins = NDArray[np.bool_]
"""(m,) whether the first picture of each pair is the trained one."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One encoder's kept answers.

    Attributes:
        name: in this audit.
        role: why it was asked.
        views: (2m, K, d) of the opened pictures, the two of a pair side by side.
        public: (p, d) of the public pictures.
    """

    name: str
    role: Role
    views: Embeddings
    public: Embeddings


def analyze(
    subjects: Sequence[Subject],
    coins: Coins,
    decision: Mapping[str, Any],
    *,
    alpha: float,
    rng: np.random.Generator,
) -> tuple[Row, ...]:
    """Return every subject's row in every mode, the primary mode first.

    Args:
        subjects: the suspect first.
        coins: of the pairs.
        decision: the committed rule.
        alpha: the committed error rate, at which controls are judged.
        rng: a sealed one.

    Raises:
        AuditRefused: a guard of the method spec's sections 10.3 and 12 does not hold.
    """
    check_pairs(len(coins), alpha=alpha)
    gates.check_samples(len(coins))
    for each in subjects:
        gates.check_embeddings(each.views, rows=2 * len(coins), width=None, who=each.name)
        gates.check_embeddings(
            each.public, rows=len(each.public), width=each.views.shape[-1], who=each.name
        )
    by_method = _by_coins if decision["test"] == "inclusion" else _by_references
    rows: list[Row] = []
    for mode, seed in zip(decision["modes"], rng.spawn(len(decision["modes"])), strict=True):
        scores = [consistency(each.views, each.public, mode) for each in subjects]
        count = flips(decision, alpha)
        rows += by_method(subjects, scores, coins, mode, alpha=alpha, count=count, rng=seed)
    _check_controls(rows, alpha)
    return tuple(rows)


def deciding(rows: Sequence[Row], family: int) -> tuple[Row, float]:
    """Return the suspect's row of least p-value, and that p-value times the size of the family."""
    best = min((row for row in rows if row.role == "suspect"), key=lambda row: row.p_value)
    return best, min(1.0, best.p_value * family)


def floor(rows: Sequence[Row], mode: str) -> float:
    """Return the largest effect size of a reference, taken without its sign; 0 without any."""
    sizes = [abs(row.effect_size) for row in rows if row.role == "reference" and row.mode == mode]
    return max(sizes, default=0.0)


def _by_coins(
    subjects: Sequence[Subject],
    scores: Sequence[Scores],
    coins: Coins,
    mode: Mode,
    *,
    alpha: float,
    count: int,
    rng: np.random.Generator,
) -> list[Row]:
    differences = [
        _differences(scores[place], _others(place, subjects, scores), coins)
        for place in range(len(subjects))
    ]
    of_references = [
        y for y, each in zip(differences, subjects, strict=True) if each.role == "reference"
    ]
    # Known before the suspect's signs are; without references its own sizes, which tell no sign.
    scale = bet_scale(np.concatenate(of_references)) if of_references else None
    rows = []
    for subject, y, seed in zip(subjects, differences, rng.spawn(len(subjects)), strict=True):
        found = sign_flip(y, rng=seed, flips=count)
        bets = betting(seed.permutation(y), alpha=alpha, scale=scale)
        low, high = found.interval
        rows.append(
            Row(
                encoder=subject.name,
                role=subject.role,
                mode=mode,
                statistic=found.statistic,
                p_value=found.p_value,
                effect_size=found.effect_size,
                low=low,
                high=high,
                e_value=bets.e_value,
            )
        )
    return rows


def _differences(own: Scores, others: Sequence[Scores], coins: Coins) -> Scores:
    """Return (m,) trained minus held, of scores without what the references find too."""
    residual = calibrate(own, np.stack(others))[0] if others else standardized(own)
    first, second = residual.reshape(-1, 2).T
    found: Scores = np.where(coins, first - second, second - first)
    return found


def _by_references(
    subjects: Sequence[Subject],
    scores: Sequence[Scores],
    coins: Coins,
    mode: Mode,
    *,
    alpha: float,
    count: int,
    rng: np.random.Generator,
) -> list[Row]:
    del alpha, count  # neither the permutation test nor the references need them
    trained = np.column_stack([coins, ~coins]).ravel()
    rows = []
    for place, (subject, seed) in enumerate(zip(subjects, rng.spawn(len(subjects)), strict=True)):
        others = np.stack(_others(place, subjects, scores))
        found = judge(Residuals.of(scores[place], others), trained, rng=seed)
        low, high = found.two.ci
        p = found.p_value(randomized=False)
        rows.append(Row(subject.name, subject.role, mode, found.two.t, p, found.two.d, low, high))
    return rows


def _others(place: int, subjects: Sequence[Subject], scores: Sequence[Scores]) -> list[Scores]:
    """Return the scores of all references but the subject itself."""
    return [
        scores[other]
        for other, each in enumerate(subjects)
        if each.role == "reference" and other != place
    ]


def _check_controls(rows: Sequence[Row], alpha: float) -> None:
    control = [row.p_value for row in rows if row.role == "control"]
    gates.check_control(min(control, default=None), alpha=alpha, who="the owner's own model")
    innocent = [row.p_value for row in rows if row.role == "reference"]
    if innocent:
        # All of them together may err as often as one test does.
        gates.check_negative_controls(innocent, alpha=alpha / len(innocent), who="reference")
