"""Dataset inference of classifiers by margins, calibrated by references: our decision rule.

What a classifier was trained on lies farther from its borders. How far each picture lies for
classifiers that saw neither side is taken off, and what they show is the null.

Source: Maini, Yaghini, Papernot, "Dataset Inference: Ownership Resolution in Machine Learning",
ICLR 2021; the calibration is that of `tollkeeper.audit.dataset_inference`.

Notes:
    Differences from the paper, whose test is `tollkeeper.audit.classifiers.published`: a picture's
    score is the mean root of its margins unless a regressor is asked for, which was no stronger and
    knows the victim, so that a permutation test of its scores is not exact; margins are
    standardized by the suspect's own over both sides, so that one who is surer of everything is not
    taken for a copy; all pictures are tested once, instead of 10 at a time; none that the regressor
    was fitted on is tested; references see neither side, where the paper's independent classifier
    is trained on the public side, which makes its effect negative whatever the test is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import gates
from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.blind import BlindTest, blind_test, check_blind
from tollkeeper.audit.classifiers.margins import BlindWalk, Margins, Ruler, Side
from tollkeeper.audit.classifiers.published import Standard, laid_out
from tollkeeper.audit.classifiers.regressor import Fitting, Regressor
from tollkeeper.audit.dataset_inference import REFERENCES, Finding, Residuals, judge
from tollkeeper.audit.two_sample import bayes_bound
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Images, Scores

ALTERNATIVE = "the owner's training data influenced this classifier"


@dataclass(frozen=True, slots=True, eq=False)
class MarginSplit:
    """Pictures of which the owner says which were trained on.

    Attributes:
        private: trained on; tested.
        public: held out and used for nothing; tested.
        fit_private: trained on; a regressor is fitted on them; None where there is none.
        fit_public: held out; a regressor is fitted on them.
        randomized: whether a committed coin decided which side a picture is on, before training.
    """

    private: Side
    public: Side
    fit_private: Side | None = None
    fit_public: Side | None = None
    randomized: bool = False

    def check(self, *, least: int) -> None:
        """Refuse sides that cannot be compared.

        Raises:
            AuditRefused: too few pictures to test, duplicates, a picture in two parts, or parts
                that were prepared differently.
        """
        parts = {"private": self.private, "public": self.public}
        for name, part in parts.items():
            gates.check_samples(len(part), least=least, what=f"{name} pictures")
        if self.fit_private is not None and self.fit_public is not None:
            parts |= {"fit_private": self.fit_private, "fit_public": self.fit_public}
        for name, part in parts.items():
            gates.check_distinct(part.images, name)
        for one, two in combinations(parts, 2):
            names = (one, two)
            gates.check_preprocessing(parts[one].images, parts[two].images, names=names)
            gates.check_disjoint(parts[one].images, parts[two].images, names=names)

    def pool(self) -> Side:
        """Return what is tested, private pictures first."""
        return joined(self.private, self.public)

    def whole(self) -> tuple[Images, Images]:
        """Return all private and all public pictures there are, tested or not."""
        if self.fit_private is None or self.fit_public is None:
            return self.private.images, self.public.images
        private, public = (
            joined(self.private, self.fit_private),
            joined(self.public, self.fit_public),
        )
        return private.images, public.images

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Return (n,) which pictures of the pool were trained on."""
        return np.repeat([True, False], [len(self.private), len(self.public)])


@dataclass(frozen=True, slots=True, eq=False)
class MarginEvidence:
    """A split, and what is known of it before a suspect is asked.

    Attributes:
        split: the pictures.
        regressor: fitted on the victim's margins of the parts that are not tested; None where the
            mean margin is the score.
        references: (M, n) scores of classifiers trained on neither side.
        victim: (n,) scores of the victim: the positive control.
        blind: whether the sides can be told apart without a model; None for a randomized split.
    """

    split: MarginSplit
    regressor: Regressor | None
    references: NDArray[np.float64]
    victim: Scores
    blind: BlindTest | None = None

    def residuals(self, scores: Scores) -> Residuals:
        """Return a classifier's scores, calibrated by the references.

        Raises:
            AuditRefused: scores of other pictures.
        """
        if scores.shape != self.split.trained.shape:
            raise AuditRefused(
                f"expected scores of {self.split.trained.size} pictures, got {scores.shape}"
            )
        return Residuals.of(scores, self.references)


@dataclass(frozen=True, slots=True)
class MarginInference:
    """Tests whether a classifier, or what it was copied from, was trained on one side of a split.

    Valid as `tollkeeper.audit.dataset_inference.DatasetInference` is: exactly if the split is
    randomized and there is no regressor, else if the sides are exchangeable or the references are
    like an innocent suspect. Its result goes through the same `verdict`.

    Attributes:
        seed: of the walks, committed; all classifiers are walked alike.
        ruler: how margins are measured.
        fitting: of a regressor that scores pictures; None scores them by their mean margin.
        alpha: level of the positive control.
        least: pictures of each side.
        name: of the test.
    """

    seed: int
    ruler: Ruler[Any] = field(default_factory=BlindWalk)
    fitting: Fitting | None = None
    alpha: float = gates.ALPHA
    least: int = gates.LEAST
    name: str = field(default="margin-inference", init=False)

    def prepare(
        self,
        split: MarginSplit,
        *,
        references: Sequence[Encoder],
        victim: Encoder,
        rng: np.random.Generator,
    ) -> MarginEvidence:
        """Measure controls once for all suspects.

        Args:
            split: the pictures.
            references: classifiers of the same kind trained on neither side, 8 or more.
            victim: the owner's classifier.
            rng: draws the start of the fit and the folds of the blind test.

        Raises:
            AuditRefused: the split, its blind test, the references or the victim cannot carry it.
        """
        split.check(least=self.least)
        if len(references) < REFERENCES:
            raise AuditRefused(
                f"expected {REFERENCES} or more reference classifiers, got {len(references)}"
            )
        blind = None
        if not split.randomized:
            blind = blind_test(*split.whole(), rng=rng)
            check_blind(blind)
        regressor = self._fitted(victim, split, rng)
        pool = [self.margins(one, split) for one in (victim, *references)]
        scores = np.stack([scored(regressor, margins) for margins in pool])
        evidence = MarginEvidence(split, regressor, scores[1:], scores[0], blind)
        self.check_controls(evidence, rng)
        return evidence

    def margins(self, suspect: Encoder, split: MarginSplit) -> Margins:
        """Return a classifier's margins of the pool, private pictures first.

        They are asked in random order, so that nothing that drifts can tell the sides apart.
        """
        pool, rng = split.pool(), np.random.default_rng([self.seed, 1])
        order = rng.permutation(len(pool))
        shuffled = Side(pool.images[order], pool.labels[order])
        found: Margins = self.ruler.measure(suspect, shuffled, rng=rng)
        back = np.argsort(order)
        return Margins(found.distances[back], found.flipped[back], found.queries)

    def _fitted(
        self, victim: Encoder, split: MarginSplit, rng: np.random.Generator
    ) -> Regressor | None:
        """Return the regressor of the victim's margins of what is not tested."""
        if self.fitting is None:
            return None
        if split.fit_private is None or split.fit_public is None:
            raise AuditRefused(
                "a regressor needs pictures of both sides that are not tested; give the split "
                "fit_private and fit_public, or fit none"
            )
        walks = np.random.default_rng([self.seed, 0])
        margins = self.ruler.measure(victim, joined(split.fit_private, split.fit_public), rng=walks)
        rows, count = laid_out(standardized(margins), "pictures"), len(split.fit_private)
        return self.fitting(rows[:count], rows[count:], rng=rng)

    def run(
        self, suspect: Encoder, evidence: MarginEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect for labels along all walks and test; see `OwnershipTest.run`."""
        margins = self.margins(suspect, evidence.split)
        return self.decide(scored(evidence.regressor, margins), evidence, rng=rng)

    def decide(
        self, scores: Scores, evidence: MarginEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Test (n,) scores that were measured already.

        Raises:
            AuditRefused: scores of other pictures, or controls that failed.
        """
        self.check_controls(evidence, rng)
        found = judge(evidence.residuals(scores), evidence.split.trained, rng=rng)
        # A regressor knows the victim, and so something of the coins.
        exact = evidence.split.randomized and evidence.regressor is None
        return self.result(found, randomized=exact)

    def result(self, found: Finding, *, randomized: bool) -> OwnershipResult:
        """Return a finding as the result of this test; `randomized` takes the exact p-value."""
        p = found.p_value(randomized=randomized)
        return OwnershipResult(
            test=self.name,
            null="data",
            statistic=found.two.t,
            p_value=p,
            effect_size=found.two.d,
            interval=found.two.ci,
            null_distribution=found.null_t,
            alternative=ALTERNATIVE,
            details={**found.details(), "bayes_bound": bayes_bound(p)},
        )

    def check_controls(self, evidence: MarginEvidence, rng: np.random.Generator) -> None:
        """Refuse sides that differ anyway, and a statistic that does not find the victim."""
        if not evidence.split.randomized:
            check_blind(evidence.blind)
        found = judge(evidence.residuals(evidence.victim), evidence.split.trained, rng=rng)
        gates.check_control(found.two.p_perm, alpha=self.alpha)


def joined(one: Side, other: Side) -> Side:
    """Return the pictures of two sides."""
    return Side(
        np.concatenate([one.images, other.images]), np.concatenate([one.labels, other.labels])
    )


def standardized(margins: Margins) -> NDArray[np.float64]:
    """Return (n, s, 3) roots of distances, each norm by its mean and spread over all pictures.

    Roots, as a few pictures lie very far from every border.
    """
    roots = np.sqrt(margins.distances)
    return Standard.of(roots)(roots)


def scored(regressor: Regressor | None, margins: Margins) -> Scores:
    """Return (n,) scores, larger for what looks trained on."""
    rows = standardized(margins)
    if regressor is None:
        return np.asarray(rows.mean(axis=(1, 2)))
    return -regressor(laid_out(rows, "pictures"))
