"""Supervised contrast: rows of one class attract each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tollkeeper.attacks.objectives.base import cosines_without_self, matched, require_positive
from tollkeeper.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class SupCon:
    """Each row of [z; h] finds all other rows of its class; the attacker needs true labels.

    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, eq. 2, as used by
    Dziedzic et al., ICML 2022.

    Differences from the reference code: it runs with one view (the reference's split of rows fails
    there) and with two stacked views, and the loss is not multiplied by temperature / 0.07 (which
    is 1 at the default).

    Attributes:
        temperature: divides the cosines.
    """

    temperature: float = 0.07

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a temperature that is not above 0."""
        require_positive(temperature=self.temperature)

    def __call__(self, z: Tensor, h: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of surrogate rows z (n, d) and victim rows h (n, d), n >= 2.

        Args:
            z: surrogate rows.
            h: victim rows.
            labels: (n,) integer class of each input.

        Raises:
            ConfigurationError: no labels, or not one per row.
        """
        z, h = matched(z, h, least=2)
        if labels is None or labels.shape != z.shape[:1]:
            got = "none" if labels is None else f"shape {tuple(labels.shape)}"
            raise ConfigurationError(
                f"supervised contrast needs one class label per input: "
                f"expected shape ({len(z)},), got {got}"
            )
        chances = (cosines_without_self(torch.cat([z, h])) / self.temperature).log_softmax(dim=1)
        classes = labels.to(z.device).repeat(2)
        others = ~torch.eye(len(classes), dtype=torch.bool, device=z.device)
        alike = (classes[:, None] == classes) & others
        means = chances.masked_fill(~alike, 0.0).sum(dim=1) / alike.sum(dim=1)
        return -means.mean()
