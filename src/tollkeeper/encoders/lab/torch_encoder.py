"""A torch network of images as an encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tollkeeper.encoders.base import Modality, checked
from tollkeeper.encoders.inputs import require
from tollkeeper.encoders.lab.pixels import Pixels
from tollkeeper.errors import ConfigurationError, EncoderError, InputError
from tollkeeper.types import Batch, Embeddings

_BATCH = 64
"""Images that run together; bounds memory."""


def best_device() -> torch.device:
    """Return the first GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class TorchEncoder:
    """Embeds RGB images with a torch network, in full precision.

    It uses as many threads as torch is set to, not those of `load_encoder`: the setting is
    global and belongs to whoever started the process.

    Attributes:
        name: the model name clients ask for.
        dim: embedding width d, found by one probe run.
        accepts: `{"image"}`.
        rows_independent: False; torch adds up in another order for another number of rows.
        network: the module, in evaluation mode.
        pixels: what happens to an image before.
    """

    name: str
    dim: int
    accepts: frozenset[Modality] = frozenset({"image"})
    rows_independent: bool = False

    def __init__(
        self, network: nn.Module, pixels: Pixels, *, name: str, device: torch.device | None = None
    ) -> None:
        """Move the network to its device and run it once.

        Args:
            network: from (n, 3, crop, crop) float32 to (n, d).
            pixels: makes that input from images.
            name: model name.
            device: where to run; by default `best_device()`.

        Raises:
            ConfigurationError: the network does not take such input, or does not embed.
        """
        self.name = name
        self.pixels = pixels
        self._device = device or best_device()
        self.network = network.float().eval().to(self._device)
        side = pixels.crop
        try:
            self.dim = self._run(np.zeros((1, side, side, 3), np.uint8), dim=None).shape[1]
        except EncoderError as error:
            raise ConfigurationError(f"{name} loads but fails on a first image: {error}") from error

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n images.

        Args:
            inputs: n uint8 RGB arrays (h, w, 3) of any sizes, or one array (n, h, w, 3).

        Returns:
            (n, d) float32, finite, in input order.

        Raises:
            InputError: an input is no such image.
            EncoderError: the network failed.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        require(inputs, self.accepts, name=self.name)
        starts = range(0, len(inputs), _BATCH)
        return np.concatenate([self._run(inputs[i : i + _BATCH], dim=self.dim) for i in starts])

    def _run(self, images: Batch, *, dim: int | None) -> Embeddings:
        """Embed at most `_BATCH` images: (len(images), d) float32."""
        try:
            with torch.inference_mode():
                rows = self.network(torch.from_numpy(self.pixels(images)).to(self._device))
                answer = rows.float().cpu().numpy()
        except InputError:
            raise
        except Exception as error:  # a foreign network may fail in any way, out of memory too
            raise EncoderError(f"the network failed with {type(error).__name__}") from error
        return checked(answer, n=len(images), dim=dim)
