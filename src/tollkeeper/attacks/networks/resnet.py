"""ResNets as surrogates: the architecture of the published attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.networks.images import ImageNetwork
from tollkeeper.encoders.lab.resnet import resnet
from tollkeeper.lab.torching import device, seeded_init


@dataclass(frozen=True, slots=True)
class ResNet:
    """ResNet-18, 34 or 50 (He et al. 2016), with a linear layer where the width differs.

    Attributes:
        depth: 18, 34 or 50.
        stem: `"small"` for 32x32 images, `"imagenet"` for 224x224.
    """

    depth: int = 18
    stem: Literal["small", "imagenet"] = "small"

    def build(self, dim: int, rng: np.random.Generator) -> nn.Module:
        """Return a network from images (n, 3, h, w) to (n, dim)."""
        with seeded_init(rng):
            network = _Network(resnet(self.depth, stem=self.stem, dim=dim))
        return network.to(device(), memory_format=torch.channels_last)


class _Network(ImageNetwork):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Embed uint8 or [0, 1] images (n, 3, h, w): (n, dim)."""
        embedded: Tensor = self.body(self.scaled(images))
        return embedded
