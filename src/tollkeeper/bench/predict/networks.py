"""The networks of victims, detectors and copies, by name."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor, nn

from tollkeeper.encoders.lab.resnet import resnet
from tollkeeper.lab.conv3 import conv3
from tollkeeper.lab.torching import seeded_init

Kind = Literal["conv3", "resnet18"]
"""`resnet18` is SAME's victim on CIFAR-10: torchvision's, made for 224 pixels."""


class ResNetClassifier(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    """A ResNet-18 from (n, c, h, w) in [0, 1] to (n, k) logits."""

    def __init__(self, classes: int) -> None:
        """Make an untrained network."""
        super().__init__()
        self.body = resnet(18, stem="imagenet", dim=classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.body(2 * images - 1)
        return logits


def build(
    kind: Kind,
    shape: tuple[int, int, int],
    classes: int,
    rng: np.random.Generator,
    *,
    width: int,
) -> nn.Module:
    """Return an untrained network; `width` is of `conv3` alone."""
    if kind == "conv3":
        return conv3(shape, classes, rng, width=width)
    with seeded_init(rng):
        return ResNetClassifier(classes)
