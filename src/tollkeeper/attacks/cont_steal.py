"""Cont-Steal: the answer to an image is the surrogate's positive, all others are negatives.

Source: Sha et al., "Can't Steal? Cont-Steal! Contrastive Stealing Attacks Against Image
Encoders", CVPR 2023. Differences from the reference code: the reference asks for a fresh view of
every image in every epoch (100 queries per image at its defaults, counted as one); here each
image has `views` views that are asked once and used in turn, and the budget counts them. With
`views` equal to the epochs it is the reference's scheme.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.objectives.infonce import InfoNCE
from tollkeeper.attacks.trained import Loss
from tollkeeper.attacks.viewed import Viewed, Views
from tollkeeper.lab.fit import Adam, Schedule, run_network
from tollkeeper.lab.progress import Progress


@dataclass(frozen=True, kw_only=True)
class ContSteal(Viewed):
    """Contrastive stealing on augmented queries.

    Attributes:
        objective: NT-Xent at temperature 0.5 over surrogate and victim rows, as coded.
    """

    paper: ClassVar[str] = "Sha et al., CVPR 2023"
    views: int = 2
    objective: Objective = field(default_factory=lambda: InfoNCE(temperature=0.5))
    schedule: Schedule = field(
        default_factory=lambda: Schedule(epochs=100, batch=32, rate=3e-4, optimizer=Adam())
    )

    def loss(
        self, network: nn.Module, views: Views, *, rng: np.random.Generator, progress: Progress
    ) -> tuple[Loss, list[nn.Module]]:
        """Return the objective between the surrogate's and the victim's answer to one view."""
        del rng, progress

        def loss(index: Tensor) -> Tensor:
            pixels, targets = views.some(index)
            return self.objective(run_network(network, pixels), targets)

        return loss, []
