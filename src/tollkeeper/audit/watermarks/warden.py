"""WARDEN: EmbMarker with several targets, so that no single direction holds the mark.

Source: Shetty et al., "WARDEN: Multi-Directional Backdoor Watermarks for Embedding-as-a-Service
Copyright Protection", ACL 2024, section 4.
Notes: when weights together exceed 1, the last one gets what is left; the released code gives it
(total + weight) - 1, so that the sum can exceed 1 and the text's own embedding counts negatively
(`published_overflow` does so too). The released code computes which texts' embeddings make good
targets and then takes the first; here targets are handed in, see `spread`. Its test takes the best
of R targets without a correction and draws the triggers of a text with replacement; see
`trigger_tests`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.watermarks.served import unit
from tollkeeper.audit.watermarks.triggers import TriggerKey
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Embeddings


def spread(targets: NDArray[np.floating]) -> NDArray[np.float64]:
    """Make targets less parallel: subtract half of what each shares with those before it.

    Args:
        targets: (R, d), for example embeddings of R texts.

    Returns:
        (R, d) unit vectors; the first keeps its direction.
    """
    found = unit(targets)
    for at in range(1, len(found)):
        for before in range(at):
            shared = (found[at] @ found[before]) * found[before]
            found[at] = unit(found[at] - 0.5 * shared)
    return found


@dataclass(frozen=True, eq=False)
class Warden:
    """Answers Norm(sum_r w_r t_r + (1 - sum_r w_r) e_o).

    Attributes:
        key: triggers of R targets.
        targets: (R, d).
        published_overflow: whether weights beyond 1 are treated as in the released code.
    """

    key: TriggerKey
    targets: NDArray[np.floating]
    published_overflow: bool = False

    name = "warden"

    def __post_init__(self) -> None:
        """Refuse targets that the key has no triggers for.

        Raises:
            ConfigurationError: their number differs.
        """
        if self.targets.ndim != 2 or len(self.targets) != self.key.targets:
            raise ConfigurationError(
                f"expected ({self.key.targets}, d) targets as the key has, got {self.targets.shape}"
            )

    def mark(self, texts: Sequence[str], embeddings: Embeddings) -> Embeddings:
        """Return marked (n, d) unit vectors; texts without triggers keep theirs."""
        weights = self.weights(self.key.shares(texts))
        own = 1 - weights.sum(axis=1, keepdims=True)
        return unit(weights @ unit(self.targets) + own * unit(embeddings)).astype(np.float32)

    def weights(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, R) weights: the largest shares first, until a text is marked in full.

        Args:
            shares: (n, R) in [0, 1].
        """
        order = np.argsort(-shares, axis=1, kind="stable")
        ranked = np.take_along_axis(shares, order, axis=1)
        before = np.zeros(len(shares))
        for place in range(ranked.shape[1]):
            total = before + ranked[:, place]
            excess = total - 1 if self.published_overflow else 1 - before
            ranked[:, place] = np.where(total > 1, excess, ranked[:, place])
            ranked[before >= 1, place] = 0
            before = before + ranked[:, place]
        given = np.empty_like(ranked)
        np.put_along_axis(given, order, ranked, axis=1)
        return given
