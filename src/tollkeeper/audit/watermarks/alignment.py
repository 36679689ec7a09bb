"""Undoing a permutation or an affine map of a suspect's outputs before a mark is looked for.

A linear map is fitted from the suspect's embeddings of public inputs to known embeddings of the
same inputs. Whose embeddings those are decides which null holds afterwards:

- of the clean encoder, as it was before the mark was planted: the map depends on the suspect, on
  the inputs and on an encoder that was there before the key was drawn, hence not on the key. For a
  suspect that never met the marked encoder the planted key stays one of many, and decoy keys give
  an exact p-value.
- of the marked encoder: the map itself carries the mark. Decoys are no null any more; only other
  encoders, put through the same steps, are.

The inputs must not carry the mark (no rotated images, no triggers): a map that is fitted on marked
inputs writes the mark into an honest encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.dataset_inference import reference_p
from tollkeeper.audit.views import Pictures
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Embeddings

RIDGE = 1e-2
"""Share of the mean variance that is added to each variance."""


LEAST_INDEPENDENTS = 8
"""Encoders without which their spread is a guess (method spec, section 11.1)."""


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """Public images, and what one of the owner's encoders says of them.

    Attributes:
        images: (m, ...) ordinary ones, more than the suspect's width; 2,000 are usual.
        embeddings: (m, d).
        whose: `clean`, of the encoder before the mark was planted, committed before the key was
            drawn; or `marked`.
    """

    images: Pictures
    embeddings: Embeddings
    whose: Literal["clean", "marked"]


@dataclass(frozen=True, slots=True, eq=False)
class LinearMap:
    """A map of embeddings, (n, s) to (n, d).

    Attributes:
        weights: (s, d).
        center: (s,) subtracted before.
        offset: (d,) added after.
    """

    weights: NDArray[np.float32]
    center: NDArray[np.float32]
    offset: NDArray[np.float32]

    def __call__(self, rows: Embeddings) -> Embeddings:
        """Map rows.

        Raises:
            AuditRefused: of another width than those that it was fitted on.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.weights):
            raise AuditRefused(
                f"expected embeddings of width {len(self.weights)}, as the alignment was fitted "
                f"on, got {rows.shape}; was the suspect swapped?"
            )
        mapped: Embeddings = (rows - self.center) @ self.weights + self.offset
        return mapped


def ridge_align(source: Embeddings, target: Embeddings, *, ridge: float = RIDGE) -> LinearMap:
    """Return the ridge regression from one encoder's embeddings to another's.

    Args:
        source: (m, s) of the suspect.
        target: (m, d) of the same inputs; widths may differ.
        ridge: penalty, as a share of the mean variance of the source.

    Returns:
        The map with the least squared error plus penalty.

    Raises:
        AuditRefused: other numbers of rows, fewer rows than columns, NaN, or a constant source.
    """
    _require(source, target)
    center = source.mean(axis=0, dtype=np.float64)
    offset = target.mean(axis=0, dtype=np.float64)
    rows = source - center
    gram = rows.T @ rows
    scale = float(np.trace(gram)) / len(gram)
    if scale <= 0:
        raise AuditRefused("the suspect gives every input the same embedding; nothing to align")
    gram[np.diag_indices_from(gram)] += ridge * scale
    weights = np.linalg.solve(gram, rows.T @ (target - offset))
    return LinearMap(*(part.astype(np.float32) for part in (weights, center, offset)))


def _require(source: Embeddings, target: Embeddings) -> None:
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target):
        raise AuditRefused(
            f"expected embeddings of the same inputs, got {source.shape} and {target.shape}"
        )
    if len(source) <= source.shape[1]:
        raise AuditRefused(
            f"expected more inputs to align on than the suspect's width of {source.shape[1]}, "
            f"got {len(source)}; take 2,000 public inputs"
        )
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise AuditRefused("an embedding to align on is NaN or infinite")


def independents_p(value: float, others: Sequence[float]) -> float:
    """Return the chance that one more independent encoder shows at least this much of a mark.

    Student's distribution with K - 1 degrees for one draw beside K; valid if the suspect and the
    independents are alike in data, size and recipe, and their values normal.

    Args:
        value: statistic of the suspect.
        others: of K independents, put through the same steps.

    Raises:
        AuditRefused: fewer than 8, or all the same.
    """
    if len(others) < LEAST_INDEPENDENTS:
        raise AuditRefused(
            f"expected at least {LEAST_INDEPENDENTS} independent encoders as null, got "
            f"{len(others)}; align to the clean encoder to need none"
        )
    return reference_p(value, np.asarray(others, np.float64))
