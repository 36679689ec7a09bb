"""Does a suspect answer the audit as it answers others: repeats, and answers from before.

A suspect may see through an audit and answer from another model, add noise, or round. It cannot
make a test accuse anybody (answers that know less of the owner's data show less of it), so all
this costs power and never validity. But what was not answered by the accused model says nothing
about it, and that has to be told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import AuditRefused
from tollkeeper.types import Embeddings

ROUNDING = 1e-3
"""Relative change that another batch size or machine can make, in half precision too."""

LEAST = 20
"""Inputs without which nothing is said."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How answers to the same inputs differ.

    Attributes:
        inputs: how many were compared.
        changed: share whose change is above `ROUNDING`.
        median: change of an answer over its length.
        largest: the same of the answer that changed most.
    """

    inputs: int
    changed: float
    median: float
    largest: float


def drift(before: Embeddings, now: Embeddings) -> Drift:
    """Compare answers to the same inputs.

    Args:
        before: (n, d).
        now: (n, d).

    Raises:
        AuditRefused: other shapes, which is another model; or too few inputs.
    """
    if before.ndim != 2 or before.shape != now.shape:
        raise AuditRefused(
            f"answers to the same inputs had shape {before.shape} and have {now.shape}; it is "
            "another model"
        )
    if len(before) < LEAST:
        raise AuditRefused(f"expected at least {LEAST} inputs to compare, got {len(before)}")
    moved = _moved(before, now)
    return Drift(
        inputs=len(before),
        changed=float(np.mean(moved > ROUNDING)),
        median=float(np.median(moved)),
        largest=float(moved.max()),
    )


def _moved(before: Embeddings, now: Embeddings) -> NDArray[np.float64]:
    """Return (n,) changes over lengths; an answer of NaN has changed without bound."""
    one, other = before.astype(np.float64), now.astype(np.float64)
    length = np.maximum(np.linalg.norm(one, axis=1), np.finfo(np.float64).tiny)
    moved = np.linalg.norm(other - one, axis=1) / length
    return np.asarray(np.nan_to_num(moved, nan=np.inf, posinf=np.inf))


def check_same_model(before: Embeddings, now: Embeddings, *, repeats: Drift) -> Drift:
    """Refuse answers that are not those of the model that was accused.

    Args:
        before: (n, d) answers that the suspect gave others before the audit, kept by them.
        now: (n, d) its answers to the same inputs, among those of the audit.
        repeats: drift of inputs that were asked twice in the audit: its own noise.

    Returns:
        The drift since then.

    Raises:
        AuditRefused: answers changed by more than twice what repeats do, and more than rounding.
    """
    found = drift(before, now)
    allowed = max(2 * repeats.median, ROUNDING)
    if not found.median <= allowed:
        raise AuditRefused(
            f"answers to {found.inputs} inputs of before the audit have changed by {found.median:.2g} "
            f"of their length, repeats by {repeats.median:.2g}: another model answers, and the "
            "audit says nothing about the one that was accused"
        )
    return found
