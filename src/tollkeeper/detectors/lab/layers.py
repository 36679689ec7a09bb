"""What lies inside a victim, as networks of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.lab.conv3 import Conv3


class Features(nn.Module):
    """The layer under a Conv3's last one."""

    def __init__(self, network: Conv3) -> None:
        """Hold the victim, whose weights are shared."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, d) features of (n, c, h, w) pictures in [0, 1], none negative."""
        return self.network.embed(images)


class Layers(nn.Module):
    """A Conv3's maps after each stage, averaged to at most `side` x `side`, and its hidden units."""

    def __init__(self, network: Conv3, *, side: int = 4) -> None:
        """Hold the victim, whose weights are shared."""
        super().__init__()
        self.network, self._side = network, side

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one (n, d) for each convolution and one of the hidden units."""
        found, rows = [], 2 * images - 1
        stages = list(self.network.features)
        for at, stage in enumerate(stages):
            rows = stage(rows)
            following = stages[at + 1 : at + 2]
            if isinstance(stage, (nn.ReLU, nn.MaxPool2d)) and not isinstance(
                following[0], nn.MaxPool2d
            ):
                found.append(_averaged(rows, self._side))
        found.append(self.network.hidden(rows))
        return tuple(found)


def _averaged(maps: Tensor, side: int) -> Tensor:
    # The sizes are constants of the graph.
    height, width = int(maps.shape[2]), int(maps.shape[3])
    kernel = (-(-height // side), -(-width // side))
    return torch.flatten(functional.avg_pool2d(maps, kernel), 1)
