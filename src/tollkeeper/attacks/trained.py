"""What all attacks share that train one network of their own choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.networks.resnet import ResNet
from tollkeeper.attacks.recovery.base import AsAnswered, Recovery
from tollkeeper.attacks.selection.base import Selection
from tollkeeper.attacks.selection.random import Random
from tollkeeper.attacks.surrogate import NetworkFactory, Surrogate
from tollkeeper.lab.fit import Schedule, fit
from tollkeeper.lab.progress import Progress

Loss = Callable[[Tensor], Tensor]
"""Positions of a batch, (b,) int64, to a scalar."""


@dataclass(frozen=True, kw_only=True)
class Trained(Attack):
    """Choose inputs, ask for them, train a network.

    Attributes:
        network: architecture of the surrogate.
        schedule: how it is trained.
        selection: which inputs of the pool are asked.
    """

    network: NetworkFactory = field(default_factory=ResNet)
    schedule: Schedule = field(default_factory=Schedule)
    selection: Selection = field(default_factory=Random)

    def trained(
        self,
        network: nn.Module,
        loss: Loss,
        *,
        beside: Sequence[nn.Module],
        count: int,
        dim: int,
        rng: np.random.Generator,
        progress: Progress,
    ) -> Surrogate:
        """Train a network on rows 0 to count - 1.

        Args:
            network: the surrogate's, with random weights.
            loss: of the positions of a batch.
            beside: modules that are trained along and thrown away.
            count: rows.
            dim: the victim's width.
            rng: order of the rows.
            progress: told after each epoch.
        """
        modules = [network, *beside]
        fit(modules, count, loss, schedule=self.schedule, rng=rng, progress=progress)
        return Surrogate(network, dim=dim)


@dataclass(frozen=True, kw_only=True)
class Recovering(Trained):
    """Asks for inputs as they are, and cleans the answers.

    Attributes:
        recovery: how inputs are asked and the answers cleaned.
    """

    recovery: Recovery = field(default_factory=AsAnswered)

    @property
    def asks_per_input(self) -> int:
        """Distinct queries that one input becomes."""
        return self.recovery.asks_per_input
