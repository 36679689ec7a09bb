"""Direct extraction: make the surrogate's embeddings equal the victim's.

Source: Dziedzic et al., "On the Difficulty of Defending Self-Supervised Learning against Model
Extraction", ICML 2022. Differences from the reference code: each input is asked once and its
answer kept (the reference asks again in every epoch), inputs are shuffled, and the learning rate
falls along one cosine (the reference's wraps).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.objectives.infonce import InfoNCE
from tollkeeper.attacks.offline import Known, Offline
from tollkeeper.attacks.trained import Loss
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import run_network
from tollkeeper.lab.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Direct(Offline):
    """Train on (input, answer) pairs with any objective.

    Attributes:
        objective: what is made small.
        labels: (n,) classes of the pool, for objectives that need them.
    """

    paper: ClassVar[str] = "Dziedzic et al., ICML 2022"
    objective: Objective = field(default_factory=InfoNCE)
    labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Refuse objectives that read stacked views: rows would be paired at random."""
        if getattr(self.objective, "views", 1) != 1:
            raise ConfigurationError("expected an objective of one view; use TwoViews")

    def loss(
        self, network: nn.Module, known: Known, *, rng: np.random.Generator, progress: Progress
    ) -> tuple[Loss, list[nn.Module]]:
        """Return the objective between network output and answers."""
        del rng, progress
        labels = None
        if self.labels is not None:
            labels = torch.from_numpy(self.labels[known.index]).to(known.targets.device)
        objective = self.objective

        def loss(index: Tensor) -> Tensor:
            z = run_network(network, known.inputs[index])
            if labels is not None:
                return objective(z, known.targets[index], labels[index])
            return objective(z, known.targets[index])

        return loss, [objective] if isinstance(objective, nn.Module) else []
