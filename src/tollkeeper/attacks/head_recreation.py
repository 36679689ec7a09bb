"""Head recreation: rebuild a projection head for the victim, then match after the head.

Source: Dziedzic et al., ICML 2022, "stealing with a recreated head": a head is trained on the
victim's answers to two views of each image with InfoNCE, as if it were pretraining; then network
and head are trained to match. Differences from the reference code: views are asked once and
counted, and the loss of the second stage contrasts one view at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from tollkeeper.attacks.augment import TWO_VIEW, Augmentation
from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.objectives.infonce import InfoNCE
from tollkeeper.attacks.trained import Loss
from tollkeeper.attacks.viewed import Viewed, Views
from tollkeeper.lab.fit import Adam, Schedule, fit, run_network
from tollkeeper.lab.progress import Progress
from tollkeeper.lab.torching import seeded_init


@dataclass(frozen=True, kw_only=True)
class HeadRecreation(Viewed):
    """Train a head on the victim's answers, then the surrogate through that head.

    Attributes:
        objective: contrast of both stages.
        projection: width after the head.
        head_schedule: training of the head alone.
    """

    paper: ClassVar[str] = "Dziedzic et al., ICML 2022"
    views: int = 2
    augment: Augmentation = TWO_VIEW
    projection: int = 128
    objective: Objective = field(default_factory=InfoNCE)
    head_schedule: Schedule = field(default_factory=lambda: Schedule(epochs=200))
    schedule: Schedule = field(
        default_factory=lambda: Schedule(rate=3e-4, optimizer=Adam(weight_decay=1e-4))
    )

    def loss(
        self, network: nn.Module, views: Views, *, rng: np.random.Generator, progress: Progress
    ) -> tuple[Loss, list[nn.Module]]:
        """Return the contrast after the head, which is trained on."""
        building, ordering = rng.spawn(2)
        width = views.targets.shape[2]
        with seeded_init(building):
            head = nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.projection)
            ).to(views.targets.device)

        def contrast_views(index: Tensor) -> Tensor:
            first, second = (head(view[index]) for view in views.targets[:2])
            # An objective teaches its first argument only.
            return (self.objective(first, second) + self.objective(second, first)) / 2

        count = views.targets.shape[1]
        schedule = self.head_schedule
        fit(
            [head],
            count,
            contrast_views,
            schedule=schedule,
            rng=ordering,
            progress=progress,
            phase="training the head",
        )

        def loss(index: Tensor) -> Tensor:
            pixels, targets = views.some(index)
            return self.objective(head(run_network(network, pixels)), head(targets))

        return loss, [head]
