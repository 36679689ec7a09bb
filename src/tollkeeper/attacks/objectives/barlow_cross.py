"""Redundancy reduction between surrogate and victim."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tollkeeper.attacks.objectives.barlow import redundancy
from tollkeeper.attacks.objectives.base import matched


@dataclass(frozen=True, slots=True)
class BarlowCross:
    """Cross-correlation of surrogate features with victim features should be the identity.

    The victim's answer takes the place of the second view, so feature i of the surrogate learns
    feature i of the victim up to shift and scale.

    Source: Zbontar et al., "Barlow Twins", ICML 2021.

    Differences from the reference code of Dziedzic et al., ICML 2022: see `Barlow`; this
    one-view form is ours.

    Attributes:
        off_diagonal: weight of squared correlations of different features.
    """

    off_diagonal: float = 0.0051

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d), n >= 2."""
        z, h = matched(z, h, least=2)
        return redundancy(z, h, self.off_diagonal)
