"""Promises of the image operations, against Pillow and loops."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

torch = pytest.importorskip("torch")

from tollkeeper.attacks import image_ops  # noqa: E402
from tollkeeper.attacks.augment import from_images  # noqa: E402
from tollkeeper.errors import InputError  # noqa: E402

pytestmark = pytest.mark.torch

Pixels = np.ndarray[Any, Any]


def photos(n: int = 4, h: int = 12, w: int = 10) -> Pixels:
    """Return uint8 images (n, h, w, 3) of different brightness, the last one constant."""
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 200, (n, h, 1, 3)) + rng.integers(0, 56, (n, h, w, 3))
    smooth[-1] = 77
    return smooth.astype(np.uint8)


def by_pillow(change: Callable[[Image.Image], Image.Image]) -> Any:
    """Return photos changed by Pillow, as floats (n, 3, h, w)."""
    return from_images(np.stack([np.asarray(change(Image.fromarray(one))) for one in photos()]))


def filled(value: float) -> Any:
    """Return one strength for each photo."""
    return torch.full((len(photos()),), value)


def enhanced(enhancer: Callable[[Image.Image], Any], factor: float, image: Image.Image) -> Any:
    """Return an image enhanced by Pillow."""
    return enhancer(image).enhance(factor)


FACTORS = (0.0, 0.3, 1.0, 1.7)


@pytest.mark.parametrize("factor", FACTORS)
def test_enhancements_are_pillows(factor: float) -> None:
    """Saturation, contrast, brightness and sharpness differ by rounding only."""
    x, strength = from_images(photos()), filled(factor)
    gray = image_ops.gray(x)
    pairs = [
        (image_ops.blend(x, gray, strength), ImageEnhance.Color),
        (image_ops.blend(x, gray.mean(dim=(2, 3), keepdim=True), strength), ImageEnhance.Contrast),
        (image_ops.blend(x, torch.zeros_like(x), strength), ImageEnhance.Brightness),
        (image_ops.sharpen(x, strength), ImageEnhance.Sharpness),
    ]
    for ours, enhancer in pairs:
        expected = by_pillow(partial(enhanced, enhancer, factor))
        assert (ours - expected).abs().max() <= 1.6 / 255


def test_table_operations_are_pillows() -> None:
    """Autocontrast, equalize, solarize and posterize give Pillow's values."""
    x = from_images(photos())
    assert torch.equal(image_ops.equalize(x), by_pillow(ImageOps.equalize))
    assert (image_ops.autocontrast(x) - by_pillow(ImageOps.autocontrast)).abs().max() <= 1 / 255
    for level in (0, 60, 128, 256):
        ours = image_ops.solarize(x, filled(level / 255))
        expected = by_pillow(partial(ImageOps.solarize, threshold=level))
        assert torch.allclose(ours, expected, atol=1e-6)
    for bits in (1, 4, 8):
        ours = image_ops.posterize(x, filled(bits))
        assert torch.equal(ours, by_pillow(partial(ImageOps.posterize, bits=bits)))


def test_equalize_keeps_what_has_too_few_values() -> None:
    """A constant image, and one with almost all pixels at its maximum, stay as they are."""
    pixels = np.full((1, 16, 16, 3), 200, dtype=np.uint8)
    pixels[0, 0, 0] = 3
    assert torch.equal(image_ops.equalize(from_images(pixels)), from_images(pixels))


def slow_jitter(
    pixel: list[float], *, mean: float, gain: float, contrast: float, chroma: float, turn: float
) -> list[float]:
    """Change one pixel of an image of mean brightness `mean`, step by step."""
    y, i, q = colorsys.rgb_to_yiq(*pixel)
    angle = 2 * math.pi * turn
    i, q = (
        chroma * (math.cos(angle) * i - math.sin(angle) * q),
        chroma * (math.sin(angle) * i + math.cos(angle) * q),
    )
    # Not colorsys.yiq_to_rgb, which clips.
    r = y + 0.9468822170900693 * i + 0.6235565819861433 * q
    g = y - 0.27478764629897834 * i - 0.6356910791873801 * q
    b = y - 1.1085450346420322 * i + 1.7090069284064666 * q
    middle = gain * mean
    return [min(1.0, max(0.0, middle + contrast * (gain * v - middle))) for v in (r, g, b)]


def test_jitter_is_brightness_saturation_hue_and_contrast() -> None:
    """The one matrix per image does what a loop over pixels and steps does."""
    x = from_images(photos(3, 4, 5))
    strengths = {
        "gain": torch.tensor([0.7, 1.3, 1.0]),
        "contrast": torch.tensor([1.2, 0.6, 1.0]),
        "chroma": torch.tensor([0.5, 1.4, 1.0]),
        "turn": torch.tensor([0.1, -0.05, 0.2]),
    }
    ours = image_ops.jitter(x, **strengths)

    for n in range(3):
        flat = x[n].flatten(1).T.tolist()
        mean = sum(0.299 * r + 0.587 * g + 0.114 * b for r, g, b in flat) / len(flat)
        given = {name: float(values[n]) for name, values in strengths.items()}
        expected = torch.tensor([slow_jitter(pixel, mean=mean, **given) for pixel in flat])
        # The YIQ matrix of colorsys has one digit more than ours.
        assert (ours[n].flatten(1).T - expected).abs().max() < 6e-3


def test_jitter_without_strength_changes_nothing() -> None:
    """Factors of 1 and no turn give the image back."""
    x, one = from_images(photos()), filled(1.0)
    same = image_ops.jitter(x, gain=one, contrast=one, chroma=one, turn=filled(0.0))
    assert torch.allclose(same, x, atol=1e-6)


def test_blur_is_a_gaussian_sum() -> None:
    """Each pixel is the weighted mean of its neighbors, edges repeated; images differ."""
    x, sigma = from_images(photos(2, 6, 7)), torch.tensor([0.6, 1.5])
    ours = image_ops.blur(x, sigma, kernel=5)

    for n in range(2):
        taps = [math.exp(-0.5 * (k / float(sigma[n])) ** 2) for k in range(-2, 3)]
        for row in range(6):
            for column in range(7):
                total = torch.zeros(3)
                for a in range(-2, 3):
                    for b in range(-2, 3):
                        pixel = x[n, :, min(5, max(0, row + a)), min(6, max(0, column + b))]
                        total += taps[a + 2] * taps[b + 2] * pixel
                assert torch.allclose(ours[n, :, row, column], total / sum(taps) ** 2, atol=1e-6)


def test_shift_moves_by_whole_pixels() -> None:
    """Each image moves by its own amount, exactly, and black comes in."""
    pixels = photos(3, 6, 8)
    ours = image_ops.shift(
        from_images(pixels), right=torch.tensor([2, -3, 0]), down=torch.tensor([-1, 0, 9])
    )
    expected = np.zeros_like(pixels)
    expected[0, :5, 2:] = pixels[0, 1:, :6]
    expected[1, :, :5] = pixels[1, :, 3:]
    assert torch.equal(ours, from_images(expected))


@pytest.mark.parametrize("angle", [math.pi / 2, 0.3])
def test_warp_rotates_about_the_center(angle: float) -> None:
    """A rotation takes each pixel from where a loop finds it, on an image that is not square."""
    h, w = 7, 9
    x = from_images(photos(1, h, w))
    cos, sin = math.cos(angle), math.sin(angle)
    ours = image_ops.warp(x, torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]]))

    for row in range(h):
        for column in range(w):
            a, b = column - (w - 1) / 2, row - (h - 1) / 2
            source = (cos * a - sin * b + (w - 1) / 2, sin * a + cos * b + (h - 1) / 2)
            if any(abs(v % 1 - 0.5) < 1e-3 for v in source):
                continue  # Two pixels are equally near.
            i, j = round(source[0]), round(source[1])
            inside = 0 <= i < w and 0 <= j < h
            expected = x[0, :, j, i] if inside else torch.zeros(3)
            assert torch.equal(ours[0, :, row, column], expected)


def test_a_whole_crop_is_the_image() -> None:
    """Width and height of 1 at the image's own side give it back."""
    x = from_images(photos(2, 8, 8))
    one, half = torch.ones(2), torch.full((2,), 0.5)
    same = image_ops.crop(x, width=one, height=one, left=half, top=half, side=8)
    assert torch.allclose(same, x, atol=1e-5)


def test_a_crop_of_whole_pixels_is_a_slice() -> None:
    """Half of the image from a corner at half the side is that corner."""
    x = from_images(photos(2, 8, 8))
    half = torch.full((2,), 0.5)
    ours = image_ops.crop(
        x, width=half, height=half, left=torch.tensor([0.0, 1.0]), top=torch.ones(2), side=4
    )
    assert torch.allclose(ours[0], x[0, :, 4:, :4], atol=1e-5)
    assert torch.allclose(ours[1], x[1, :, 4:, 4:], atol=1e-5)


@pytest.mark.parametrize(
    "shape_and_dtype",
    [((2, 8, 8, 3), "float32"), ((3, 8, 8), "float32"), ((2, 3, 8, 8), "uint8")],
)
def test_other_than_float_images_are_refused(shape_and_dtype: tuple[tuple[int, ...], str]) -> None:
    """A wrong order of axes, a single image and uint8 give one clear error."""
    shape, dtype = shape_and_dtype
    with pytest.raises(InputError, match=r"float32 images \(n, 3, h, w\)"):
        image_ops.check_images(torch.zeros(shape, dtype=getattr(torch, dtype)))
