"""Soft nearest neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tollkeeper.attacks.objectives.base import matched, require_positive

_FLOOR = 1e-9
"""Added to each probability, as coded; a row's loss is at most -log of it."""


@dataclass(frozen=True, slots=True)
class SoftNN:
    """Each row of [z; h] draws a neighbor by exp(-squared distance / T); it should be its partner.

    Features are not normalized, so T must follow the scale of the victim's features.

    Source: Frosst et al., "Analyzing and Improving Representations with the Soft Nearest Neighbor
    Loss", ICML 2019, as used by Dziedzic et al., ICML 2022 (T = 100, for ImageNet 1000).

    Differences from the reference code: computed in float64 like there, but as a softmax, so rows
    far from all others give a large loss instead of 0 / 0. The reference's three constants of
    1e-5 in each distance cancel and are left out.

    Attributes:
        temperature: T, in squared units of the features.
    """

    temperature: float = 100.0

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a temperature that is not above 0."""
        require_positive(temperature=self.temperature)

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d), n >= 2."""
        z, h = matched(z, h, least=2)
        rows = torch.cat([z, h]).double()
        squares = rows.square().sum(dim=1)
        distances = squares[:, None] + squares - 2 * rows @ rows.T
        itself = torch.eye(len(rows), dtype=torch.bool, device=z.device)
        chances = (-distances / self.temperature).masked_fill(itself, -torch.inf).softmax(dim=1)
        anchors = torch.arange(len(rows), device=z.device)
        partners = chances[anchors, anchors.roll(len(z))]
        return -(_FLOOR + partners).log().mean().to(z.dtype)
