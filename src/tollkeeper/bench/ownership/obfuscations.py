"""What a thief may do to its copy before it serves it, so that it is not recognized.

Source: ownership method, section 11.3: output maps, loss of precision, and noise. Two more change
the copy itself: half of its weights set to zero, and some more training on own images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tollkeeper.attacks.surrogate import Surrogate
from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Batch, Embeddings

Change = Callable[[Embeddings], NDArray[np.floating]]
"""(n, d) answers to what is served instead, (n, d')."""

Fit = Callable[[Embeddings, np.random.Generator], Change]
"""Own embeddings of public images, and randomness, to a change."""

_PADS = 16
_PAD = 2.5
"""The constant of the released script of dataset inference, whose paper says zeros."""

_SCALE, _OFFSET = -6.3, 4.1


class Obfuscated:
    """An encoder whose answers are changed before they are served.

    Attributes:
        name: of the encoder behind.
        dim: width that is served.
        accepts: as the encoder behind.
    """

    def __init__(self, inner: Encoder, change: Change, dim: int) -> None:
        """Put a change behind an encoder."""
        self.name, self.dim, self.accepts = inner.name, dim, inner.accepts
        self._inner, self._change = inner, change

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs: (n, d) float32."""
        return self._change(self._inner.embed(inputs)).astype(np.float32)


def obfuscated(
    name: str, inner: Encoder, public: NDArray[np.uint8], *, rng: np.random.Generator
) -> Encoder:
    """Return an encoder that hides behind an obfuscation.

    Args:
        name: of `OUTPUTS`.
        inner: the copy.
        public: images that the thief has, to learn means and deviations from.
        rng: the thief's draws; noise is fresh in every answer.
    """
    seen = inner.embed(public)
    change = OUTPUTS[name](seen, rng)
    return Obfuscated(inner, change, change(seen[:2]).shape[1])


def _none(seen: Embeddings, rng: np.random.Generator) -> Change:
    del seen, rng
    return lambda rows: rows


def _shuffle(seen: Embeddings, rng: np.random.Generator) -> Change:
    order = rng.permutation(seen.shape[1])
    return lambda rows: rows[:, order]


def _zero_pad(seen: Embeddings, rng: np.random.Generator) -> Change:
    del seen, rng
    return lambda rows: np.pad(rows, ((0, 0), (0, _PADS)))


def _constant_pad(seen: Embeddings, rng: np.random.Generator) -> Change:
    del seen, rng
    return lambda rows: np.pad(rows, ((0, 0), (0, _PADS)), constant_values=_PAD)


def _scale(seen: Embeddings, rng: np.random.Generator) -> Change:
    del seen, rng
    return lambda rows: _SCALE * rows + _OFFSET


def _rotation(seen: Embeddings, rng: np.random.Generator) -> Change:
    width = seen.shape[1]
    turn, _ = np.linalg.qr(rng.standard_normal((width, width)))
    return lambda rows: rows @ turn


def _affine(seen: Embeddings, rng: np.random.Generator) -> Change:
    width = seen.shape[1]
    matrix, offset = rng.standard_normal((width, width)), rng.standard_normal(width)
    return lambda rows: rows @ matrix + offset * seen.std()


def _unit(seen: Embeddings, rng: np.random.Generator) -> Change:
    del seen, rng
    return lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _drop_half(seen: Embeddings, rng: np.random.Generator) -> Change:
    width = seen.shape[1]
    kept = np.sort(rng.permutation(width)[: width // 2])
    return lambda rows: rows[:, kept]


def _tanh(seen: Embeddings, rng: np.random.Generator) -> Change:
    del rng
    scale = float(seen.std())
    return lambda rows: np.tanh(rows / scale)


def _round(seen: Embeddings, rng: np.random.Generator) -> Change:
    del rng
    step = seen.std(axis=0)
    return lambda rows: np.round(rows / step) * step


def _sign(seen: Embeddings, rng: np.random.Generator) -> Change:
    del rng
    middle = np.median(seen, axis=0)
    return lambda rows: np.where(rows > middle, 1.0, -1.0)


@dataclass(frozen=True, slots=True)
class Noise:
    """Fresh Gaussian noise in every answer.

    Attributes:
        scale: its deviation, in deviations of each coordinate.
    """

    scale: float

    def __call__(self, seen: Embeddings, rng: np.random.Generator) -> Change:
        """Fit."""
        deviation = self.scale * seen.std(axis=0)
        return lambda rows: rows + deviation * rng.standard_normal(rows.shape)


OUTPUTS: Mapping[str, Fit] = {
    "none": _none,
    "shuffle": _shuffle,
    "zero_pad": _zero_pad,
    "constant_pad": _constant_pad,
    "scale": _scale,
    "rotation": _rotation,
    "affine": _affine,
    "unit": _unit,
    "drop_half": _drop_half,
    "tanh": _tanh,
    "round": _round,
    "sign": _sign,
    "noise_0.1": Noise(0.1),
    "noise_0.3": Noise(0.3),
    "noise_1": Noise(1.0),
}
"""Changes of answers by name."""


def pruned(inner: Surrogate, share: float = 0.5) -> Surrogate:
    """Return a copy whose smallest weights are zero, in each layer the same share."""
    network = copy.deepcopy(inner.network)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                size = layer.weight.abs()
                layer.weight *= size > torch.quantile(size, share)
    return Surrogate(network, dim=inner.dim, name=inner.name)
