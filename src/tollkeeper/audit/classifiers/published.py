"""Dataset inference of classifiers as it was published, beside which the corrected test stands.

Source: Maini, Yaghini, Papernot, "Dataset Inference: Ownership Resolution in Machine Learning",
ICLR 2021, sections 4.3 and 5, table 1, and the released notebooks.

Notes:
    What is kept, as it was: features are standardized, norm by norm, by the victim's private
    pictures; a p-value is of 10 rows of each side; 100 of those are combined by their harmonic
    mean, which is no p-value (6 to 8% of it fall below 5% under the null). No reference is asked,
    so a split on which honest classifiers differ by chance, or for another reason, accuses them.

    A row of the released notebooks is not a picture. They turn distances of (pictures, walks,
    norms) round and cut them into rows of 30, so that a row is 30 pictures' distances of one walk,
    and the rows that are fitted on are other walks from the same pictures as those that are
    tested. A test of 10 rows then sees up to 300 pictures, and one of 500 rows counts every
    picture 15 times. `rows="released"` does so; `"pictures"` is what the paper describes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tollkeeper.audit.classifiers.margins import Margins
from tollkeeper.audit.classifiers.regressor import Fitting, Regressor, Rows
from tollkeeper.audit.multiplicity import harmonic_mean
from tollkeeper.audit.two_sample import SMALLEST
from tollkeeper.errors import AuditRefused

Layout = Literal["pictures", "released"]


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """What distances are standardized by.

    Attributes:
        mean: (3,) of each norm.
        spread: (3,) standard deviations.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> Standard:
        """Return that of (n, s, 3) distances.

        Raises:
            AuditRefused: the distances of a norm are all the same.
        """
        spread = distances.std(axis=(0, 1), ddof=1)
        if not (spread > 0).all():
            raise AuditRefused("all margins are the same; does the suspect answer with a constant?")
        return cls(distances.mean(axis=(0, 1)), spread)

    def __call__(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, s, 3) standardized distances."""
        return np.asarray((distances - self.mean) / self.spread)


def laid_out(distances: NDArray[np.float64], rows: Layout) -> Rows:
    """Return (n, 3 s) rows of (n, s, 3) distances: one a picture, or mixed as in the notebooks."""
    turned = distances if rows == "pictures" else distances.transpose(2, 1, 0)
    return turned.reshape(len(distances), -1)


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What the published test says of one suspect.

    Attributes:
        effect: mean score of public rows less that of private rows, in [-2, 2].
        harmonic: harmonic mean of the p-values, as in table 1.
        p_all: of one test of all rows that are held back.
    """

    effect: float
    harmonic: float
    p_all: float


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A regressor with what its features are standardized by."""

    regressor: Regressor
    standard: Standard


@dataclass(frozen=True, slots=True)
class AsPublished:
    """The published test.

    Attributes:
        rows: what a row is.
        m: rows of each side in one test.
        draws: tests that are combined.
        fitting: of the regressor.
    """

    rows: Layout = "released"
    m: int = 10
    draws: int = 100
    fitting: Fitting = field(default_factory=Fitting)

    def fit(self, private: Margins, public: Margins, *, rng: np.random.Generator) -> Fitted:
        """Fit on the first half of the victim's rows of each side.

        Args:
            private: (n, s, 3) of pictures it was trained on.
            public: of as many that were held out.
            rng: of the start of the fit.

        Raises:
            AuditRefused: too few rows, or margins that are all the same.
        """
        standard = Standard.of(private.distances)
        sides = [self._rows(standard, side)[: _half(side)] for side in (private, public)]
        return Fitted(self.fitting(sides[0], sides[1], rng=rng), standard)

    def test(
        self, fitted: Fitted, private: Margins, public: Margins, *, rng: np.random.Generator
    ) -> Published:
        """Test a suspect on the second half of its rows.

        Args:
            fitted: on the victim's margins of the same pictures.
            private: the suspect's.
            public: the suspect's.
            rng: of the draws of m rows.

        Raises:
            AuditRefused: fewer than m rows are held back.
        """
        one, two = (
            fitted.regressor(self._rows(fitted.standard, side)[_half(side) :])
            for side in (private, public)
        )
        count = min(len(one), len(two))
        if count < self.m or self.m < 2:
            raise AuditRefused(f"expected at least {max(2, self.m)} rows to test, got {count}")
        # The released code takes the same rows of both sides.
        at = np.stack([rng.permutation(count)[: self.m] for _ in range(self.draws)])
        return Published(
            effect=float((two[at].mean(axis=1) - one[at].mean(axis=1)).mean()),
            harmonic=harmonic_mean(one_sided(two[at], one[at])),
            p_all=float(one_sided(two[None, :], one[None, :])[0]),
        )

    def _rows(self, standard: Standard, side: Margins) -> Rows:
        return laid_out(standard(side.distances), self.rows)


def _half(side: Margins) -> int:
    return len(side.distances) // 2


def one_sided(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (k,) p-values of Welch's test that row means of (k, n) a are above those of (k, m) b.

    Rows that do not vary at all have 1, .5 or almost 0, as their means say.
    """
    of_a, of_b = a.var(axis=1, ddof=1) / a.shape[1], b.var(axis=1, ddof=1) / b.shape[1]
    total = np.maximum(of_a + of_b, np.finfo(np.float64).tiny)
    parts = of_a**2 / (a.shape[1] - 1) + of_b**2 / (b.shape[1] - 1)
    freedom = np.divide(total**2, parts, out=np.ones_like(total), where=parts > 0)
    t = (a.mean(axis=1) - b.mean(axis=1)) / np.sqrt(total)
    return np.asarray(np.clip(special.stdtr(freedom, -t), SMALLEST, 1))
