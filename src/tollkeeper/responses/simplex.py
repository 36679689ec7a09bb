"""What every response owes its caller: rows that are probabilities, and where promised a label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tollkeeper.types import Probabilities

_NUDGE = 1e-6
"""Of probability, given to a label that ties with another; float32 keeps it apart from zero."""


def normalized(weights: NDArray[np.float64]) -> Probabilities:
    """Return (n, k) weights as probabilities; what is below zero counts as zero.

    A row without any positive weight becomes its largest class alone.
    """
    kept = np.maximum(weights, 0.0)
    sums = kept.sum(axis=1, keepdims=True)
    lost = sums[:, 0] <= 0
    kept[lost] = one_hot(weights.argmax(axis=1), weights.shape[1])[lost]
    sums[lost] = 1.0
    found: Probabilities = (kept / sums).astype(np.float32)
    return found


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the probabilities of (n, k) finite logits."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return found


def one_hot(labels: NDArray[np.intp], classes: int) -> NDArray[np.float64]:
    """Return (n, k) rows that are 1 at their label and 0 elsewhere."""
    rows = np.zeros((len(labels), classes))
    rows[np.arange(len(labels)), labels] = 1.0
    return rows


def with_label(rows: Probabilities, labels: NDArray[np.intp]) -> Probabilities:
    """Return rows whose arg-max is `labels`; only rows that tie or round differently change.

    Args:
        rows: (n, k) in which the label is largest up to rounding.
        labels: (n,) that each row must have.
    """
    moved = rows.argmax(axis=1) != labels
    if moved.any():
        rows = rows.copy()
        wanted = one_hot(labels[moved], rows.shape[1])
        rows[moved] = (1 - _NUDGE) * rows[moved] + _NUDGE * wanted
    return rows
