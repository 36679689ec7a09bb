"""The small convolutional classifiers of the prediction experiments."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.lab.torching import seeded_init


class Conv3(nn.Module):
    """Three convolutions and two layers, without batch normalization.

    Source: Xie et al., "SAME: Sample Reconstruction against Model Extraction Attacks", AAAI 2024,
    released code: convolutions 3x3 of 32, 64 and 128 filters, pools after the first and the third,
    then 512 hidden units; 28x28 pixels leave 2,048 features.
    Notes: `width` scales the filters; 16 is half of the paper's. Inputs are in [0, 1] and mapped
    to [-1, 1] inside.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, *, width: int = 32) -> None:
        """Make an untrained network for (n, c, h, w) pictures."""
        super().__init__()
        channels, height, _ = shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        with torch.no_grad():
            flat = self.features(torch.zeros(1, channels, height, shape[2])).shape[1]
        self.hidden = nn.Sequential(nn.Linear(flat, 16 * width), nn.ReLU())
        self.head = nn.Linear(16 * width, classes)

    def embed(self, images: Tensor) -> Tensor:
        """Return (n, 16 width) features under the last layer."""
        found: Tensor = self.hidden(self.features(2 * images - 1))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, k) logits of (n, c, h, w) pictures in [0, 1]."""
        logits: Tensor = self.head(self.embed(images))
        return logits


def conv3(
    shape: tuple[int, int, int], classes: int, rng: np.random.Generator, *, width: int = 32
) -> Conv3:
    """Return an untrained network whose weights come from `rng`."""
    with seeded_init(rng):
        return Conv3(shape, classes, width=width)
