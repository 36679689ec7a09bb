"""From uint8 images to what a network sees: scaled, cropped, normalized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from tollkeeper.errors import InputError
from tollkeeper.types import Batch

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)

MAX_RATIO = 64
"""Longer stripes are refused: scaling their shorter side up would fill the memory."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Scales an image, cuts out its center and normalizes each channel.

    Attributes:
        crop: pixels per side of the square that is left.
        resize: pixels that the shorter side is scaled to first, at least `crop`.
        mean: of each channel, on a scale from 0 to 1.
        std: standard deviation of each channel, on the same scale.
        keeps_ratio: False scales both sides to `resize`, whatever the shape was.
        filter: antialiased filter of the scaling.
    """

    crop: int = 224
    resize: int = 256
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    keeps_ratio: bool = True
    filter: Resampling = Resampling.BILINEAR

    def __call__(self, images: Batch) -> NDArray[np.float32]:
        """Prepare n uint8 images (h, w, 3) of any sizes: (n, 3, crop, crop) float32.

        Raises:
            InputError: an image is more than `MAX_RATIO` times as long as wide.
        """
        squares = np.stack([self._square(image) for image in images])
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        scaled = (squares.astype(np.float32) / 255 - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))

    def _square(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale and cut one image: (crop, crop, 3)."""
        height, width = self._scaled(*image.shape[:2])
        if (height, width) != image.shape[:2]:
            picture = Image.fromarray(np.ascontiguousarray(image))
            image = np.asarray(picture.resize((width, height), self.filter))
        # Half pixels are rounded to even, as in the pipelines that the weights were made with.
        top, left = round((height - self.crop) / 2), round((width - self.crop) / 2)
        return image[top : top + self.crop, left : left + self.crop]

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width after scaling; the longer side is rounded down."""
        if not self.keeps_ratio:
            return self.resize, self.resize
        short, long = sorted((height, width))
        if long > MAX_RATIO * short:
            raise InputError(
                f"expected an image at most {MAX_RATIO} times as long as wide, "
                f"got {height}x{width} pixels; cut it",
                param="input",
            )
        return self.resize * height // short, self.resize * width // short


def native(side: int, mean: Triple, std: Triple) -> Pixels:
    """Return what networks of small images see: all of it, squeezed to a square if need be."""
    return Pixels(crop=side, resize=side, mean=mean, std=std, keeps_ratio=False)
