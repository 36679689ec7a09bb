"""Tells from margins how private a picture looks: a small network, in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import AuditRefused

Rows = NDArray[np.float64]

LEAST = 20
"""Pictures of each side without which nothing is fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Regressor:
    """Scores from -1, like what was trained on, to 1, like what was held out.

    Attributes:
        first: (k, h) weights, the hidden units' offsets in the last of k + 1 rows.
        last: (h + 1,) weights and offset of the score.
        activation: of the hidden units.
    """

    first: Rows
    last: Rows
    activation: Literal["relu", "tanh"]

    def __call__(self, features: Rows) -> Rows:
        """Return (n,) scores of (n, k) standardized features."""
        return np.asarray(np.tanh(self.hidden(features) @ self.last[:-1] + self.last[-1]))

    def hidden(self, features: Rows) -> Rows:
        """Return (n, h) activations of the hidden units."""
        sums = features @ self.first[:-1] + self.first[-1]
        return np.asarray(np.maximum(sums, 0) if self.activation == "relu" else np.tanh(sums))


@dataclass(frozen=True, slots=True)
class Fitting:
    """How the regressor is fitted.

    Source: Maini et al., ICLR 2021, section 4.3, with the widths and rates of the released
    notebooks, whose hidden units are rectified; the paper's are tanh.

    Attributes:
        units: hidden ones.
        rate: of gradient descent on all rows.
        steps: of it.
        activation: of the hidden units.
    """

    units: int = 100
    rate: float = 0.1
    steps: int = 1000
    activation: Literal["relu", "tanh"] = "relu"

    def __call__(self, private: Rows, public: Rows, *, rng: np.random.Generator) -> Regressor:
        """Fit so that the mean score of public rows is large and of private rows small.

        Args:
            private: (n, k) standardized features of what was trained on.
            public: (m, k) of what was held out.
            rng: of the weights at the start.

        Raises:
            AuditRefused: fewer than `LEAST` rows of a side, other widths, or values not finite.
        """
        rows = _together(private, public)
        # The loss is minus the mean of (2 y - 1) g, y being 1 for public rows.
        signs = np.concatenate([np.full(len(private), -1.0), np.full(len(public), 1.0)])
        found = self._start(rows.shape[1], rng)
        for _ in range(self.steps):
            first, last = slopes(found, rows, signs)
            found = Regressor(
                found.first - self.rate * first, found.last - self.rate * last, self.activation
            )
        return found

    def _start(self, width: int, rng: np.random.Generator) -> Regressor:
        """Return weights uniform within one over the root of their number, as torch has them."""
        near, far = 1 / np.sqrt(width), 1 / np.sqrt(self.units)
        first = rng.uniform(-near, near, (width + 1, self.units))
        return Regressor(first, rng.uniform(-far, far, self.units + 1), self.activation)


def slopes(regressor: Regressor, rows: Rows, signs: Rows) -> tuple[Rows, Rows]:
    """Return the gradients of -mean(signs * scores) by both layers of weights."""
    hidden = regressor.hidden(rows)
    scores = np.tanh(hidden @ regressor.last[:-1] + regressor.last[-1])
    back = -signs * (1 - scores**2) / len(rows)
    last = np.append(back @ hidden, back.sum())
    bend = (hidden > 0) if regressor.activation == "relu" else 1 - hidden**2
    into = np.outer(back, regressor.last[:-1]) * bend
    return np.vstack([rows.T @ into, into.sum(axis=0)]), last


def _together(private: Rows, public: Rows) -> Rows:
    if private.ndim != 2 or public.ndim != 2 or private.shape[1] != public.shape[1]:
        raise AuditRefused(
            f"expected two matrices of one width, got {private.shape} and {public.shape}"
        )
    if min(len(private), len(public)) < LEAST:
        raise AuditRefused(
            f"expected at least {LEAST} pictures of each side to fit on, got {len(private)} "
            f"private and {len(public)} public"
        )
    rows = np.concatenate([private, public])
    if not np.isfinite(rows).all():
        raise AuditRefused("expected finite margins, got NaN or infinity")
    return rows
