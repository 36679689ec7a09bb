"""RDA: refine the answer to an image over many views, then discriminate and align.

Source: Wu et al., "Refine, Discriminate and Align: Stealing Encoders via Sample-Wise Prototypes
and Multi-Relational Extraction", ECCV 2024. Defaults as coded: 10 views per image, each a query,
5 views per training step. Differences from the reference code: prototypes are keyed by position
(the reference keys them by a label that must happen to be unique), the last epoch is kept (the
reference keeps the best epoch on the downstream test set), and the aligning term cannot overflow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.augment import RDA_QUERY, RDA_TRAIN, Augmentation
from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.objectives.rda import RDALoss
from tollkeeper.attacks.trained import Loss
from tollkeeper.attacks.viewed import Viewed, Views
from tollkeeper.attacks.views import floats
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import Adam, Schedule, run_network
from tollkeeper.lab.progress import Progress


@dataclass(frozen=True, kw_only=True)
class RDA(Viewed):
    """Sample-wise prototypes, then contrast and align.

    Attributes:
        objective: of rows and prototypes.
        train_augment: of the surrogate's inputs.
        copies: Q, views of each image in a step.
    """

    paper: ClassVar[str] = "Wu et al., ECCV 2024"
    views: int = 10
    augment: Augmentation = RDA_QUERY
    train_augment: Augmentation = RDA_TRAIN
    copies: int = 5
    objective: Objective = field(default_factory=RDALoss)
    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            epochs=100, batch=100, rate=1e-3, optimizer=Adam(weight_decay=1e-4)
        )
    )

    def __post_init__(self) -> None:
        """Refuse an attack that trains on nothing.

        Raises:
            ConfigurationError: no view to ask for, or none to train on.
        """
        Viewed.__post_init__(self)
        if self.copies < 1:
            raise ConfigurationError(f"expected at least 1 copy in a step, got {self.copies}")

    def loss(
        self, network: nn.Module, views: Views, *, rng: np.random.Generator, progress: Progress
    ) -> tuple[Loss, list[nn.Module]]:
        """Return the mean objective over Q augmented copies."""
        del rng, progress
        # Not normalized again: a prototype of disagreeing views is short (as coded).
        prototypes = F.normalize(views.targets, dim=2).mean(dim=0)

        def loss(index: Tensor) -> Tensor:
            images = floats(views.plain[index])
            losses = [
                self.objective(
                    run_network(network, self.train_augment(images, views.draws)),
                    prototypes[index],
                )
                for _ in range(self.copies)
            ]
            return torch.stack(losses).mean()

        return loss, []
