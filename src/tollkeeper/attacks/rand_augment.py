"""RandAugment on tensors: a few random operations at one magnitude."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tollkeeper.attacks import image_ops
from tollkeeper.errors import ConfigurationError

_STEPS = 30
"""The magnitude at which operations have their full strength."""

Operation = Callable[[Tensor, Tensor], Tensor]
"""Images (k, 3, h, w) and their signed strengths (k,) in [-1, 1] to images."""


@dataclass(frozen=True, slots=True)
class RandAugment:
    """Apply `count` operations to each image, each drawn from 14 with equal chances.

    identity; autocontrast; equalize; rotate (30 degrees at full strength); shear along x or y
    (0.3); translate along x or y (150/331 of the image); posterize (to 4 bits); solarize
    (everything); color, contrast, brightness, sharpness (factor 1 +- 0.9). Geometry, color,
    contrast, brightness and sharpness have a random sign; geometry takes the nearest pixel and
    fills with black.

    Source: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced
    Search Space", CVPR Workshops 2020; ranges of its public implementations.

    Differences from the package that Cont-Steal's code uses (magnitudes 0 to 30 as well): that
    one also inverts, adds before solarizing and cuts out, its color factors have no random sign
    (0.94 at magnitude 14, hardly a change), it posterizes to 1 bit there, and it translates by
    pixels of a 224-pixel image.

    Attributes:
        count: operations per image, one after the other.
        magnitude: in [0, 30].
    """

    count: int = 2
    magnitude: int = 14

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a count or magnitude out of range."""
        if self.count < 0 or not 0 <= self.magnitude <= _STEPS:
            raise ConfigurationError(
                f"expected a count of at least 0 and a magnitude in [0, {_STEPS}], "
                f"got {self.count} and {self.magnitude}"
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return an augmented copy of images (n, 3, h, w) in [0, 1].

        Raises:
            InputError: something else than float images.
        """
        image_ops.check_images(x)
        x = x.clone()
        where = generator.device
        for _ in range(self.count):
            choice = torch.randint(len(OPERATIONS), (len(x),), generator=generator, device=where)
            sign = 2 * torch.randint(2, (len(x),), generator=generator, device=where) - 1
            strength = (sign * (self.magnitude / _STEPS)).to(x.device)
            for number, operation in enumerate(OPERATIONS):
                rows = (choice == number).nonzero().flatten().to(x.device)
                if len(rows):
                    x[rows] = operation(x[rows], strength[rows])
        return x


def _identity(x: Tensor, _: Tensor) -> Tensor:
    return x


def _autocontrast(x: Tensor, _: Tensor) -> Tensor:
    return image_ops.autocontrast(x)


def _equalize(x: Tensor, _: Tensor) -> Tensor:
    return image_ops.equalize(x)


def _rotate(x: Tensor, strength: Tensor) -> Tensor:
    angle = math.radians(30) * strength
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return image_ops.warp(x, image_ops.rows_of((cos, -sin, zero), (sin, cos, zero)))


def _shear_x(x: Tensor, strength: Tensor) -> Tensor:
    slope = 0.3 * strength
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    # The top row stays where it is, as in Pillow.
    return image_ops.warp(
        x, image_ops.rows_of((one, slope, slope * x.shape[2] / 2), (zero, one, zero))
    )


def _shear_y(x: Tensor, strength: Tensor) -> Tensor:
    slope = 0.3 * strength
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    return image_ops.warp(
        x, image_ops.rows_of((one, zero, zero), (slope, one, slope * x.shape[3] / 2))
    )


def _translate_x(x: Tensor, strength: Tensor) -> Tensor:
    pixels = (150 / 331 * x.shape[3] * strength).trunc()
    return image_ops.shift(x, right=pixels, down=torch.zeros_like(pixels))


def _translate_y(x: Tensor, strength: Tensor) -> Tensor:
    pixels = (150 / 331 * x.shape[2] * strength).trunc()
    return image_ops.shift(x, right=torch.zeros_like(pixels), down=pixels)


def _posterize(x: Tensor, strength: Tensor) -> Tensor:
    return image_ops.posterize(x, 8 - (4 * strength.abs()).round())


def _solarize(x: Tensor, strength: Tensor) -> Tensor:
    return image_ops.solarize(x, 1 - strength.abs())


def _color(x: Tensor, strength: Tensor) -> Tensor:
    return image_ops.blend(x, image_ops.gray(x), 1 + 0.9 * strength)


def _contrast(x: Tensor, strength: Tensor) -> Tensor:
    middle = image_ops.gray(x).mean(dim=(2, 3), keepdim=True)
    return image_ops.blend(x, middle, 1 + 0.9 * strength)


def _brightness(x: Tensor, strength: Tensor) -> Tensor:
    return image_ops.blend(x, torch.zeros_like(x), 1 + 0.9 * strength)


def _sharpness(x: Tensor, strength: Tensor) -> Tensor:
    return image_ops.sharpen(x, 1 + 0.9 * strength)


OPERATIONS: tuple[Operation, ...] = (
    _identity,
    _autocontrast,
    _equalize,
    _rotate,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _posterize,
    _solarize,
    _color,
    _contrast,
    _brightness,
    _sharpness,
)
