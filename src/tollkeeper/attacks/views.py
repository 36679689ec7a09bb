"""Asking for several random views of each input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tollkeeper.attacks.asking import BATCH
from tollkeeper.attacks.augment import Augmentation, from_images, to_images
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError, TollkeeperError
from tollkeeper.lab.progress import Progress, Step
from tollkeeper.lab.torching import generator
from tollkeeper.types import Batch, Embeddings


@dataclass(frozen=True, slots=True, eq=False)
class ViewAnswers:
    """What a victim answered to v views of each of m images.

    Attributes:
        pixels: (v, m, h, w, 3) uint8, exactly what was asked.
        embeddings: (v, m, d) float32.
    """

    pixels: NDArray[np.uint8]
    embeddings: Embeddings


def ask_views(
    victim: Encoder,
    images: Batch,
    *,
    views: int,
    augment: Augmentation,
    rng: np.random.Generator,
    progress: Progress,
) -> ViewAnswers:
    """Ask for v views of each of m images; each view is a query of its own.

    All views of an image are asked before the next images, so that a victim that stops
    half-way leaves whole images behind.

    Raises:
        ConfigurationError: the inputs are not images of one size.
        TollkeeperError: the victim answered nothing.
    """
    whole = np.asarray(images)
    if whole.ndim != 4:
        raise ConfigurationError("expected images of one size: only images have random views")
    draws = generator(rng)
    step, start = max(1, BATCH // views), 0
    pixels: list[NDArray[np.uint8]] = []
    answers: list[Embeddings] = []
    while start < len(whole):
        some = from_images(whole[start : start + step])
        seen = np.stack([to_images(augment(some, draws)) for _ in range(views)])
        try:
            rows = victim.embed(seen.reshape(-1, *seen.shape[2:]))
        except TollkeeperError:
            if step > 1:
                step = 1  # little is lost when the victim stops for good
                continue
            if not answers:
                raise
            break
        pixels.append(seen)
        answers.append(rows.reshape(views, len(some), -1))
        start += len(some)
        progress(Step("asking", start, len(whole)))
    return ViewAnswers(np.concatenate(pixels, axis=1), np.concatenate(answers, axis=1))


def floats(images: Tensor) -> Tensor:
    """Return uint8 images (n, 3, h, w) as floats in [0, 1], on the same device."""
    return images.float() / 255
