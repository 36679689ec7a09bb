"""Recipes of self-supervised victims: the published ones, on small images.

Differences from the papers, in both methods: SGD with Nesterov momentum (SimCLR: LARS), no decay
of biases and normalizations (SimSiam: all), no blur, which the papers leave out on CIFAR too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ssl_objectives import Objective, SimCLR, SimSiam
from tollkeeper.encoders.lab.compact import Compact, CompactLayout
from tollkeeper.encoders.lab.resnet import ResNet, ResNetLayout
from tollkeeper.encoders.lab.seeding import seeded


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What both methods have in common.

    Attributes:
        title: Method and paper.
        layout: Sizes of the network.
        side: Pixels per side of a view.
        epochs: In all.
        batch_size: Images a step.
        rate_per_256: Highest learning rate of a batch of 256; in proportion for others.
        warmup: Epochs of linear rise, at most a tenth of all; then half a cosine.
    """

    title: ClassVar[str]

    layout: ResNetLayout | CompactLayout
    side: int
    epochs: int
    batch_size: int = 256
    rate_per_256: float
    warmup: float
    momentum: float = 0.9
    weight_decay: float
    min_crop: float
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_probability: float = 0.8
    gray_probability: float = 0.2

    @property
    def learning_rate(self) -> float:
        """The highest learning rate."""
        return self.rate_per_256 * self.batch_size / 256

    def crop_side(self, epoch: int) -> int:
        """Return the side of the views, the same at every epoch."""
        del epoch
        return self.side

    def rate(self, epoch: float) -> float:
        """Return the learning rate at a fractional epoch, above 0 and at most `epochs`."""
        rise = min(self.warmup, self.epochs / 10)
        if epoch < rise:
            return self.learning_rate * epoch / rise
        done = (epoch - rise) / (self.epochs - rise)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def make_network(self, seed: int) -> ResNet | Compact:
        """Make the network that is kept."""
        with seeded(seed):
            return self.layout.build()


@dataclass(frozen=True, kw_only=True)
class SimCLRRecipe(Recipe):
    """SimCLR as on CIFAR-10, appendix B.9.

    The learning rate and the weight decay are our own, since the paper's are for LARS.
    """

    title: ClassVar[str] = "SimCLR (Chen et al. 2020)"

    rate_per_256: float = 0.12
    warmup: float = 10
    weight_decay: float = 5e-4
    min_crop: float = 0.08
    temperature: float = 0.5
    projection: int = 128

    def make_objective(self, seed: int) -> Objective:
        """Make NT-Xent with its projector."""
        with seeded(seed):
            return SimCLR(
                self.layout.embedding_dim, projection=self.projection, temperature=self.temperature
            )


@dataclass(frozen=True, kw_only=True)
class SimSiamRecipe(Recipe):
    """SimSiam as on CIFAR-10, appendix D."""

    title: ClassVar[str] = "SimSiam (Chen and He 2021)"

    rate_per_256: float = 0.03
    warmup: float = 0
    weight_decay: float = 5e-4
    min_crop: float = 0.2
    projection: int = 2048
    bottleneck: int = 512

    def make_objective(self, seed: int) -> Objective:
        """Make the negative cosine with its projector and predictor."""
        with seeded(seed):
            return SimSiam(
                self.layout.embedding_dim, projection=self.projection, bottleneck=self.bottleneck
            )
