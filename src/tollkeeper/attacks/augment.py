"""Random views of images, on tensors, each image with draws of its own.

An augmentation maps float images (n, 3, h, w) in [0, 1] to such images. All draws come from the
generator that is handed in and do not depend on pixels or device. Views are quantized with
`to_images` before a victim is asked, so that the surrogate can be trained on what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tollkeeper.attacks import image_ops
from tollkeeper.attacks.image_ops import check_images
from tollkeeper.attacks.rand_augment import RandAugment
from tollkeeper.errors import ConfigurationError, InputError

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""Float images (n, 3, h, w) in [0, 1] and a source of draws to (n, 3, h', w') in [0, 1]."""


def from_images(images: NDArray[np.uint8]) -> Tensor:
    """Return uint8 images (n, h, w, 3) as a float tensor (n, 3, h, w) in [0, 1].

    Raises:
        InputError: something else than uint8 RGB images of one size.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise InputError(
            f"expected uint8 images of shape (n, h, w, 3), got {images.dtype} {images.shape}"
        )
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float().div_(255)


def to_images(x: Tensor) -> NDArray[np.uint8]:
    """Return float images (n, 3, h, w) as uint8 (n, h, w, 3), rounded.

    Raises:
        InputError: something else than float images.
    """
    check_images(x)
    values = (x.detach().clamp(0, 1) * 255).round_().to(torch.uint8)
    images: NDArray[np.uint8] = values.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return images


@dataclass(frozen=True, slots=True)
class Compose:
    """Apply augmentations one after the other.

    Attributes:
        steps: in order.
    """

    steps: tuple[Augmentation, ...]

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented images (n, 3, h, w)."""
        for step in self.steps:
            x = step(x, generator)
        return x


@dataclass(frozen=True, slots=True)
class Crop:
    """Cut out a random rectangle and resize it to a square.

    Differences from torchvision's RandomResizedCrop: the rectangle has exactly the drawn area
    (a ratio that would not fit is bent until it does, instead of drawn again), it need not start
    at a whole pixel, and enlarging or shrinking is bilinear without an antialiasing filter.

    Attributes:
        scale: range of its area as a share of the image's, drawn evenly.
        ratio: range of width over height in pixels, drawn evenly on a log scale.
        side: of the result in pixels; None means the image's height.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    side: int | None = None

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a range out of order or a side below 1."""
        _require_range("scale", self.scale, above=0.0, most=1.0)
        _require_range("ratio", self.ratio, above=0.0)
        if self.side is not None and self.side < 1:
            raise ConfigurationError(f"expected a side of at least 1, got {self.side}")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return crops (n, 3, side, side)."""
        check_images(x)
        h, w = x.shape[2:]
        area = _uniform(x, generator, *self.scale)
        log_ratio = _uniform(x, generator, math.log(self.ratio[0]), math.log(self.ratio[1]))
        # In shares of width and height both must stay within 1: area <= ratio <= 1 / area.
        ratio = torch.minimum(torch.maximum(log_ratio.exp() * h / w, area), 1 / area)
        return image_ops.crop(
            x,
            width=(area * ratio).sqrt(),
            height=(area / ratio).sqrt(),
            left=_uniform(x, generator),
            top=_uniform(x, generator),
            side=self.side or h,
        )


@dataclass(frozen=True, slots=True)
class RandomCropPad:
    """Pad with black on all sides and cut out the old size at a random place.

    Attributes:
        padding: pixels on each side.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for negative padding."""
        if self.padding < 0:
            raise ConfigurationError(f"expected padding of at least 0, got {self.padding}")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return shifted images (n, 3, h, w)."""
        check_images(x)
        moves = torch.randint(
            -self.padding,
            self.padding + 1,
            (2, len(x)),
            generator=generator,
            device=generator.device,
        ).to(x.device)
        return image_ops.shift(x, right=moves[0], down=moves[1])


@dataclass(frozen=True, slots=True)
class Flip:
    """Mirror left and right.

    Attributes:
        p: chance of each image.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a chance outside [0, 1]."""
        _require_range("p", (self.p, self.p), most=1.0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (n, 3, h, w), some mirrored."""
        return _changed(x, _chosen(x, self.p, generator), lambda rows: x[rows].flip(3))


@dataclass(frozen=True, slots=True)
class ColorJitter:
    """Change brightness, saturation, hue and contrast.

    Differences from torchvision's: the order is fixed as above, values are clipped once at the
    end, and hue turns in the YIQ plane, so that all of it is one matrix per image.

    Attributes:
        brightness: factors are drawn from [max(0, 1 - this), 1 + this].
        contrast: the same.
        saturation: the same.
        hue: turns are drawn from [-this, this], at most 0.5.
        p: chance of each image.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    p: float = 0.8

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a strength or chance out of range."""
        for name in ("brightness", "contrast", "saturation"):
            _require_range(name, (getattr(self, name),) * 2)
        _require_range("hue", (self.hue, self.hue), most=0.5)
        _require_range("p", (self.p, self.p), most=1.0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (n, 3, h, w), some with other colors."""
        rows = _chosen(x, self.p, generator)
        gain, contrast, chroma = (
            _uniform(x, generator, max(0.0, 1 - strength), 1 + strength)[rows]
            for strength in (self.brightness, self.contrast, self.saturation)
        )
        turn = _uniform(x, generator, -self.hue, self.hue)[rows]
        return _changed(
            x,
            rows,
            lambda rows: image_ops.jitter(
                x[rows], gain=gain, contrast=contrast, chroma=chroma, turn=turn
            ),
        )


@dataclass(frozen=True, slots=True)
class Grayscale:
    """Replace colors by brightness.

    Attributes:
        p: chance of each image.
    """

    p: float = 0.2

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a chance outside [0, 1]."""
        _require_range("p", (self.p, self.p), most=1.0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (n, 3, h, w), some gray."""
        return _changed(x, _chosen(x, self.p, generator), lambda rows: image_ops.gray(x[rows]))


@dataclass(frozen=True, slots=True)
class Blur:
    """Blur with a Gaussian.

    Attributes:
        p: chance of each image.
        sigma: range of its width in pixels, drawn evenly.
        kernel: taps of the filter, odd; the rest of the Gaussian is cut off.
    """

    p: float
    sigma: tuple[float, float] = (0.1, 2.0)
    kernel: int = 13

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a value out of range."""
        _require_range("p", (self.p, self.p), most=1.0)
        _require_range("sigma", self.sigma, above=0.0)
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigurationError(f"expected an odd kernel of at least 1, got {self.kernel}")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (n, 3, h, w), some blurred."""
        rows = _chosen(x, self.p, generator)
        sigma = _uniform(x, generator, *self.sigma)[rows]
        return _changed(x, rows, lambda rows: image_ops.blur(x[rows], sigma, kernel=self.kernel))


@dataclass(frozen=True, slots=True)
class Solarize:
    """Invert bright values.

    Attributes:
        p: chance of each image.
        threshold: values from here on are inverted.
    """

    p: float
    threshold: float = 128 / 255

    def __post_init__(self) -> None:
        """Raise a ConfigurationError for a chance outside [0, 1]."""
        _require_range("p", (self.p, self.p), most=1.0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (n, 3, h, w), some solarized."""
        level = torch.tensor(self.threshold, device=x.device)
        return _changed(
            x, _chosen(x, self.p, generator), lambda rows: image_ops.solarize(x[rows], level)
        )


def _uniform(x: Tensor, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draw one number of [low, high) for each image, (n,)."""
    draws = torch.rand(len(x), generator=generator, device=generator.device)
    return (low + (high - low) * draws).to(x.device)


def _chosen(x: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Draw which images are changed, each with chance p: (k,) ascending positions."""
    check_images(x)
    draws = torch.rand(len(x), generator=generator, device=generator.device)
    return (draws < p).nonzero().flatten().to(x.device)


def _changed(x: Tensor, rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a copy of images with those at `rows` replaced."""
    x = x.clone()
    if len(rows):
        x[rows] = change(rows)
    return x


def _require_range(
    name: str,
    given: tuple[float, float],
    *,
    least: float = 0.0,
    most: float = math.inf,
    above: float | None = None,
) -> None:
    low, high = given
    floor = least if above is None else above
    if not floor <= low <= high <= most or low == above:
        bound = f"at least {least}" if above is None else f"above {above}"
        raise ConfigurationError(
            f"expected {name} {bound}, at most {most} and in order, got {given}"
        )


STOLEN_ENCODER = Compose((Flip(), ColorJitter(0.4, 0.4, 0.4, 0.1), Grayscale()))
"""The surrogate's side of StolenEncoder: no crop, no blur (Liu et al. 2022, as coded)."""


def _rda(area: float) -> Compose:
    """Return RDA's augmentation for crops of exactly this area; the code calls it critical."""
    return Compose(
        (
            Crop(scale=(area, area), ratio=(1.0, 1.0)),
            Flip(),
            ColorJitter(0.4, 0.4, 0.4, 0.2),
            Grayscale(),
            Blur(p=0.1),
            Solarize(p=0.1),
        )
    )


RDA_QUERY = _rda(0.9)
"""Views that RDA asks for and averages (Wu et al. 2024, as coded)."""

RDA_TRAIN = _rda(0.75)
"""Views that RDA trains the surrogate on (Wu et al. 2024, as coded)."""

CONT_STEAL = Compose((RandAugment(2, 14), RandomCropPad(4), Flip()))
"""Views that Cont-Steal asks for and trains on (Sha et al. 2023, as coded)."""

SIMCLR = Compose((Crop(scale=(0.2, 1.0)), Flip(), ColorJitter(0.4, 0.4, 0.4, 0.1), Grayscale()))
"""SimCLR for small images: color strength 0.5, no blur (Chen et al. 2020, appendix B.9)."""

TWO_VIEW = Compose(
    (Crop(), Flip(), ColorJitter(0.8, 0.8, 0.8, 0.2), Grayscale(), Blur(p=1.0, kernel=3))
)
"""The two-view mode of direct extraction at 32 pixels (Dziedzic et al. 2022, as coded)."""
