"""StolenEncoder's distance of directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tollkeeper.attacks.objectives.base import matched, unit

Distance = Callable[[Tensor, Tensor], Tensor]
"""Unit rows (n, d) and (n, d) to (n,) distances."""


def l2(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distance of each pair of rows, not squared."""
    return torch.linalg.vector_norm(a - b, dim=1)


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of absolute differences of each pair of rows."""
    return torch.linalg.vector_norm(a - b, ord=1, dim=1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 - cosine of each pair of unit rows."""
    return 1 - (a * b).sum(dim=1)


@dataclass(frozen=True, slots=True)
class StolenEncoderLoss:
    """Mean distance of L2-normalized partners; gradients do not fade as they come close.

    One term of the method: the attack adds lambda times the same loss of augmented images.

    Source: Liu et al., "StolenEncoder: Stealing Pre-trained Encoders in Self-supervised
    Learning", CCS 2022, eq. for L1 and L2, with its three distances.

    Differences from the reference code: a mean over rows where it sums (its l2 and l1), so the
    learning rate does not depend on the batch; 1 is added to the cosine distance.

    Attributes:
        distance: `l2`, `l1` or `cosine`.
    """

    distance: Distance = l2

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d)."""
        z, h = matched(z, h)
        return self.distance(unit(z), unit(h)).mean()
