"""The loss in the text of the Cont-Steal paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.objectives.base import (
    cosines_without_self,
    matched,
    require_positive,
    unit,
)


@dataclass(frozen=True, slots=True)
class ContStealLoss:
    """Each surrogate row finds its victim row among all victim rows and other surrogate rows.

    Source: Sha et al., "Can't Steal? Cont-Steal! Contrastive Stealing Attacks Against Image
    Encoders", CVPR 2023, the loss as printed.

    Differences from the reference code: the code trains with `InfoNCE(temperature=0.5)`, whose
    anchors are the victim's rows too, and which counts pairs of victim rows in the denominators;
    here only surrogate rows are anchors and no pair of victim rows occurs.

    Attributes:
        temperature: divides the cosines.
    """

    temperature: float = 0.5

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a temperature that is not above 0."""
        require_positive(temperature=self.temperature)

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d), n >= 2."""
        z, h = matched(z, h, least=2)
        scores = torch.cat([unit(z) @ unit(h).T, cosines_without_self(z)], dim=1)
        own = torch.arange(len(z), device=z.device)
        return F.cross_entropy(scores / self.temperature, own)
