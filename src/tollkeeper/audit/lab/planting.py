"""What the planting of marks shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tollkeeper.audit.watermarks.layers import Layers

Prepare = Callable[[Any], Tensor]
"""Images as an audit holds them, (n, h, w, c) uint8 or (n, c, h, w) float32 in [0, 1], to the rows
that the network takes, on the CPU."""


class TorchLayers(nn.Module):
    """A key's network in torch, with the key's numbers."""

    def __init__(self, layers: Layers, *, trained: bool = False) -> None:
        """Copy the numbers; `trained` says whether they may change."""
        super().__init__()
        parts: list[nn.Module] = []
        for weight, bias in zip(layers.weights, layers.biases, strict=True):
            part = nn.Linear(*weight.shape)
            part.weight.data = torch.from_numpy(weight.T.copy())
            part.bias.data = torch.from_numpy(bias.copy())
            parts += [part, nn.ReLU()]
        self.layers = nn.Sequential(*parts[:-1])
        self.requires_grad_(trained)

    def forward(self, rows: Tensor) -> Tensor:
        """Return (n, outputs)."""
        found: Tensor = self.layers(rows)
        return found

    def numbers(self) -> Layers:
        """Return the numbers as they are now."""
        linear = [part for part in self.layers if isinstance(part, nn.Linear)]
        return Layers(
            tuple(part.weight.detach().cpu().numpy().T.copy() for part in linear),
            tuple(part.bias.detach().cpu().numpy().copy() for part in linear),
        )


class Still(nn.Module):
    """A network that is trained while its batch normalization keeps the statistics it has.

    Marked inputs are unlike ordinary ones; averaged into the statistics they would move every
    honest embedding.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network; its parameters are the wrapper's."""
        super().__init__()
        self.network = network

    def train(self, mode: bool = True) -> Still:  # noqa: FBT001, FBT002 - torch's signature
        """Put all but the normalizations into training mode."""
        super().train(mode)
        for part in self.network.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.eval()
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """Return what the network returns."""
        found: Tensor = self.network(rows)
        return found
