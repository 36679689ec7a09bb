"""Distance of cumulative sums along the feature index."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.objectives.base import matched

_FLOOR = 1e-14
"""Keeps the share of a row without positive features at 0, as coded."""


@dataclass(frozen=True, slots=True)
class Wasserstein:
    """First Wasserstein distance of rows read as distributions over the feature index.

    Each row is divided by its sum and summed up along the index; the loss is the L1 distance of
    both sums, averaged over rows. It treats the order of features as a geometry, forgets the
    length of rows and means something for non-negative features only.

    Source: Dziedzic et al., ICML 2022.

    Differences from the reference code: negative features, on either side, count as 0. The
    reference divides by whatever their sum is, which may be near 0. A victim that adds noise to
    non-negative features can so be copied; of a victim around zero half is not seen.
    """

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d)."""
        z, h = matched(z, h)
        gaps = (_shares(z) - _shares(h)).cumsum(dim=1)
        return gaps.abs().sum(dim=1).mean()


def _shares(rows: Tensor) -> Tensor:
    positive = F.relu(rows)
    return positive / (positive.sum(dim=1, keepdim=True) + _FLOOR)
