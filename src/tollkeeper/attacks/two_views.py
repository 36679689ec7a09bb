"""Direct extraction with losses that need two views of each image.

Source: Dziedzic et al., ICML 2022 (Barlow Twins and symmetrized losses; SupCon in two views).
Differences from the reference code: both views are asked once and their answers kept; each view
is a query, which the reference does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.augment import TWO_VIEW, Augmentation
from tollkeeper.attacks.objectives.barlow import Barlow
from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.trained import Loss
from tollkeeper.attacks.viewed import Viewed, Views
from tollkeeper.lab.fit import run_network
from tollkeeper.lab.progress import Progress
from tollkeeper.lab.torching import seeded_init


@dataclass(frozen=True, kw_only=True)
class TwoViews(Viewed):
    """Train on two views of each image at a time, stacked: first views, then second ones.

    Attributes:
        make_objective: embedding width to an objective of (2 b, d) surrogate and victim rows.
    """

    paper: ClassVar[str] = "Dziedzic et al., ICML 2022"
    views: int = 2
    augment: Augmentation = TWO_VIEW
    make_objective: Callable[[int], Objective] = lambda _: Barlow()

    def loss(
        self, network: nn.Module, views: Views, *, rng: np.random.Generator, progress: Progress
    ) -> tuple[Loss, list[nn.Module]]:
        """Return the objective over stacked views."""
        del progress
        with seeded_init(rng):
            objective = self.make_objective(views.targets.shape[2])
        if isinstance(objective, nn.Module):
            objective = objective.to(views.targets.device)

        def loss(index: Tensor) -> Tensor:
            # Two different views of each image; with two in all, their order is random.
            pair = torch.randperm(len(views.pixels), generator=views.draws)[:2]
            pixels = views.pixels[pair][:, index].flatten(0, 1)
            return objective(
                run_network(network, pixels), views.targets[pair][:, index].flatten(0, 1)
            )

        return loss, [objective] if isinstance(objective, nn.Module) else []
