"""Redundancy reduction over two views, as coded for stealing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tollkeeper.attacks.objectives.base import matched_views

_EPSILON = 1e-5
"""Added to variances, that of torch's batch normalization."""


@dataclass(frozen=True, slots=True)
class Barlow:
    """Cross-correlation of [z1; h1] with [z2; h2] over the batch should be the identity.

    Note what the stacking does: the products are z1 z2 and h1 h2 of the same input, never z h.
    The victim enters through the shared mean and variance of each feature and through its own
    part of the correlation, which the surrogate must complement. `BarlowCross` compares with the
    victim directly and needs no second view.

    Source: Zbontar et al., "Barlow Twins", ICML 2021, as stacked by the code of Dziedzic et al.,
    ICML 2022.

    Differences from the reference code: none.

    Attributes:
        off_diagonal: weight of squared correlations of different features.
    """

    views: ClassVar[int] = 2
    off_diagonal: float = 0.0051

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss of rows that are two stacked views.

        Args:
            z: (2 n, d) surrogate rows, all first views before all second views, n >= 2.
            h: (2 n, d) victim rows in the same order.
        """
        z1, z2, h1, h2 = matched_views(z, h)
        return redundancy(torch.cat([z1, h1]), torch.cat([z2, h2]), self.off_diagonal)


def redundancy(a: Tensor, b: Tensor, off_diagonal: float) -> Tensor:
    """Return sum_i (C_ii - 1)^2 + off_diagonal sum_{i != j} C_ij^2.

    Args:
        a: (m, d), m >= 2.
        b: (m, d) rows that belong to those of `a`.
        off_diagonal: weight of the second sum.

    Returns:
        A scalar, C being the (d, d) correlation of the features of `a` with those of `b`.
    """
    correlation = _standardized(a).T @ _standardized(b) / len(a)
    diagonal = correlation.diagonal()
    off = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + off_diagonal * off


def _standardized(rows: Tensor) -> Tensor:
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    return (rows - mean) / (variance + _EPSILON).sqrt()
