"""What all image surrogates share: reading pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tollkeeper.attacks.surrogate import pixels
from tollkeeper.types import Batch


class ImageNetwork(nn.Module):
    """Reads images; uint8 is scaled to [0, 1]."""

    accepts = "image"

    def prepare(self, inputs: Batch) -> Tensor:
        """Return uint8 (n, 3, h, w)."""
        return pixels(inputs)

    def scaled(self, images: Tensor) -> Tensor:
        """Return float (n, 3, h, w) around zero, channels last."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return ((images - 0.5) * 4).contiguous(memory_format=torch.channels_last)
