"""DFME: data-free extraction with an L1 loss between recovered logits.

Source: Truong et al., "Data-Free Model Extraction", CVPR 2021, sections 3.2 to 3.4.

Notes:
    A default iteration asks 256 (1 (1 + 1) + 5) = 1,792 pictures. Differences from the reference
    code: learning rates fall when a share of the iterations is done and not before the first step;
    all differences of a batch are asked together, whatever their number; the budget
    ends the game (there each later epoch still spends an iteration), and what it has left beyond
    whole iterations trains the copy. Pictures are in [0, 1], tanh shifted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tollkeeper.attacks.classifier.data_free import DataFree

MILESTONES = (0.1, 0.3, 0.5)
"""Shares of the iterations after which both rates fall."""


@dataclass(frozen=True, kw_only=True)
class DFME(DataFree):
    """The copy learns the victim's recovered logits, the generator what it misses of them.

    Attributes:
        fall: factor of both rates at each milestone.
    """

    paper: ClassVar[str] = "Truong et al., CVPR 2021"
    fall: float = 0.3

    def errors(self, answers: Tensor, logits: Tensor) -> Tensor:
        """Return (n,) mean absolute differences to the victim's logits."""
        return (recovered(answers, floor=self.floor) - logits).abs().mean(dim=1)

    def decay(self, share: float) -> float:
        """Return the factor of the learning rates after a share of the iterations."""
        return self.fall ** sum(share >= milestone for milestone in MILESTONES)

    def generator_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(parameters, lr=self.generator_rate)


def recovered(answers: Tensor, *, floor: float) -> Tensor:
    """Return (n, k) logits of mean 0 that have these probabilities."""
    logs = answers.clamp_min(floor).log()
    return logs - logs.mean(dim=1, keepdim=True)
