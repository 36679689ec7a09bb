"""A small convolutional surrogate that trains on two cores in about a minute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.networks.images import ImageNetwork
from tollkeeper.lab.torching import device, seeded_init


@dataclass(frozen=True, slots=True)
class ConvNet:
    """Five convolutional stages, global average pooling, one linear layer.

    Attributes:
        width: channels of the first stage; the last has 16 times as many.
        side: pixels to which images are averaged down first; fewer are faster.
    """

    width: int = 16
    side: int = 24

    def build(self, dim: int, rng: np.random.Generator) -> nn.Module:
        """Return a network from images (n, 3, h, w) to (n, dim)."""
        with seeded_init(rng):
            network = _ConvNetwork(self.width, self.side, dim)
        return network.to(device(), memory_format=torch.channels_last)


class _ConvNetwork(ImageNetwork):
    def __init__(self, width: int, side: int, dim: int) -> None:
        super().__init__()
        self.side = side
        self.stages = nn.Sequential(
            _unit(3, width, kernel=4, stride=2),
            _unit(width, 2 * width),
            _unit(2 * width, 4 * width, stride=2),
            _Residual(4 * width),
            _unit(4 * width, 8 * width, stride=2),
            _unit(8 * width, 16 * width, kernel=1),
        )
        self.head = nn.Linear(16 * width, dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed uint8 or [0, 1] images (n, 3, h, w): (n, dim)."""
        x = self.scaled(images)
        if x.shape[-1] != self.side:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True)
        embedded: Tensor = self.head(self.stages(x).mean(dim=(2, 3)))
        return embedded


def _unit(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution, batch normalization and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """Two 3x3 convolutions with a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _unit(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (n, channels, h, w)."""
        return F.relu(x + self.second(self.first(x)))
