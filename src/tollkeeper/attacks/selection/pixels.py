"""Inputs from nowhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError


def random_pixels(count: int, side: int, *, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make images whose pixels are all uniform and independent.

    Most encoders put them close together, so they fall into few buckets: near-free probes of
    the noise floor and of a transform, and the cheapest anchors between accounts.

    Args:
        count: n images, at least 1.
        side: pixels a side, at least 1.
        rng: draws the pixels.

    Returns:
        (n, side, side, 3) uint8.

    Raises:
        ConfigurationError: no image, or none with pixels.
    """
    if count < 1 or side < 1:
        raise ConfigurationError(f"expected at least one image and pixel, got {count} of {side}")
    return rng.integers(0, 256, size=(count, side, side, 3), dtype=np.uint8)
