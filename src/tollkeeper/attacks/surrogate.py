"""A torch network as an `Encoder`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.encoders.base import Modality, checked
from tollkeeper.errors import InputError
from tollkeeper.types import Batch, Embeddings

_BATCH = 512


class Network(Protocol):
    """What a surrogate is made of: knows how to read raw inputs, and how to embed them.

    Implementations are `torch.nn.Module`s as well.

    Attributes:
        accepts: the one modality that it reads.
    """

    accepts: Modality

    def prepare(self, inputs: Batch) -> Tensor:
        """Turn n inputs into a tensor with n rows, on the CPU."""
        ...

    def __call__(self, prepared: Tensor) -> Tensor:
        """Embed prepared rows: (n, d)."""
        ...


class NetworkFactory(Protocol):
    """Makes networks; a frozen dataclass of their sizes."""

    def build(self, dim: int, rng: np.random.Generator) -> nn.Module:
        """Return a new `Network` of embedding width `dim` with random weights."""
        ...


class Surrogate:
    """The attacker's copy: keeps the `Encoder` interface around a network.

    Attributes:
        network: the torch module, in evaluation mode.
        name: of the attack that made it.
        dim: embedding width d.
        accepts: the modality that it reads.
    """

    rows_independent = False

    def __init__(self, network: nn.Module, *, dim: int, name: str = "surrogate") -> None:
        """Wrap a `Network`."""
        self.network = network.eval()
        self.name = name
        self.dim = dim
        self.accepts: frozenset[Modality] = frozenset({network.accepts})

    @torch.inference_mode()
    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs: (n, d) float32.

        Raises:
            InputError: the network does not read such inputs.
            EncoderError: it returned something else than finite numbers.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        target = next(self.network.parameters()).device
        parts = [
            self.network(self.network.prepare(inputs[start : start + _BATCH]).to(target))
            for start in range(0, len(inputs), _BATCH)
        ]
        return checked(torch.cat(parts).float().cpu().numpy(), n=len(inputs), dim=self.dim)

    def save(self, path: str | Path) -> None:
        """Write the network's weights as a torch state dict."""
        torch.save(self.network.state_dict(), path)


def pixels(inputs: Batch) -> Tensor:
    """Return n images of one size as a uint8 tensor (n, 3, h, w).

    Raises:
        InputError: something else than RGB images of one size.
    """
    try:
        array = np.stack([np.asarray(image) for image in inputs])
    except ValueError as error:
        raise InputError(f"expected images of one size: {error}") from error
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
        raise InputError(
            f"expected uint8 images of shape (n, h, w, 3), got {array.dtype} {array.shape}"
        )
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())
