"""A torch network as a classifier of this process."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tollkeeper.encoders.base import Modality
from tollkeeper.encoders.classifiers.base import canonical, softmax
from tollkeeper.types import Batch, Probabilities

_TOGETHER = 512


class TorchClassifier:
    """Answers with the softmax of a network's logits.

    Attributes:
        name: of the model.
        classes: names of the columns.
        input_shape: (c, h, w).
        dim: number of classes.
        accepts: pictures and tensors.
        network: from (n, c, h, w) float32 in [0, 1] to (n, k) logits, in evaluation mode.
    """

    accepts: frozenset[Modality] = frozenset({"image", "tensor"})

    def __init__(
        self,
        network: nn.Module,
        *,
        input_shape: tuple[int, int, int],
        classes: tuple[str, ...],
        name: str = "classifier",
    ) -> None:
        """Hold a network, which is put into evaluation mode."""
        self.network = network.eval()
        self.input_shape, self.classes, self.name = input_shape, classes, name
        self.dim = len(classes)

    def embed(self, inputs: Batch) -> Probabilities:
        """Return (n, k) float32 probabilities of n pictures or tensors.

        Raises:
            InputError: another size, or values out of range.
            EncoderError: the network's answer is not finite.
        """
        rows = torch.from_numpy(canonical(inputs, self.input_shape, name=self.name))
        where = next(self.network.parameters()).device
        with torch.no_grad():
            parts = [self.network(part.to(where)).cpu() for part in rows.split(_TOGETHER)]
        logits = torch.cat(parts).numpy() if len(rows) else np.empty((0, self.dim), np.float32)
        return softmax(logits, n=len(rows), classes=self.dim)
