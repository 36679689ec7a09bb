"""How alike an encoder finds views of one image: the statistic of our dataset inference.

A contrastive encoder maps views of an image that it was trained on closer together than views of
one it never saw, and a copy inherits some of that. Sources: Liu et al., "EncoderMI", CCS 2021 (the
cue); method spec, section 4 (statistic, modes and calibration).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.errors import AuditRefused
from tollkeeper.types import Embeddings, Scores

Mode = Literal["raw", "std", "white"]
"""What is undone before views are compared.

- raw: nothing. Scores do not change under permutation, rotation, zero padding and positive scaling
  of outputs.
- std: scale and offset of each dimension too, and padding with constants.
- white: any invertible affine map, at some loss of power.
"""

MODES: tuple[Mode, ...] = ("std", "raw", "white")
"""The primary mode first."""

_ROUNDING = 1e-6
"""A dimension that varies by less, relative to its mean, is constant up to float32."""

_FLAT = 1e-7
"""Directions with less than this share of the largest variance are dropped."""

_CHUNK = 1 << 23
"""Numbers worked on at a time, 32 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The coordinates in which views are compared.

    Attributes:
        mode: how it was fitted.
        mean: (d,) float32 taken off; None in mode raw.
        scale: (d,) float32 multiplied by, 0 for dropped dimensions, or (d, q) float32 whitening
            matrix; None in mode raw.
    """

    mode: Mode
    mean: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None

    @classmethod
    def fit(cls, reference: Embeddings, mode: Mode) -> Self:
        """Return the frame of (m, d) embeddings of a public reference batch.

        Raises:
            AuditRefused: too few rows for the mode, NaN, or embeddings without variation.
        """
        rows, width = _checked_reference(reference, mode)
        if mode == "raw":
            return cls(mode)
        mean = reference.mean(axis=0, dtype=np.float64)
        if mode == "std":
            return cls(mode, mean.astype(np.float32), _inverse_deviation(reference, mean))
        if rows < 2 * width:
            raise AuditRefused(
                f"mode white needs twice as many reference images as dimensions, got {rows} for "
                f"{width}; give more public images or use mode std"
            )
        return cls(mode, mean.astype(np.float32), _whitening(reference, mean))

    def apply(self, embeddings: Embeddings) -> Embeddings:
        """Return (n, q) coordinates of (n, d) embeddings."""
        if self.mean is None or self.scale is None:
            return embeddings
        if embeddings.shape[-1] != len(self.mean):
            raise AuditRefused(
                f"expected embeddings of width {len(self.mean)}, got {embeddings.shape[-1]}; was "
                "the suspect swapped?"
            )
        centered: Embeddings = embeddings - self.mean
        if self.scale.ndim == 2:
            return centered @ self.scale
        centered *= self.scale
        return centered


def _checked_reference(reference: Embeddings, mode: Mode) -> tuple[int, int]:
    if mode not in MODES:
        raise AuditRefused(f"expected a mode of {', '.join(MODES)}, got {mode!r}")
    if reference.ndim != 2 or len(reference) < 2:
        raise AuditRefused(f"expected two or more reference rows (m, d), got {reference.shape}")
    if not np.isfinite(reference).all():
        raise AuditRefused("reference embeddings hold NaN or infinity")
    return len(reference), reference.shape[1]


def _inverse_deviation(reference: Embeddings, mean: Scores) -> NDArray[np.float32]:
    # In pieces: the squares of a large batch in float64 would need twice its memory.
    total = np.zeros(len(mean))
    for part in _pieces(reference):
        total += np.square(part - mean).sum(axis=0)
    deviation = np.sqrt(total / (len(reference) - 1))
    kept = (deviation > _ROUNDING * np.abs(mean)) & (deviation > _FLAT * deviation.max())
    if not kept.any():
        raise AuditRefused("the suspect gives every reference image the same embedding")
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=kept)
    # float32 has no room for the inverse of a tiny deviation; only their ratios matter.
    found: NDArray[np.float32] = (inverse / inverse.max()).astype(np.float32)
    return found


def _whitening(reference: Embeddings, mean: Scores) -> NDArray[np.float32]:
    covariance = np.zeros((len(mean), len(mean)))
    for part in _pieces(reference):
        centered = part - mean
        covariance += centered.T @ centered
    values, vectors = np.linalg.eigh(covariance / (len(reference) - 1))
    kept = values > _FLAT * values[-1]
    if values[-1] <= 0 or not kept.any():
        raise AuditRefused("the suspect gives every reference image the same embedding")
    matrix = vectors[:, kept] * np.sqrt(values[-1] / values[kept])
    found: NDArray[np.float32] = matrix.astype(np.float32)
    return found


def _pieces(rows: Embeddings) -> list[Embeddings]:
    return np.array_split(rows, max(1, rows.size // _CHUNK))


def agreement(views: Embeddings, frame: Frame) -> Scores:
    """Return (n,) A(x) = (||sum_k z_k||^2 - K) / (K (K - 1)), the mean cosine of pairs of views.

    Args:
        views: (n, K, d) embeddings of K >= 2 views of n images.
        frame: in which they are compared; z_k are its coordinates at length 1.

    Raises:
        AuditRefused: one view only, NaN, or a view of length 0.
    """
    if views.ndim != 3 or views.shape[1] < 2:
        raise AuditRefused(f"expected embeddings (n, K, d) of K >= 2 views, got {views.shape}")
    n, k, d = views.shape
    scores = np.empty(n)
    step = max(1, _CHUNK // (k * d))
    for at in range(0, n, step):
        part = views[at : at + step]
        # A view at a time: each is a slice that is read once, and nothing of size (n, K, d) is made
        total: Embeddings | None = None
        for view in range(k):
            z = frame.apply(part[:, view])
            length = np.sqrt(np.einsum("nd,nd->n", z, z))
            if not (np.isfinite(length) & (length > 0)).all():
                raise AuditRefused(
                    "an embedding is zero, NaN or too large to have a direction; a suspect that "
                    "answers so cannot be compared"
                )
            z = z / length[:, np.newaxis]
            total = z if total is None else np.add(total, z, out=total)
        assert total is not None
        square = np.einsum("nd,nd->n", total, total, dtype=np.float64)
        scores[at : at + step] = (square - k) / (k * (k - 1))
    return scores


def consistency(views: Embeddings, reference: Embeddings, mode: Mode = "std") -> Scores:
    """Return (n,) consistency scores, larger for images trained on.

    Args:
        views: (n, K, d) embeddings of K views of n images.
        reference: (m, d) the same encoder's embeddings of public images.
        mode: what is undone first.

    Raises:
        AuditRefused: bad shapes, NaN, zero rows, or too few reference rows.
    """
    return agreement(views, Frame.fit(reference, mode))


def standardized(scores: ArrayLike) -> Scores:
    """Return scores (..., n) with mean 0 and standard deviation 1 along the last axis.

    Raises:
        AuditRefused: NaN, or scores without variation.
    """
    array = np.asarray(scores, np.float64)
    if not np.isfinite(array).all():
        raise AuditRefused("scores hold NaN or infinity")
    centered = array - array.mean(axis=-1, keepdims=True)
    deviation = centered.std(axis=-1, keepdims=True)
    if array.shape[-1] == 0 or not (deviation > 0).all():
        raise AuditRefused("all scores of an encoder are the same; it answers with constants")
    found: Scores = centered / deviation
    return found


def calibrate(scores: ArrayLike, references: ArrayLike) -> tuple[Scores, float]:
    """Take off what independent encoders find too: how hard each image is.

    Args:
        scores: (n,) of the suspect, over both sides together.
        references: (M, n) of encoders that were trained on neither side.

    Returns:
        (n,) residuals r = A_s - beta ref of standardized scores, ref their mean over references;
        and beta, the slope of A_s on ref over the pooled rows.

    Raises:
        AuditRefused: no references, other images, NaN, or scores without variation.

    References:
        Method spec, section 4.3.
    """
    others = np.atleast_2d(np.asarray(references, np.float64))
    own = np.asarray(scores, np.float64)
    if own.ndim != 1 or others.ndim != 2 or not len(others) or others.shape[1] != own.size:
        raise AuditRefused(
            f"expected (M, n) reference scores of the suspect's n images, got {others.shape} for "
            f"{own.shape}"
        )
    own, mean = standardized(own), standardized(others).mean(axis=0)
    # Both have mean 0.
    beta = float(own @ mean) / float(mean @ mean)
    return own - beta * mean, beta
