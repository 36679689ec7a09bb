"""Averages of several answers, which fresh or per-input noise does not survive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError, InputError
from tollkeeper.types import Batch, Embeddings

Views = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]
"""Makes one random view of each of n images: (n, h, w, 3) uint8 to (n, h', w', 3) uint8."""


@dataclass(frozen=True, slots=True)
class AverageRepeats:
    """Asks for every input m times, in m calls, and averages.

    Under fresh noise of variance σ² the average keeps σ²/m. Repeats open no new bucket, so B4B
    as published neither charges for them nor raises the noise. Against noise that is a fixed
    function of the input it gains nothing.

    Attributes:
        times: m, at least 1.
    """

    asks_per_input: ClassVar[int] = 1
    times: int = 10

    def __post_init__(self) -> None:
        """Refuse to ask less than once."""
        _check_count("repeats", self.times)

    def ask(self, victim: Encoder, inputs: Batch, *, rng: np.random.Generator) -> Embeddings:
        """Return the (n, d) averages over m calls."""
        del rng
        total = np.zeros((len(inputs), victim.dim))
        for _ in range(self.times):
            total += victim.embed(inputs)
        return (total / self.times).astype(np.float32)

    def finish(self, embeddings: Embeddings) -> Embeddings:
        """Return the averages as they are."""
        return embeddings


@dataclass(frozen=True, slots=True)
class AverageAugmentations:
    """Asks for m random views of every image and averages their embeddings.

    Removes noise that is fixed per input too, at the price of m queries an image and of what
    the views change in the clean embedding. Source: the prototypes of RDA (Wu et al., "Refine,
    Discriminate and Align", ECCV 2024). Differences from the paper: RDA scales every view's
    embedding to length 1 before it averages; here lengths are kept, so that objectives on raw
    embeddings can be used.

    Attributes:
        views: m, at least 1.
        augment: makes one random view of each image.
    """

    augment: Views
    views: int = 10

    def __post_init__(self) -> None:
        """Refuse to ask less than once."""
        _check_count("views", self.views)

    @property
    def asks_per_input(self) -> int:
        """Every view is a query."""
        return self.views

    def ask(self, victim: Encoder, inputs: Batch, *, rng: np.random.Generator) -> Embeddings:
        """Return the (n, d) averages over m views.

        Raises:
            InputError: the inputs are not RGB images of one size.
            TollkeeperError: from the victim.
        """
        images = _images(inputs)
        total = np.zeros((len(images), victim.dim))
        for _ in range(self.views):
            total += victim.embed(self.augment(images, rng))
        return (total / self.views).astype(np.float32)

    def finish(self, embeddings: Embeddings) -> Embeddings:
        """Return the averages as they are."""
        return embeddings


def estimate_noise(victim: Encoder, inputs: Batch, *, repeats: int) -> NDArray[np.float64]:
    """Estimate the noise scale of n inputs from repeated questions, which cost no queries.

    Args:
        victim: whom to ask.
        inputs: n inputs.
        repeats: m calls, at least 2.

    Returns:
        (n,) standard deviation per coordinate, from d * (m - 1) degrees of freedom. Zero where
        the noise is a fixed function of the input.

    Raises:
        ConfigurationError: fewer than 2 repeats.
        TollkeeperError: from the victim.
    """
    if repeats < 2:
        raise ConfigurationError(f"expected at least 2 repeats to see a spread, got {repeats}")
    answers = np.stack([victim.embed(inputs) for _ in range(repeats)]).astype(np.float64)
    scales: NDArray[np.float64] = np.sqrt(answers.var(axis=0, ddof=1).mean(axis=1))
    return scales


def _check_count(what: str, count: int) -> None:
    if count < 1:
        raise ConfigurationError(f"expected at least 1 of the {what}, got {count}")


def _images(inputs: Batch) -> NDArray[np.uint8]:
    """Return n images as one array (n, h, w, 3), or say what is wrong."""
    try:
        images = np.asarray(inputs)
    except ValueError as error:
        raise InputError(f"expected images of one size to make views of: {error}") from error
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise InputError(
            "expected uint8 images of shape (n, h, w, 3) to make views of, "
            f"got {images.dtype} {images.shape}"
        )
    return images
