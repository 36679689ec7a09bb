"""Self-supervised training of the built-in image encoder: its recipe and network.

The method is SimCLR (Chen et al. 2020) with the decoupled loss of Yeh et al. (2022), which leaves
the positive pair out of the denominator and so works at small batches. Views are random crops
at a low resolution first and a higher one while the learning rate decays, which saves most of the
time on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ssl_objectives import Decoupled
from ssl_trainer import Images, Trainer
from ssl_views import PIXEL_MEAN, PIXEL_STD, to_network
from tollkeeper.encoders.lab.compact import Compact, CompactLayout, ConvUnit, Residual
from tollkeeper.encoders.lab.seeding import seeded

__all__ = [
    "PIXEL_MEAN",
    "PIXEL_STD",
    "ConvUnit",
    "Recipe",
    "Residual",
    "Trainer",
    "calibrate_norms",
    "embed_images",
    "make_backbone",
]

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a training run except the data and the seed."""

    epochs: int = 80
    cooldown: int = 14
    warmup: int = 2
    early_side: int = 16
    late_side: int = 24
    batch_size: int = 256
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 2e-4
    temperature: float = 0.2
    width: int = 32
    dim: int = 512
    hidden: int = 512
    projection: int = 128
    min_crop: float = 0.2
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_probability: float = 0.8
    gray_probability: float = 0.2

    def crop_side(self, epoch: int) -> int:
        """Return the side of the crops, in pixels, at a zero-based epoch."""
        return self.late_side if epoch >= self.epochs - self.cooldown else self.early_side

    def rate(self, epoch: float) -> float:
        """Return the learning rate at a fractional epoch: linear warm-up, constant, linear decay.

        Before the decay it does not depend on the number of epochs, so that a run can be
        continued from a checkpoint with more epochs than it was started with.
        """
        rise = epoch / self.warmup
        fall = (self.epochs - epoch) / self.cooldown
        return self.learning_rate * max(0.0, min(1.0, rise, fall))

    def make_network(self, seed: int) -> Compact:
        """Make the network that is kept."""
        return make_backbone(self, seed)

    def make_objective(self, seed: int) -> Decoupled:
        """Make the loss with its projector."""
        return Decoupled(make_projector(self, seed), self.temperature)


def make_backbone(recipe: Recipe, seed: int) -> Compact:
    """Make the network: normalized images (n, 3, h, w) to (n, dim), non-negative.

    Args:
        recipe: Widths.
        seed: Seed of the initial weights; the global generator is left as it was.
    """
    with seeded(seed):
        return CompactLayout(recipe.width, recipe.dim).build()


def make_projector(recipe: Recipe, seed: int) -> nn.Sequential:
    """Make the head used in training only: (n, dim) to (n, projection)."""
    with seeded(seed):
        return nn.Sequential(
            nn.Linear(recipe.dim, recipe.hidden, bias=False),
            nn.BatchNorm1d(recipe.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(recipe.hidden, recipe.projection),
        )


@torch.no_grad()
def calibrate_norms(backbone: nn.Module, images: Tensor) -> None:
    """Set batch-normalization statistics from uint8 (n, h, w, 3); leaves evaluation mode on."""
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches seen
    backbone.train()
    for batch in images.split(512):
        backbone(to_network(batch))
    for norm in norms:
        norm.momentum = 0.1
    backbone.eval()


@torch.no_grad()
def embed_images(backbone: nn.Module, images: Images) -> Features:
    """Embed uint8 (n, h, w, 3) to float32 (n, dim) in evaluation mode, full precision."""
    backbone.eval()
    parts = [backbone(to_network(b)) for b in torch.from_numpy(images).split(250)]
    return torch.cat(parts).numpy()
