"""Promises of RandAugment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from tollkeeper.attacks.augment import from_images  # noqa: E402
from tollkeeper.attacks.rand_augment import OPERATIONS, RandAugment  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402

pytestmark = pytest.mark.torch

BY_NAME = {operation.__name__.lstrip("_"): operation for operation in OPERATIONS}


def images(n: int = 40, side: int = 16) -> Any:
    """Return random float images, each with its own brightness."""
    rng = np.random.default_rng(1)
    low = rng.integers(0, 150, (n, 1, 1, 1))
    return from_images((low + rng.integers(0, 106, (n, side, side, 3))).astype(np.uint8))


def test_there_are_fourteen_operations() -> None:
    """The paper's list, once each."""
    assert set(BY_NAME) == {
        "identity",
        "autocontrast",
        "equalize",
        "rotate",
        "shear_x",
        "shear_y",
        "translate_x",
        "translate_y",
        "posterize",
        "solarize",
        "color",
        "contrast",
        "brightness",
        "sharpness",
    }
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.7, 1.0])
def test_every_operation_keeps_shape_range_and_input(name: str, strength: float) -> None:
    """Results are images of the same shape in [0, 1]; the argument is not written to."""
    x = images(6)
    before = x.clone()
    y = BY_NAME[name](x, torch.full((6,), strength))

    assert y.shape == x.shape
    assert y.min() >= 0
    assert y.max() <= 1
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"autocontrast", "equalize"}))
def test_without_strength_nothing_changes(name: str) -> None:
    """At strength 0 every operation that has a strength is the identity, up to the last value.

    Solarize at 0 inverts pure white only, and there is none.
    """
    x = images(6)
    assert torch.allclose(BY_NAME[name](x, torch.zeros(6)), x, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"identity"}))
def test_every_operation_has_an_effect(name: str) -> None:
    """At full strength each changes most images visibly."""
    x = images(6)
    moved = (BY_NAME[name](x, torch.ones(6)) - x).abs().mean(dim=(1, 2, 3))
    assert (moved > 0.01).sum() >= 4


@pytest.mark.parametrize(
    ("name", "matrix"),
    [("shear_x", (1, 0.3, 0, 0, 1, 0)), ("shear_y", (1, 0, 0, 0.3, 1, 0))],
)
def test_shears_are_pillows(name: str, matrix: tuple[float, ...]) -> None:
    """Pillow's affine transform with the same slope gives the same pixels."""
    pixels = np.random.default_rng(2).integers(1, 256, (1, 11, 9, 3)).astype(np.uint8)
    sheared = Image.fromarray(pixels[0]).transform((9, 11), Image.Transform.AFFINE, matrix)
    ours = BY_NAME[name](from_images(pixels), torch.ones(1))
    assert torch.equal(ours, from_images(np.asarray(sheared)[None]))


def test_translations_go_as_far_as_published() -> None:
    """At full strength an image moves by 150/331 of its side, to the side of the sign."""
    x = images(2, 32)
    right = BY_NAME["translate_x"](x, torch.tensor([1.0, -1.0]))
    down = BY_NAME["translate_y"](x, torch.tensor([1.0, -1.0]))
    far = int(32 * 150 / 331)

    assert torch.equal(right[0, :, :, far:], x[0, :, :, :-far])
    assert torch.equal(right[1, :, :, :-far], x[1, :, :, far:])
    assert torch.equal(down[0, :, far:], x[0, :, :-far])
    assert torch.equal(down[1, :, :-far], x[1, :, far:])
    assert float(right[0, :, :, :far].max()) == 0


def test_an_image_gets_one_operation_of_each_kind_in_turn() -> None:
    """With one operation each image is one of the 14 results of either sign, and all occur."""
    x = images(400, 8)
    y = RandAugment(1, 14)(x, torch.Generator().manual_seed(3))
    strength = torch.full((400,), 14 / 30)
    seen = set()
    found = torch.zeros(400, dtype=torch.bool)
    for name, operation in BY_NAME.items():
        for sign in (-1, 1):
            same = (operation(x, sign * strength) - y).abs().amax(dim=(1, 2, 3)) < 1e-6
            if same.any():
                seen.add((name, sign))
            found |= same

    assert found.all()
    assert len(seen) == 2 * 14


def test_no_operation_is_the_identity() -> None:
    """A count of 0 changes nothing."""
    x = images(3)
    assert torch.equal(RandAugment(0)(x, torch.Generator().manual_seed(0)), x)


@pytest.mark.parametrize(("count", "magnitude"), [(-1, 14), (2, -1), (2, 31)])
def test_impossible_settings_are_refused(count: int, magnitude: int) -> None:
    """A negative count and a magnitude outside 0 to 30 are errors when it is made."""
    with pytest.raises(ConfigurationError, match=r"magnitude in \[0, 30\]"):
        RandAugment(count, magnitude)
