"""MAZE: data-free extraction with a KL divergence and ten differences per picture.

Source: Kariyappa et al., "MAZE: Data-Free Model Stealing Attack Using Zeroth-Order Gradient
Estimation", CVPR 2021, without the critic of its variant with partial data.

Notes:
    A default iteration asks 128 ((5 - 1) + 11) = 1,920 pictures: the copy's first step learns the
    pictures of the generator's step. Differences from the reference code: nothing is
    computed through the victim; the replay memory is bounded, and drawn from without a loader per
    iteration; nothing is tested on the way, and no picture is flipped. The generator is DFME's,
    differences are taken before its tanh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.attacks.classifier.data_free import DataFree


@dataclass(frozen=True, kw_only=True)
class MAZE(DataFree):
    """The copy learns the victim's probabilities, the generator what it misses of them."""

    paper: ClassVar[str] = "Kariyappa et al., CVPR 2021"
    game_batch: int = 128
    noise: int = 100
    directions: int = 10
    reuse: bool = True
    replays: int = 10
    memory: int = 20_000

    def errors(self, answers: Tensor, logits: Tensor) -> Tensor:
        """Return (n,) divergences of the copy from the victim."""
        logs = answers.clamp_min(self.floor).log()
        return (answers * (logs - functional.log_softmax(logits, dim=1))).sum(dim=1)

    def decay(self, share: float) -> float:
        """Return the factor of the learning rates after a share of the iterations."""
        return (1 + math.cos(math.pi * share)) / 2

    def generator_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return gradient descent with the copy's momentum and weight decay."""
        return torch.optim.SGD(
            parameters,
            lr=self.generator_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
