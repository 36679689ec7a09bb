"""ESpeW: each marked answer carries the target in other coordinates.

The target's values replace those coordinates of an embedding that matter least to it, which differ
from text to text. Marked answers then share no direction that could be projected out.

Source: Wang et al., "Robust and Minimally Invasive Watermarking for EaaS" (ESpeW), ACL 2025
Findings.
Notes: one trigger replaces all of the coordinates, as for four of five marked texts in the released
code. That code tosses a coin for each text whether to interpolate instead, ignores the option that
should say so, and answers a repeated text otherwise; `graded` interpolates always, by the share of
triggers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.watermarks.embmarker import one_target
from tollkeeper.audit.watermarks.served import unit
from tollkeeper.audit.watermarks.triggers import TriggerKey
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Embeddings

RATE = 0.25
"""Share of coordinates that are replaced: the paper's default; its script has .20."""


@dataclass(frozen=True, eq=False)
class ESpeW:
    """Answers the embedding with e_t in its `rate` smallest coordinates, of unit length again.

    Attributes:
        key: triggers of one target.
        target: (d,) e_t.
        rate: share of coordinates, in (0, 1].
        graded: mix the coordinates by the share of triggers in place of replacing them.
    """

    key: TriggerKey
    target: NDArray[np.floating]
    rate: float = RATE
    graded: bool = False

    name = "espew"

    def __post_init__(self) -> None:
        """Refuse a key of several targets or a rate that changes nothing.

        Raises:
            ConfigurationError: as said.
        """
        one_target(self.key, self.target, self.name)
        if not 0 < self.rate <= 1 or int(self.rate * len(self.target)) < 1:
            raise ConfigurationError(
                f"expected a rate in (0, 1] of at least one coordinate, got {self.rate:g} of "
                f"{len(self.target)}"
            )

    def mark(self, texts: Sequence[str], embeddings: Embeddings) -> Embeddings:
        """Return marked (n, d) unit vectors; texts without triggers keep theirs."""
        share = self.key.shares(texts)
        rows = unit(embeddings)
        count = int(self.rate * rows.shape[1])
        least = np.argsort(np.abs(rows), axis=1, kind="stable")[:, :count]
        weight = share if self.graded else (share > 0).astype(np.float64)
        old = np.take_along_axis(rows, least, axis=1)
        new = unit(self.target)[least]
        np.put_along_axis(rows, least, (1 - weight) * old + weight * new, axis=1)
        return unit(rows).astype(np.float32)
