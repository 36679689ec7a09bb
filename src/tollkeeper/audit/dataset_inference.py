"""Dataset inference of encoders by view consistency, calibrated by references: our decision rule.

An owner has a pool of exchangeable images, of which some were trained on and some were held out.
Views of trained ones are more alike to the victim, and to its copies. How hard an image is for
everybody is taken off by encoders that saw neither side, and what they show is the null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import gates
from tollkeeper.audit.base import OwnershipResult, Verdict
from tollkeeper.audit.blind import BlindTest, blind_test, check_blind
from tollkeeper.audit.consistency import Mode, calibrate, standardized
from tollkeeper.audit.multiplicity import e_average
from tollkeeper.audit.sequential import bet_scale, e_process
from tollkeeper.audit.split import ModeScores, Split, measure
from tollkeeper.audit.two_sample import (
    TwoSample,
    bayes_bound,
    relative_transfer,
    t_tail,
    two_sample,
    welch,
)
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Scores

REFERENCES = 8
"""Reference encoders at least (method spec, section 12); 20 to quote their distribution."""

ALTERNATIVE = "data of the owner influenced this encoder"


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """Scores of a pool with the difficulty of its images taken off.

    Which side an image is on plays no part in them.

    Attributes:
        suspect: (n,) standardized.
        references: (M, n) of each reference, calibrated by the others.
        beta: slope of the suspect's scores on the references' mean.
    """

    suspect: Scores
    references: NDArray[np.float64]
    beta: float

    @classmethod
    def of(cls, scores: Scores, references: NDArray[np.float64]) -> Residuals:
        """Calibrate (n,) scores by those of M >= 2 references, (M, n)."""
        if references.ndim != 2 or len(references) < 2:
            raise AuditRefused(
                f"expected (M, n) scores of two or more references, got {references.shape}"
            )
        suspect, beta = calibrate(scores, references)
        return cls(suspect, leave_one_out(references), beta)


def leave_one_out(references: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (M, n) residuals of each reference, calibrated by the mean of the others."""
    own = standardized(references)
    others = (own.sum(axis=0) - own) / (len(own) - 1)
    beta = (own * others).sum(axis=1) / np.square(others).sum(axis=1)
    found: NDArray[np.float64] = own - beta[:, np.newaxis] * others
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What one mode shows.

    Attributes:
        two: trained against held residuals of the suspect.
        beta: of the calibration.
        null_t: (M,) Welch's t of each reference, left out of its own calibration.
        null_d: (M,) their effect sizes.
        p_reference: of the suspect's t as one more draw of the references', by Student's t with
            M - 1 degrees of freedom; holds for any split if suspect and references are alike.
        p_empirical: (1 + #{t_k >= t}) / (M + 1).
    """

    two: TwoSample
    beta: float
    null_t: NDArray[np.float64]
    null_d: NDArray[np.float64]
    p_reference: float
    p_empirical: float

    @property
    def floor(self) -> float:
        """Return the largest effect, of either sign, that an encoder without the data shows."""
        return float(np.abs(self.null_d).max())

    def details(self) -> dict[str, float]:
        """Return what a report shows beside the result."""
        return {
            "floor": self.floor,
            "beta": self.beta,
            "auc": self.two.auc,
            "df": self.two.df,
            "p_welch": self.two.p_welch,
            "p_perm": self.two.p_perm,
            "p_reference": self.p_reference,
            "p_empirical": self.p_empirical,
        }

    def p_value(self, *, randomized: bool) -> float:
        """Return the exact p-value of a randomized split, else the larger of both kinds.

        The larger one holds if the sides are exchangeable, or if the references are like an
        innocent suspect: one of the two is enough.
        """
        return self.two.p_perm if randomized else max(self.two.p_perm, self.p_reference)


def judge(found: Residuals, trained: NDArray[np.bool_], *, rng: np.random.Generator) -> Finding:
    """Compare residuals of trained images with those of held ones.

    Args:
        found: of the pool.
        trained: (n,) which images were trained on.
        rng: draws the permutation test.
    """
    two = two_sample(found.suspect[trained], found.suspect[~trained], rng=rng)
    null = [welch(row[trained], row[~trained])[0] for row in found.references]
    null_t = np.asarray(null)
    n1, n2 = int(trained.sum()), int((~trained).sum())
    return Finding(
        two=two,
        beta=found.beta,
        null_t=null_t,
        null_d=null_t * np.sqrt(1 / n1 + 1 / n2),
        p_reference=reference_p(two.t, null_t),
        p_empirical=float(1 + np.count_nonzero(null_t >= two.t)) / (null_t.size + 1),
    )


def reference_p(t: float, null_t: NDArray[np.float64]) -> float:
    """Return P(T_{M-1} >= (t - mean) / (sd sqrt(1 + 1/M))) (method spec, section 10.3 c)."""
    spread = float(null_t.std(ddof=1))
    if not spread > 0:
        raise AuditRefused("all references have the same t; they are copies of one encoder")
    count = null_t.size
    return t_tail((t - float(null_t.mean())) / (spread * np.sqrt(1 + 1 / count)), count - 1)


@dataclass(frozen=True, slots=True, eq=False)
class SplitEvidence:
    """A split, and what is known of it before a suspect is asked.

    Attributes:
        split: the images.
        references: (M, n) scores by mode, of encoders trained on neither side.
        victim: (n,) scores of the victim by mode: the positive control.
        blind: whether the sides can be told apart without a model; None for a randomized split.
    """

    split: Split
    references: ModeScores
    victim: ModeScores
    blind: BlindTest | None = None

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Return (n,) which images of the pool were trained on."""
        return np.repeat([True, False], [len(self.split.trained), len(self.split.held)])

    def residuals(self, mode: Mode, scores: ModeScores) -> Residuals:
        """Return an encoder's scores in a mode, calibrated by the references.

        Raises:
            AuditRefused: scores of other images, or none of this mode.
        """
        if mode not in scores or mode not in self.references:
            raise AuditRefused(f"no scores in mode {mode}; measure in all modes of the test")
        if np.shape(scores[mode]) != self.trained.shape:
            raise AuditRefused(
                f"expected scores of {self.trained.size} images, got {np.shape(scores[mode])}"
            )
        return Residuals.of(scores[mode], self.references[mode])


@dataclass(frozen=True, slots=True)
class DatasetInference:
    """Tests whether an encoder, or what it was copied from, was trained on one side of a split.

    Valid if the split is randomized: whatever the suspect was trained on, exactly (permutation
    test). Else if the sides are exchangeable or the references are like an innocent suspect.

    Attributes:
        modes: compared, the primary first; p-values are times their number.
        alpha: level of the positive control.
        least: samples per side.
        name: of the test.
    """

    modes: tuple[Mode, ...] = ("std",)
    alpha: float = gates.ALPHA
    least: int = gates.LEAST
    name: str = field(default="dataset-inference", init=False)

    def prepare(
        self,
        split: Split,
        *,
        references: Sequence[Encoder],
        victim: Encoder,
        rng: np.random.Generator,
    ) -> SplitEvidence:
        """Measure controls once for all suspects.

        Args:
            split: the images.
            references: encoders of the same kind trained on neither side, 8 or more.
            victim: the owner's encoder.
            rng: draws orders, and the folds of the blind test.

        Raises:
            AuditRefused: the split, its blind test, the references or the victim cannot carry it.
        """
        split.check(least=self.least)
        if len(references) < REFERENCES:
            raise AuditRefused(
                f"expected {REFERENCES} or more reference encoders, got {len(references)}"
            )
        blind = None
        if not split.randomized:
            blind = blind_test(split.trained, split.held, rng=rng)
            check_blind(blind)
        measured = [measure(one, split, modes=self.modes, rng=rng) for one in references]
        stacked = {mode: np.stack([one[mode] for one in measured]) for mode in self.modes}
        own = measure(victim, split, modes=self.modes, rng=rng)
        evidence = SplitEvidence(split, stacked, own, blind)
        self.check_controls(evidence, rng)
        return evidence

    def run(
        self, suspect: Encoder, evidence: SplitEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect for all views and test; see `OwnershipTest.run`."""
        scores = measure(suspect, evidence.split, modes=self.modes, rng=rng)
        return self.decide(scores, evidence, rng=rng)

    def decide(
        self, scores: ModeScores, evidence: SplitEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Test (n,) scores by mode that were measured already.

        Raises:
            AuditRefused: scores of other images or modes, or controls that failed.
        """
        self.check_controls(evidence, rng)
        found, evidences = {}, []
        for mode in self.modes:
            residuals = evidence.residuals(mode, scores)
            found[mode] = judge(residuals, evidence.trained, rng=rng)
            evidences.append(paired_e(residuals, evidence.trained, rng=rng))
        p_values = {
            mode: one.p_value(randomized=evidence.split.randomized) for mode, one in found.items()
        }
        best = min(self.modes, key=lambda mode: (p_values[mode], -found[mode].two.t))
        chosen = found[best]
        # Holm's correction of the smallest of a family.
        p = min(1.0, p_values[best] * len(self.modes))
        return OwnershipResult(
            test=self.name,
            null="data",
            statistic=chosen.two.t,
            p_value=p,
            effect_size=chosen.two.d,
            interval=chosen.two.ci,
            null_distribution=chosen.null_t,
            alternative=ALTERNATIVE,
            e_value=e_average(evidences),
            details={
                **chosen.details(),
                "bayes_bound": bayes_bound(p),
                **{f"{mode}.t": one.two.t for mode, one in found.items()},
                **{f"{mode}.d": one.two.d for mode, one in found.items()},
                **{f"{mode}.p": p_values[mode] for mode in found},
                **_transfer(best, scores, evidence, rng),
            },
        )

    def check_controls(self, evidence: SplitEvidence, rng: np.random.Generator) -> None:
        """Refuse sides that differ anyway, and a statistic that does not find the victim."""
        sides = len(evidence.split.trained), len(evidence.split.held)
        gates.check_samples(min(sides), least=self.least)
        if not evidence.split.randomized:
            check_blind(evidence.blind)
        found = [
            judge(evidence.residuals(mode, evidence.victim), evidence.trained, rng=rng)
            for mode in self.modes
            if mode in evidence.victim
        ]
        p = min((one.two.p_perm for one in found), default=None)
        gates.check_control(None if p is None else p * len(found), alpha=self.alpha)


def _transfer(
    mode: Mode, scores: ModeScores, evidence: SplitEvidence, rng: np.random.Generator
) -> dict[str, float]:
    """Return rho, the suspect's effect over the victim's, with its 99% interval."""
    trained = evidence.trained
    suspect, victim = (
        (residuals[trained], residuals[~trained])
        for residuals in (
            evidence.residuals(mode, scores).suspect,
            evidence.residuals(mode, evidence.victim).suspect,
        )
    )
    rho, (low, high) = relative_transfer(suspect, victim, rng=rng)
    return {"rho": rho, "rho_low": low, "rho_high": high}


def paired_e(found: Residuals, trained: NDArray[np.bool_], *, rng: np.random.Generator) -> float:
    """Return the e-value of trained images paired at random with held ones.

    Under exchangeability which one of a pair is the trained one is a fair coin.

    Args:
        found: of the pool.
        trained: (n,) which images were trained on.
        rng: draws the pairs.
    """
    ones = rng.permutation(np.flatnonzero(trained))
    others = rng.permutation(np.flatnonzero(~trained))
    pairs = min(len(ones), len(others))
    y = found.suspect[ones[:pairs]] - found.suspect[others[:pairs]]
    return float(e_process(y, s=bet_scale(found.references))[-1])


def verdict(
    result: OwnershipResult, *, alpha: float = gates.ALPHA, p_value: float | None = None
) -> Verdict:
    """Return "derived" only if the evidence is both unlikely by chance and large.

    Args:
        result: of a test on data, with `floor` in its details.
        alpha: level of the whole family of tests.
        p_value: corrected for the other suspects, statistics and looks of the family; None where
            this was the only test.

    References:
        Method spec, section 10.5: the corrected p-value is at most alpha, and the lower end of the
        effect's 99% interval is above the largest effect of any reference.
    """
    p = result.p_value if p_value is None else p_value
    large = result.interval[0] > result.details["floor"]
    return "derived" if p <= alpha and large else "inconclusive"
