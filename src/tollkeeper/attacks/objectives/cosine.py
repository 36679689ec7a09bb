"""Cosine distance."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.objectives.base import matched


@dataclass(frozen=True, slots=True)
class Cosine:
    """1 - mean cosine of partners, in [0, 2]; the length of rows is free.

    Source: the `cos_similarity` option of the code of Wu et al., "Refine, Discriminate and
    Align", ECCV 2024. Differences from it: 1 is added, so that a perfect copy scores 0.
    """

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d)."""
        z, h = matched(z, h)
        return 1 - F.cosine_similarity(z, h, dim=1).mean()
