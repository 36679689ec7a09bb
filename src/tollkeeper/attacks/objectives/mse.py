"""Mean squared error."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.objectives.base import matched


@dataclass(frozen=True, slots=True)
class MSE:
    """Mean over all n d entries of (z - h)^2, on the victim's raw scale.

    Source: Dziedzic et al., "On the Difficulty of Defending Self-Supervised Learning against
    Model Extraction", ICML 2022.
    """

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d)."""
        z, h = matched(z, h)
        return F.mse_loss(z, h)
