"""The network of random weights that stands for a thief's in maximizing angular deviation."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tollkeeper.lab.conv3 import Conv3, conv3
from tollkeeper.lab.exporting import export_graph

OUTPUTS = ("features", "logits")


class _Surrogate(nn.Module):
    """Gives what is under the last layer as well."""

    def __init__(self, network: Conv3) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.embed(images)
        return features, self.network.head(features)


def random_surrogate(
    shape: tuple[int, int, int], classes: int, rng: np.random.Generator, *, width: int = 16
) -> bytes:
    """Return a graph of an untrained `Conv3`, with the outputs "features" and "logits".

    Args:
        shape: (c, h, w) of the pictures.
        classes: of the victim.
        rng: its weights, which are a secret of the defender.
        width: of the network.
    """
    network = conv3(shape, classes, rng, width=width)
    return export_graph(_Surrogate(network), shape, outputs=OUTPUTS)
