"""StolenEncoder's distance of directions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tollkeeper.attacks.objectives.base import matched, unit


@dataclass(frozen=True, slots=True)
class StolenEncoderLoss:
    """Mean Euclidean distance of L2-normalized partners.

    It is not squared, so gradients do not fade as partners come close. One term of the method:
    the attack adds lambda times the same loss of augmented images.

    Source: Liu et al., "StolenEncoder: Stealing Pre-trained Encoders in Self-supervised
    Learning", CCS 2022, eq. for L1 and L2.

    Differences from the reference code: a mean over rows where it sums, so the learning rate does
    not depend on the batch; its other distances are left out.
    """

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d)."""
        z, h = matched(z, h)
        return torch.linalg.vector_norm(unit(z) - unit(h), dim=1).mean()
