"""The two small encoders of the ownership experiments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.surrogate import pixels
from tollkeeper.bench.ownership.scene import SIDE
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.torching import seeded_init
from tollkeeper.types import Batch

Kind = Literal["mlp", "conv"]

KINDS: tuple[Kind, ...] = ("mlp", "conv")

_SHIFT = 0.45  # subtracted from [0, 1] pixels, about the mean of CIFAR-10


@dataclass(frozen=True, slots=True)
class Small:
    """Makes small encoders of 16-pixel images; what victims, thieves and independents share.

    Attributes:
        kind: `mlp` is 768-512-512-d with batch normalization and ReLU, whose over-fitting is
            the signal of dataset inference; `conv` has three convolutions.
        width: hidden units, or 16 times the first filters.
    """

    kind: Kind = "mlp"
    width: int = 512

    def build(self, dim: int, rng: np.random.Generator) -> nn.Module:
        """Return an untrained network from images (n, 3, 16, 16), uint8 or [0, 1], to (n, dim)."""
        if self.kind not in KINDS:
            raise ConfigurationError(f"expected a network mlp or conv, got {self.kind!r}")
        with seeded_init(rng):
            body = _mlp(self.width, dim) if self.kind == "mlp" else _conv(self.width // 16, dim)
            return SmallNetwork(body)


class SmallNetwork(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    """Reads images of 16 by 16 pixels."""

    accepts = "image"

    def __init__(self, body: nn.Module) -> None:
        """Put a body behind the reading of pixels."""
        super().__init__()
        self.body = body

    def prepare(self, inputs: Batch) -> Tensor:
        """Return uint8 (n, 3, 16, 16) of images (n, 16, 16, 3)."""
        return pixels(inputs)

    def forward(self, images: Tensor) -> Tensor:
        """Embed uint8 or [0, 1] images (n, 3, 16, 16): (n, d)."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        embedded: Tensor = self.body(images - _SHIFT)
        return embedded


def _mlp(width: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * SIDE * SIDE, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, dim),
    )


def _conv(filters: int, dim: int) -> nn.Sequential:
    def unit(before: int, after: int) -> list[nn.Module]:
        return [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]

    return nn.Sequential(
        *unit(3, filters),
        *unit(filters, 2 * filters),
        *unit(2 * filters, 4 * filters),
        nn.Flatten(),
        nn.Linear(16 * filters, dim),
    )
