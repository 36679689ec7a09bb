"""Binary cross-entropy on the signs of victim features."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.objectives.base import matched


@dataclass(frozen=True, slots=True)
class BCE:
    """Each surrogate feature is a logit for whether the victim's feature is above zero.

    The target is round(sigmoid(h)): 1 where h > 0, else 0. Of the victim only signs are used: of
    a zero-mean victim one bit per feature, of a victim that ends in a ReLU whether a feature is
    active at all, which after average pooling it nearly always is.

    Source: the code of Dziedzic et al., ICML 2022. Differences from it: none.
    """

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the mean over all entries of surrogate logits z (n, d), victim rows h (n, d)."""
        z, h = matched(z, h)
        return F.binary_cross_entropy_with_logits(z, h.sigmoid().round())
