"""How alike two encoders are on public inputs: the weakest evidence, read against independents.

An honest encoder of the same data and size is 94% predictable from another one's embeddings (method
spec, section 9.3), so no score has a cut-off of its own: each is a z-score against at least twenty
independents of matched data, size and recipe. Only the coordinate cosine is at chance for all of
those, whatever they were trained on, and it is the first that a thief's permutation destroys.

The mutual-information score of the literature is in `tollkeeper.audit.mutual_information`, with
the reason why it is no evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.base import OwnershipResult
from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch

Points = NDArray[np.floating[Any]]
"""Embeddings in any precision."""

Rows = NDArray[np.float64]

KEPT = 0.99
"""Share of the variance that SVCCA keeps (Raghu et al. 2017)."""

STRENGTH = 1e-2
"""Of the ridge, as a share of the mean variance of a coordinate."""

NEIGHBORS = 10

LEAST_INDEPENDENTS = 20
"""Without so many a standard deviation, and with it a z-score, is not worth quoting."""

_CHUNK = 1 << 22


def coordinate_cosine(a: Points, b: Points) -> float:
    """Return mean_i |cos(a_i, b_i)|, coordinates centered; about sqrt(2 / (pi d)) by chance.

    Args:
        a: (n, d).
        b: (n, d), of the same inputs.

    Raises:
        AuditRefused: other inputs or another width, NaN, or a constant encoder.

    References:
        Dziedzic et al., "Dataset Inference for Self-Supervised Models", NeurIPS 2022, section 5.

    Notes: the released script centers each row over its coordinates instead of each coordinate
    over the rows as the paper says, and returns the signed mean. The paper's second score, by
    distances of unit vectors, is a function of this one and left out.
    """
    one, two = _pair(a, b)
    if one.shape != two.shape:
        raise AuditRefused(
            f"coordinates can only be compared at one width, got {one.shape[1]} and "
            f"{two.shape[1]}; use another score"
        )
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(np.mean(np.abs((one * two).sum(axis=1)) / np.maximum(lengths, _TINY)))


def ridge_r2(a: Points, b: Points, *, strength: float = STRENGTH) -> float:
    """Return the share of b's variance that a linear map of a explains on the other half of inputs.

    Each half is predicted by a map fitted on the other, and the shares are averaged.

    Args:
        a: (n, d1) the suspect's.
        b: (n, d2) the victim's.
        strength: of the ridge, times the mean variance of a's coordinates.

    Raises:
        AuditRefused: other inputs, NaN, or a constant encoder.
    """
    one, two = _pair(a, b)
    halves = (slice(0, None, 2), slice(1, None, 2))
    return float(
        np.mean([_explained(one, two, fit, held, strength) for fit, held in (halves, halves[::-1])])
    )


def linear_cka(a: Points, b: Points) -> float:
    """Return ||A^T B||^2 / (||A^T A|| ||B^T B||), Frobenius norms of centered embeddings.

    References:
        Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019.
    """
    one, two = _pair(a, b)
    across = np.square(one.T @ two).sum()
    return float(across / (np.linalg.norm(one.T @ one) * np.linalg.norm(two.T @ two)))


def svcca(a: Points, b: Points, *, kept: float = KEPT) -> float:
    """Return the mean canonical correlation of the leading directions.

    Args:
        a: (n, d1).
        b: (n, d2), of the same inputs.
        kept: share of either side's variance that its directions hold.

    References:
        Raghu et al., "SVCCA", NeurIPS 2017.
    """
    one, two = (_leading(rows, kept) for rows in _pair(a, b))
    correlations = np.linalg.svd(one.T @ two, compute_uv=False)
    return float(np.clip(correlations, 0, 1).mean())


def procrustes(a: Points, b: Points) -> float:
    """Return the nuclear norm of A^T B, centered and of unit Frobenius norm.

    It is 1 exactly if one is the other rotated, mirrored, scaled and shifted.
    """
    one, two = (rows / np.linalg.norm(rows) for rows in _pair(a, b))
    return float(np.linalg.svd(one.T @ two, compute_uv=False).sum())


def knn_overlap(a: Points, b: Points, *, neighbors: int = NEIGHBORS) -> float:
    """Return the share of each input's nearest others, by cosine, that both encoders name.

    Raises:
        AuditRefused: not more inputs than neighbors, other inputs, or NaN.
    """
    one, two = _pair(a, b)
    if len(one) <= neighbors:
        raise AuditRefused(f"expected more than {neighbors} inputs, got {len(one)}")
    first, second = (_nearest(_unit(rows), neighbors) for rows in (one, two))
    shared = (first[:, :, None] == second[:, None, :]).any(axis=2)
    return float(shared.mean())


SCORES: Mapping[str, Callable[[Points, Points], float]] = {
    "cosine": coordinate_cosine,
    "r2": ridge_r2,
    "cka": linear_cka,
    "svcca": svcca,
    "procrustes": procrustes,
    "knn": knn_overlap,
}
"""Every score by name, of the suspect's and the victim's embeddings; larger is more alike."""


def similarity(suspect: Points, victim: Points) -> dict[str, float]:
    """Return every score by name; without `cosine` where the widths differ.

    Args:
        suspect: (n, d1) embeddings of public inputs, 2,000 or more.
        victim: (n, d2), of the same inputs.

    Raises:
        AuditRefused: other inputs, NaN, or a constant encoder.
    """
    same = np.shape(suspect) == np.shape(victim)
    names = [name for name in SCORES if same or name != "cosine"]
    return {name: SCORES[name](suspect, victim) for name in names}


@dataclass(frozen=True, slots=True)
class Against:
    """A score among those of independents.

    Attributes:
        z: (score - mean) / standard deviation over the independents.
        p_rank: (1 + #{independents at least as high}) / (K + 1); exact where the suspect is one
            more draw of the same population.
        p_t: of Student's t with K - 1 degrees of freedom; assumes normal scores.
        interval: 99% of z, for the error of mean and deviation.
    """

    z: float
    p_rank: float
    p_t: float
    interval: tuple[float, float]


def against(
    score: float, independents: Sequence[float], *, least: int = LEAST_INDEPENDENTS
) -> Against:
    """Read a score against K independents of matched data, size and recipe.

    Args:
        score: of the suspect.
        independents: (K,) of encoders that never met the victim.
        least: K below which nothing is quoted.

    Raises:
        AuditRefused: too few independents, not finite, or all of one score.
    """
    from scipy.special import stdtr

    others = np.asarray(independents, np.float64)
    if len(others) < max(2, least):
        raise AuditRefused(
            f"expected at least {max(2, least)} independents to quote a z-score, got {len(others)}"
        )
    if not (np.isfinite(others).all() and np.isfinite(score)):
        raise AuditRefused("similarity scores hold NaN or infinity")
    count, spread = len(others), float(others.std(ddof=1))
    if spread < _TINY:
        raise AuditRefused("the independents all have one score; were they one encoder?")
    z = float((score - others.mean()) / spread)
    half = _Z_99 * float(np.sqrt(1 / count + z**2 / (2 * (count - 1))))
    t = z / float(np.sqrt(1 + 1 / count))
    return Against(
        z,
        p_rank=float((1 + (others >= score).sum()) / (count + 1)),
        p_t=max(float(stdtr(count - 1, -t)), _TINY),
        interval=(z - half, z + half),
    )


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityEvidence:
    """What the owner brings.

    Attributes:
        inputs: n public inputs that no encoder was trained on.
        victim: (n, d) its embeddings of them.
        independents: K embeddings (n, d_k) of matched encoders.
    """

    inputs: Batch
    victim: Points
    independents: Sequence[Points]


@dataclass(frozen=True, slots=True)
class SimilarityTest:
    """Is the suspect closer to the victim than every matched independent?

    The p-value is the suspect's rank, so with K independents it is never below 1 / (K + 1), and
    similarity alone never reaches the level of an accusation with fewer than 999 of them.

    Attributes:
        score: the one score tested, chosen beforehand: a name of `SCORES`.
    """

    score: str = "r2"
    name: ClassVar[str] = "similarity"

    def __post_init__(self) -> None:
        """Refuse an unknown score."""
        if self.score not in SCORES:
            raise AuditRefused(f"expected a score of {', '.join(SCORES)}, got {self.score!r}")

    def run(
        self, suspect: Encoder, evidence: SimilarityEvidence, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect for all inputs and compare.

        Raises:
            AuditRefused: too few independents, NaN, constant encoders, or a width that the score
                cannot bridge.
        """
        del rng  # nothing is drawn
        asked = checked(suspect.embed(evidence.inputs), n=len(evidence.inputs), dim=suspect.dim)
        compare = SCORES[self.score]
        found = compare(asked, evidence.victim)
        others = [compare(rows, evidence.victim) for rows in evidence.independents]
        read = against(found, others)
        return OwnershipResult(
            test=f"{self.name}.{self.score}",
            null="similarity",
            statistic=found,
            p_value=read.p_rank,
            effect_size=read.z,
            interval=read.interval,
            null_distribution=np.asarray(others),
            alternative="the suspect is closer to the victim than independents are",
            details={"p_t": read.p_t, "independents": float(len(others))},
        )


_Z_99 = 2.5758293035489004
_TINY = 1e-300
_ROUNDING = 1e-7
"""Share of the largest value below which a difference is rounding of float32."""


def _pair(a: Points, b: Points) -> tuple[Rows, Rows]:
    """Return both in float64, each coordinate centered over the inputs."""
    one, two = (np.asarray(rows, np.float64) for rows in (a, b))
    if one.ndim != 2 or two.ndim != 2 or len(one) != len(two) or len(one) < 4:
        raise AuditRefused(
            f"expected embeddings (n, d) of the same four or more inputs, got {one.shape} and "
            f"{two.shape}"
        )
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise AuditRefused("embeddings hold NaN or infinity")
    return _centered(one), _centered(two)


def _centered(rows: Rows) -> Rows:
    found: Rows = rows - rows.mean(axis=0)
    if np.abs(found).max() <= _ROUNDING * np.abs(rows).max():
        raise AuditRefused("an encoder gives every input the same embedding")
    return found


def _explained(a: Rows, b: Rows, fit: slice, held: slice, strength: float) -> float:
    center_a, center_b = a[fit].mean(axis=0), b[fit].mean(axis=0)
    x, y = a[fit] - center_a, b[fit] - center_b
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += strength * np.trace(gram) / len(gram) + _TINY
    left = b[held] - center_b - (a[held] - center_a) @ np.linalg.solve(gram, x.T @ y)
    return float(1 - np.square(left).sum() / np.square(b[held] - center_b).sum())


def _leading(rows: Rows, kept: float) -> Rows:
    """Return an orthonormal basis (n, q) of the directions that hold `kept` of the variance."""
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    share = np.cumsum(values**2) / np.square(values).sum()
    count = int(np.searchsorted(share, kept)) + 1
    basis: Rows = left[:, :count]
    return basis


def _unit(rows: Rows) -> Rows:
    unit: Rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
    return unit


def _nearest(rows: Rows, count: int) -> NDArray[np.intp]:
    """Return the positions (n, count) of each row's nearest others, in no order."""
    step = max(1, _CHUNK // len(rows))
    found = []
    for at in range(0, len(rows), step):
        cosines = rows[at : at + step] @ rows.T
        own = np.arange(len(cosines))
        cosines[own, at + own] = -np.inf
        found.append(np.argpartition(cosines, -count, axis=1)[:, -count:])
    return np.concatenate(found)
