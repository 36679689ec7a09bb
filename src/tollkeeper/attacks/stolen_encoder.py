"""StolenEncoder: ask each image once, and let augmented copies of it have the same answer.

Source: Liu et al., "StolenEncoder: Stealing Pre-trained Encoders in Self-supervised Learning",
CCS 2022, equations for L1 and L2. Defaults are those of the released evaluation scripts
(lambda 20, one augmentation per step). Differences from the reference code: the loss is a mean
over the batch instead of a sum, with learning rate and weight decay scaled to match; the rate
falls along a cosine (there it is constant); the surrogate scales pixels around zero (there
[0, 1]); and the launcher's baseline (lambda 0) is not the
default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from tollkeeper.attacks.augment import STOLEN_ENCODER, Augmentation
from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.objectives.stolen_encoder import StolenEncoderLoss
from tollkeeper.attacks.offline import Known, Offline
from tollkeeper.attacks.trained import Loss
from tollkeeper.attacks.views import floats
from tollkeeper.lab.fit import SGD, Schedule, run_network
from tollkeeper.lab.progress import Progress
from tollkeeper.lab.torching import generator


@dataclass(frozen=True, kw_only=True)
class StolenEncoder(Offline):
    """One query per image, augmentations on the surrogate's side only.

    Attributes:
        objective: distance of normalized rows.
        augment: of the surrogate's inputs.
        strength: lambda, the weight of augmented copies.
        copies: k, augmented copies of each image in a step.
    """

    paper: ClassVar[str] = "Liu et al., CCS 2022"
    objective: Objective = field(default_factory=StolenEncoderLoss)
    augment: Augmentation = STOLEN_ENCODER
    strength: float = 20.0
    copies: int = 1
    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            epochs=100,
            batch=64,
            # 1e-3 and 5e-4 on the sum over 64 rows.
            rate=64e-3,
            optimizer=SGD(momentum=0.9, weight_decay=5e-4 / 64),
        )
    )

    def loss(
        self, network: nn.Module, known: Known, *, rng: np.random.Generator, progress: Progress
    ) -> tuple[Loss, list[nn.Module]]:
        """Return L1 + lambda L2."""
        del progress
        draws = generator(rng)

        def loss(index: Tensor) -> Tensor:
            images, targets = known.inputs[index], known.targets[index]
            total = self.objective(run_network(network, images), targets)
            for _ in range(self.copies):
                augmented = self.augment(floats(images), draws)
                away = self.objective(run_network(network, augmented), targets)
                total = total + self.strength / self.copies * away
            return total

        return loss, []
