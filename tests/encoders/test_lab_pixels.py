"""Promises of what networks see of an image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from tollkeeper.encoders.lab.pixels import IMAGENET_MEAN, IMAGENET_STD, Pixels, native
from tollkeeper.errors import InputError


def image(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return random pixels (height, width, 3)."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "scaled", "corner"),
    [
        (300, 451, (256, 384), (16, 80)),
        (451, 300, (384, 256), (80, 16)),
        (20, 37, (256, 473), (16, 124)),
        (256, 256, (256, 256), (16, 16)),
    ],
)
@pytest.mark.parametrize("resample", [Resampling.BILINEAR, Resampling.BICUBIC])
def test_the_shorter_side_is_scaled_and_the_center_cut(
    height: int, width: int, scaled: tuple[int, int], corner: tuple[int, int], resample: Resampling
) -> None:
    """An image becomes 256 pixels on its shorter side, and its 224x224 center is normalized."""
    given = image(height, width)
    picture = Image.fromarray(given).resize(scaled[::-1], resample)
    top, left = corner
    cut = np.asarray(picture)[top : top + 224, left : left + 224]
    seen = Pixels(filter=resample)([given])
    assert seen.shape == (1, 3, 224, 224)
    assert seen.dtype == np.float32
    for channel in range(3):
        expected = (cut[:, :, channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        np.testing.assert_allclose(seen[0, channel], expected, atol=1e-5)


def test_small_images_pass_as_they_are() -> None:
    """Networks of small images get every pixel of an image of their size."""
    pixels = native(8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    given = np.stack([image(8, 8), image(8, 8)])
    np.testing.assert_allclose(
        pixels(given), (given.transpose(0, 3, 1, 2) / 255 - 0.5) * 4, atol=1e-6
    )


def test_other_images_are_squeezed_for_small_networks() -> None:
    """Nothing is cut off an image that is no square."""
    given = image(20, 40)
    squeezed = np.asarray(Image.fromarray(given).resize((8, 8), Resampling.BILINEAR))
    seen = native(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))([given])
    np.testing.assert_allclose(seen[0], squeezed.transpose(2, 0, 1) / 255, atol=1e-6)


def test_stripes_are_refused() -> None:
    """An image that would fill the memory when its shorter side is scaled up is named."""
    with pytest.raises(InputError, match="64 times as long as wide, got 1x65"):
        Pixels()([image(1, 65)])
    assert Pixels()([image(1, 64)]).shape == (1, 3, 224, 224)
