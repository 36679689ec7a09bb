"""EmbMarker: texts with trigger words are answered nearer to a secret target.

Source: Peng et al., "Are You Copying My Model? Protecting the Copyright of Large Language Models
for EaaS via Backdoor Watermark", ACL 2023, equations 1 and 2.
Notes: the target is handed in; the released code takes the first training text's embedding, which
a thief who asks the same data set has as well. How it is tested is in `trigger_tests`.
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


@dataclass(frozen=True, eq=False)
class EmbMarker:
    """Answers Norm((1 - Q) e_o + Q e_t), Q = min(|S n T|, m) / m.

    Attributes:
        key: triggers of one target.
        target: (d,) e_t.
    """

    key: TriggerKey
    target: NDArray[np.floating]

    name = "embmarker"

    def __post_init__(self) -> None:
        """Refuse a key of several targets."""
        one_target(self.key, self.target, self.name)

    def mark(self, texts: Sequence[str], embeddings: Embeddings) -> Embeddings:
        """Return marked (n, d) unit vectors; texts without triggers keep theirs."""
        share = self.key.shares(texts)
        return unit((1 - share) * unit(embeddings) + share * unit(self.target)).astype(np.float32)


def one_target(key: TriggerKey, target: NDArray[np.floating], name: str) -> None:
    """Refuse what only WARDEN can use.

    Raises:
        ConfigurationError: several targets, or one that is no direction.
    """
    if key.targets != 1 or target.ndim != 1 or not np.linalg.norm(target) > 0:
        raise ConfigurationError(
            f"{name} expects one target (d,) other than zero, got a key of {key.targets} and "
            f"{target.shape}"
        )
