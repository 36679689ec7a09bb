"""RDA's loss: discriminate between prototypes, and align with the own one."""

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

_FLOOR = 1e-6
"""Added inside both logarithms of the aligning term."""


@dataclass(frozen=True, slots=True)
class RDALoss:
    """alpha L_con + beta L_align of normalized surrogate rows x and prototypes y.

    L_con is InfoNCE whose denominator holds the other prototypes and the other surrogate rows but
    not the positive. L_align = log |x - y|^2 - log(1 + cos(x, y)) also uses that a prototype is
    short where its views disagreed: y must not be normalized again.

    Source: Wu et al., "Refine, Discriminate and Align: Stealing Encoders via Sample-Wise
    Prototypes and Multi-Relational Extraction", ECCV 2024, as coded (alpha = beta = 1).

    Differences from the reference code: 1e-6 is added inside both logarithms, so an exact match
    has a finite loss and gradient, and L_con is computed from log sums. On values that the
    reference can compute with |x - y|^2 >= 0.01 both agree to 1e-4.

    Attributes:
        temperature: divides the cosines of L_con.
        alpha: weight of L_con.
        beta: weight of L_align.
    """

    temperature: float = 0.07
    alpha: float = 1.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a temperature that is not above 0."""
        require_positive(temperature=self.temperature)

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and prototypes h (n, d), n >= 2."""
        z, y = matched(z, h, least=2)
        x = unit(z)
        return self.alpha * self._contrast(x, y) + self.beta * _misalignment(x, y)

    def _contrast(self, x: Tensor, y: Tensor) -> Tensor:
        products = x @ y.T / self.temperature
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        others = torch.cat(
            [products.masked_fill(own, -torch.inf), cosines_without_self(x) / self.temperature],
            dim=1,
        )
        return (others.logsumexp(dim=1) - products.diagonal()).mean()


def _misalignment(x: Tensor, y: Tensor) -> Tensor:
    distances = (x - y).square().sum(dim=1)
    cosines = F.cosine_similarity(x, y, dim=1)
    return ((distances + _FLOOR).log() - (1 + cosines + _FLOOR).log()).mean()
