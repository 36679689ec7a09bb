"""Dataset inference of encoders by the density of a Gaussian mixture: the published baseline.

A density is fitted to a suspect's embeddings of one part of the owner's training data; the other
part should then be more likely than held-out data. Source: Dziedzic et al., "Dataset Inference for
Self-Supervised Models", NeurIPS 2022, section 3.

Notes:
    What the paper calls an effect size is a t statistic and grows with the sample (method spec,
    section 3.4); d is given here. Its released script halves a two-sided p-value whatever the
    sign, pools variances, leaves rows of zeros in the fit if fewer samples come than its arrays
    hold, draws no seed, checks no overlap, and differs from the paper in most settings; its
    settings are `RELEASED`, its p-value is `halved_p`, its zero rows are refused.
    A victim on small images can be *less* likely to be found than an innocent encoder (method
    spec, section 11.2), so the test speaks only where it finds the victim.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import gates
from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.split import embed_all
from tollkeeper.audit.two_sample import TwoSample, bayes_bound, t_tail, two_sample
from tollkeeper.audit.views import Pictures, check_pictures
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Embeddings, Scores

_CHUNK = 4096
"""Rows worked on at a time."""

_LARGEST_SEED = 2**31
_PER_DIMENSION = 50
_TINY = 1e-12
_FLAT = 1e-6


@dataclass(frozen=True, slots=True)
class MixtureRecipe:
    """How the density is fitted.

    Attributes:
        components: of the mixture.
        covariance: of each: a full matrix, or a diagonal one.
        standardize: whether each dimension gets mean 0 and deviation 1 on the fitted rows first.
        normalize: whether each row then gets length 1.
        reduce: at most so many principal components of the fitted rows are kept, and whitened;
            never more than a fiftieth of the rows. None keeps all dimensions.
        regularization: added to variances.
        iterations: of EM at most.
        seeds: fits whose log-likelihoods are averaged for each sample.
    """

    components: int = 10
    covariance: Literal["full", "diag"] = "full"
    standardize: bool = True
    normalize: bool = False
    reduce: int | None = 64
    regularization: float = 1e-4
    iterations: int = 100
    seeds: int = 5


CORRECTED = MixtureRecipe()
"""Of the method spec, section 3.6."""

PAPER = MixtureRecipe(standardize=False, normalize=True, reduce=None, regularization=1e-6, seeds=1)
"""The paper's for CIFAR10 and SVHN: 10 full components on rows of length 1."""

PAPER_WIDE = MixtureRecipe(
    components=50, covariance="diag", normalize=True, reduce=None, regularization=1e-6, seeds=1
)
"""The paper's for ImageNet: 50 diagonal components, standardized, then rows of length 1."""

RELEASED = MixtureRecipe(
    components=20,
    covariance="diag",
    standardize=False,
    normalize=True,
    reduce=None,
    regularization=1e-6,
    iterations=1000,
    seeds=1,
)
"""The released script's. Its random crops of all three sets are the caller's to make."""


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """What is done to rows before a density sees them, fitted on the rows of the fit.

    Attributes:
        mean: (d,) taken off, or None.
        matrix: (d,) factors or a (d, q) projection, or None.
        normalize: whether rows get length 1 at the end.
    """

    mean: NDArray[np.float32] | None
    matrix: NDArray[np.float32] | None
    normalize: bool

    @classmethod
    def fit(cls, rows: Embeddings, recipe: MixtureRecipe) -> Preparation:
        """Fit to (n, d) rows."""
        if not recipe.standardize and recipe.reduce is None:
            return cls(None, None, recipe.normalize)
        mean = rows.mean(axis=0, dtype=np.float64)
        factors = np.ones_like(mean)
        if recipe.standardize:
            square = sum(np.square(part - mean).sum(axis=0) for part in _parts(rows))
            factors = _inverse(np.sqrt(square / len(rows)))
        matrix = factors if recipe.reduce is None else _principal(rows, mean, factors, recipe)
        return cls(mean.astype(np.float32), matrix.astype(np.float32), recipe.normalize)

    def apply(self, rows: Embeddings) -> Embeddings:
        """Return (n, q) rows as the density sees them."""
        found = rows
        if self.mean is not None and self.matrix is not None:
            found = rows - self.mean
            found = found @ self.matrix if self.matrix.ndim == 2 else found * self.matrix
        if self.normalize:
            length = np.linalg.norm(found, axis=1, keepdims=True)
            found = found / np.maximum(length, _TINY)
        return found


def _inverse(deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / deviation, and 0 for dimensions that do not vary."""
    varies = deviation > _FLAT * deviation.max()
    if not varies.any():
        raise AuditRefused("the suspect gives every input of the fit the same embedding")
    return np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)


def _principal(
    rows: Embeddings,
    mean: NDArray[np.float64],
    factors: NDArray[np.float64],
    recipe: MixtureRecipe,
) -> NDArray[np.float64]:
    """Return (d, q) from centered rows to whitened principal components."""
    from scipy.linalg import eigh

    width = len(mean)
    kept = min(recipe.reduce or width, max(1, len(rows) // _PER_DIMENSION), width)
    center, scale = mean.astype(np.float32), factors.astype(np.float32)
    covariance = np.zeros((width, width))
    for part in _parts(rows):
        centered = (part - center) * scale
        covariance += centered.T @ centered
    covariance /= len(rows)
    values, vectors = eigh(covariance, subset_by_index=(width - kept, width - 1))
    varies = values > _FLAT * values[-1]
    projection: NDArray[np.float64] = vectors[:, varies] / np.sqrt(values[varies])
    return factors[:, np.newaxis] * projection


def _parts(rows: Embeddings) -> Iterator[Embeddings]:
    return (rows[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK))


def gmm_scores(
    fitted: Embeddings,
    trained: Embeddings,
    held: Embeddings,
    *,
    recipe: MixtureRecipe = CORRECTED,
    rng: np.random.Generator,
) -> tuple[Scores, Scores]:
    """Return log-likelihoods of trained and of held rows under a density of the fitted ones.

    Args:
        fitted: (n_fit, d) embeddings of training data, D_P2.
        trained: (n_1, d) of other training data, D_P1.
        held: (n_N, d) of held-out data, D_N.
        recipe: of the density.
        rng: draws the seeds of the fits.

    Raises:
        AuditRefused: zero rows, NaN, different widths, or fewer rows than components.
    """
    width = fitted.shape[-1]
    for rows in (fitted, trained, held):
        gates.check_embeddings(rows, rows=len(rows), width=width, who="mixture")
    gates.check_samples(len(fitted), least=2 * recipe.components, what="rows to fit a mixture")
    preparation = Preparation.fit(fitted, recipe)
    prepared = np.concatenate([preparation.apply(part) for part in _parts(fitted)])
    # Narrow rows are worth exact arithmetic; wide ones would take all memory.
    exact = recipe.reduce is not None
    prepared = prepared.astype(np.float64) if exact else prepared
    seeds = rng.integers(_LARGEST_SEED, size=recipe.seeds).tolist()
    models = [_fit(prepared, recipe, seed) for seed in seeds]
    first, second = (_likelihoods(models, preparation, rows) for rows in (trained, held))
    return first, second


def _likelihoods(models: Sequence[Any], preparation: Preparation, rows: Embeddings) -> Scores:
    """Return (n,) log-likelihoods of rows, mean over densities."""
    found: list[Scores] = []
    for part in _parts(rows):
        prepared = preparation.apply(part)
        found.append(np.mean([model.score_samples(prepared) for model in models], axis=0))
    return np.concatenate(found)


def _fit(rows: Embeddings, recipe: MixtureRecipe, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(
        recipe.components,
        covariance_type=recipe.covariance,
        reg_covar=recipe.regularization,
        max_iter=recipe.iterations,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # A mixture that has not settled is a density too; which one matters little here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows)


def halved_p(a: Scores, b: Scores) -> float:
    """Return half the two-sided pooled-variance p-value, which is NOT a p-value.

    The released script takes it whatever the sign: an encoder that finds its training data *less*
    likely gets as small a number as a copy.
    """
    degrees = a.size + b.size - 2
    square = a.var(ddof=1) * (a.size - 1) + b.var(ddof=1) * (b.size - 1)
    t = float(a.mean() - b.mean()) / math.sqrt(square / degrees * (1 / a.size + 1 / b.size))
    return t_tail(abs(t), degrees)


@dataclass(frozen=True, slots=True, eq=False)
class MixtureEvidence:
    """Data of the owner in three disjoint parts.

    Attributes:
        fitting: (n_fit, ...) training images that densities are fitted on, D_P2.
        trained: (n_1, ...) other training images, D_P1.
        held: (n_N, ...) held-out images of the same source, D_N.
        control: p-value of the victim in the same test; None where it was not run.
    """

    fitting: Pictures
    trained: Pictures
    held: Pictures
    control: float | None = None

    def check(self, *, least: int = gates.LEAST) -> None:
        """Refuse parts that cannot be compared.

        Raises:
            AuditRefused: too few images, images in two parts, or parts prepared differently.
        """
        parts = {"fitting": self.fitting, "trained": self.trained, "held": self.held}
        for name, images in parts.items():
            check_pictures(images)
            gates.check_samples(len(images), least=least, what=f"{name} images")
            gates.check_distinct(images, name)
        for first, second in (("fitting", "trained"), ("trained", "held"), ("fitting", "held")):
            names = (first, second)
            gates.check_preprocessing(parts[first], parts[second], names=names)
            gates.check_disjoint(parts[first], parts[second], names=names)


@dataclass(frozen=True, slots=True)
class MixtureInference:
    """Published dataset inference behind a gate: it must find the victim before it may speak.

    Valid if training images that were not fitted on and held-out images are exchangeable to an
    innocent suspect, for one split: where all suspects share it they share its chance imbalance
    (method spec, section 10.1), which is why this is a baseline and not the decision.

    Attributes:
        recipe: of the density.
        alpha: at which the victim must be found.
        least: images of each part.
        name: of the test.
    """

    recipe: MixtureRecipe = CORRECTED
    alpha: float = gates.ALPHA
    least: int = gates.LEAST
    name: str = field(default="mixture-inference", init=False)

    def measure(
        self, encoder: Encoder, evidence: MixtureEvidence, *, rng: np.random.Generator
    ) -> tuple[Scores, Scores]:
        """Return an encoder's log-likelihoods of trained and of held images, without the gate."""
        embedded = [
            embed_all(encoder, part) for part in (evidence.fitting, evidence.trained, evidence.held)
        ]
        return gmm_scores(*embedded, recipe=self.recipe, rng=rng)

    def control(
        self, victim: Encoder, evidence: MixtureEvidence, *, rng: np.random.Generator
    ) -> float:
        """Return the victim's p-value, to be kept in the evidence."""
        return two_sample(*self.measure(victim, evidence, rng=rng), rng=rng).p_welch

    def run(
        self, suspect: Encoder, evidence: MixtureEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect and compare likelihoods; see `OwnershipTest.run`."""
        evidence.check(least=self.least)
        gates.check_control(evidence.control, alpha=self.alpha)
        trained, held = self.measure(suspect, evidence, rng=rng)
        found = two_sample(trained, held, rng=rng)
        return _result(self.name, found, halved_p(trained, held))


def _result(name: str, found: TwoSample, halved: float) -> OwnershipResult:
    return OwnershipResult(
        test=name,
        null="data",
        statistic=found.t,
        p_value=found.p_perm,
        effect_size=found.d,
        interval=found.ci,
        null_distribution=np.empty(0),
        alternative="training data of the owner is likelier to this encoder than held-out data",
        details={
            "df": found.df,
            "auc": found.auc,
            "p_welch": found.p_welch,
            "p_halved": halved,
            "bayes_bound": bayes_bound(found.p_perm),
        },
    )
