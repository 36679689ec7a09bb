"""InfoNCE, also called NT-Xent, between surrogate and victim."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.objectives.base import cosines_without_self, matched, require_positive


@dataclass(frozen=True, slots=True)
class InfoNCE:
    """Each row's positive is its partner; all other 2 n - 2 rows of [z; h] are negatives.

    Pairs within one encoder count as negatives, and both the surrogate's and the victim's rows
    are anchors: the mean runs over 2 n rows.

    Source: Dziedzic et al., ICML 2022 (temperature 0.07; 0.1 and 0.25 for ImageNet); at 0.5 it is
    the loss that the code of Sha et al., "Can't Steal? Cont-Steal!", CVPR 2023 trains with.

    Differences from the reference code: none with one view. With two views it rewards the
    surrogate for agreeing with its own other view and counts the victim as a negative; that is
    not reproduced.

    Attributes:
        temperature: divides the cosines.
    """

    temperature: float = 0.07

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a temperature that is not above 0."""
        require_positive(temperature=self.temperature)

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d), n >= 2."""
        z, h = matched(z, h, least=2)
        scores = cosines_without_self(torch.cat([z, h])) / self.temperature
        partners = torch.arange(len(scores), device=z.device).roll(len(z))
        return F.cross_entropy(scores, partners)
