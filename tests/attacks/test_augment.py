"""Promises of random augmentations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.attacks import augment  # noqa: E402
from tollkeeper.attacks.augment import (  # noqa: E402
    Augmentation,
    Blur,
    ColorJitter,
    Compose,
    Crop,
    Flip,
    Grayscale,
    RandomCropPad,
    Solarize,
    from_images,
    to_images,
)
from tollkeeper.attacks.rand_augment import RandAugment  # noqa: E402
from tollkeeper.errors import ConfigurationError, InputError  # noqa: E402

pytestmark = pytest.mark.torch

AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": Crop(),
    "pad": RandomCropPad(),
    "flip": Flip(),
    "jitter": ColorJitter(0.8, 0.8, 0.8, 0.5),
    "gray": Grayscale(0.5),
    "blur": Blur(0.5),
    "solarize": Solarize(0.5),
    "rand-augment": RandAugment(),
    "stolen-encoder": augment.STOLEN_ENCODER,
    "rda query": augment.RDA_QUERY,
    "rda train": augment.RDA_TRAIN,
    "cont-steal": augment.CONT_STEAL,
    "simclr": augment.SIMCLR,
    "two-view": augment.TWO_VIEW,
}


def pixels(n: int = 24, h: int = 14, w: int = 14) -> np.ndarray[Any, Any]:
    """Return random uint8 images (n, h, w, 3) with black and white in them."""
    return np.random.default_rng(0).integers(0, 256, (n, h, w, 3)).astype(np.uint8)


def draws(seed: int = 0) -> Any:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_it_keeps_shape_and_range_and_its_input(name: str) -> None:
    """The result is a float32 batch of the same shape in [0, 1]; the argument is not written to."""
    x = from_images(pixels())
    before = x.clone()
    y = AUGMENTATIONS[name](x, draws())

    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert y.min() >= 0
    assert y.max() <= 1
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_generator_alone_decides(name: str) -> None:
    """Equal generators give equal views; the next draws and other seeds give other views."""
    x, generator = from_images(pixels()), draws(1)
    first = AUGMENTATIONS[name](x, generator)
    state = torch.random.get_rng_state()

    assert torch.equal(AUGMENTATIONS[name](x, draws(1)), first)
    assert not torch.equal(AUGMENTATIONS[name](x, generator), first)
    assert not torch.equal(AUGMENTATIONS[name](x, draws(2)), first)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_images_do_not_see_each_other(name: str) -> None:
    """A view depends on its own image and draws: others' pixels change nothing in it."""
    given = pixels()
    changed = given.copy()
    changed[::2] = 255 - changed[::2]
    one = AUGMENTATIONS[name](from_images(given), draws(3))
    other = AUGMENTATIONS[name](from_images(changed), draws(3))

    assert torch.equal(one[1::2], other[1::2])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_images_get_draws_of_their_own(name: str) -> None:
    """Copies of one image do not all come out alike."""
    x = from_images(pixels(1)).repeat(32, 1, 1, 1)
    y = AUGMENTATIONS[name](x, draws(4))
    assert len({view.numpy().tobytes() for view in y}) > 1


@pytest.mark.parametrize(
    "step",
    [
        Flip(0),
        ColorJitter(0.4, 0.4, 0.4, 0.1, p=0),
        Grayscale(0),
        Blur(0),
        Solarize(0),
        Compose(()),
    ],
)
def test_without_a_chance_nothing_changes(step: Augmentation) -> None:
    """A chance of 0 is the identity, bit for bit."""
    x = from_images(pixels())
    assert torch.equal(step(x, draws()), x)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_no_images_give_no_views(name: str) -> None:
    """An empty batch stays empty."""
    assert AUGMENTATIONS[name](torch.zeros(0, 3, 8, 8), draws()).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_pixels_are_not_taken_for_floats(name: str) -> None:
    """A uint8 tensor gives one clear error."""
    with pytest.raises(InputError, match="from_images"):
        AUGMENTATIONS[name](torch.zeros(2, 3, 8, 8, dtype=torch.uint8), draws())


def test_a_flip_mirrors_left_and_right() -> None:
    """With certainty it is numpy's flip; with a half about half the images are mirrored."""
    given = pixels(400)
    mirrored = from_images(given[:, :, ::-1])
    assert torch.equal(Flip(1.0)(from_images(given), draws()), mirrored)

    some = Flip(0.5)(from_images(given), draws())
    flipped = (some == mirrored).flatten(1).all(dim=1)
    kept = (some == from_images(given)).flatten(1).all(dim=1)
    assert (flipped ^ kept).all()
    assert 150 < int(flipped.sum()) < 250


def test_padding_and_cutting_is_a_slice_of_the_padded_image() -> None:
    """Each view is one of the (2 p + 1)^2 windows of the padded image, and all offsets occur."""
    given = pixels(300, 6, 7)
    views = to_images(RandomCropPad(2)(from_images(given), draws()))
    padded = np.pad(given, ((0, 0), (2, 2), (2, 2), (0, 0)))
    offsets = set()
    for view, image in zip(views, padded, strict=True):
        windows = {
            (row, column): np.array_equal(view, image[row : row + 6, column : column + 7])
            for row in range(5)
            for column in range(5)
        }
        assert sum(windows.values()) == 1
        offsets |= {offset for offset, same in windows.items() if same}
    assert len(offsets) == 25


def ramps(n: int, h: int, w: int) -> Any:
    """Return images whose channels are the position in the image from 0 to 1: column, row, 0."""
    x = torch.zeros(n, 3, h, w)
    x[:, 0] = (torch.arange(w) + 0.5) / w
    x[:, 1] = ((torch.arange(h) + 0.5) / h)[:, None]
    return x


def rectangles(views: Any) -> tuple[Any, Any]:
    """Return widths and heights (n,) of crops of ramps, as shares of the image."""
    # The outermost pixels may repeat the image's edge, so the middle gives the slope.
    side = views.shape[3]
    widths = (views[:, 0, 0, -3] - views[:, 0, 0, 2]) * side / (side - 5)
    heights = (views[:, 1, -3, 0] - views[:, 1, 2, 0]) * side / (side - 5)
    return widths, heights


@pytest.mark.parametrize("area", [0.9, 0.75, 1.0])
def test_a_crop_of_one_scale_has_exactly_that_area(area: float) -> None:
    """With a single scale and ratio each crop has that area and its image's shape, inside it."""
    views = Crop(scale=(area, area), ratio=(1.0, 1.0))(ramps(50, 24, 24), draws())
    widths, heights = rectangles(views)

    assert torch.allclose(widths * heights, torch.full((50,), area), atol=1e-4)
    assert torch.allclose(widths, heights, atol=1e-4)
    assert views[:, :2].min() > 0
    assert views[:, :2].max() < 1


def test_crops_cover_their_ranges_on_images_that_are_not_square() -> None:
    """Areas fill their range, ratios theirs unless bent to fit, and the side is as asked."""
    views = Crop(scale=(0.1, 0.5), ratio=(0.75, 4 / 3), side=20)(ramps(2000, 20, 40), draws())
    widths, heights = rectangles(views)
    areas, ratios = widths * heights, 40 * widths / (20 * heights)

    assert views.shape == (2000, 3, 20, 20)
    assert 0.099 < areas.min() < 0.11
    assert 0.49 < areas.max() < 0.501
    assert abs(float(areas.mean()) - 0.3) < 0.01
    assert 0.74 < ratios.min() < 0.77
    assert ratios[areas < 0.35].max() < 1.34
    assert ratios[areas < 0.35].max() > 1.30


def test_the_places_of_crops_are_spread() -> None:
    """The middles of crops fill the space that their size leaves."""
    views = Crop(scale=(0.25, 0.25), ratio=(1.0, 1.0))(ramps(2000, 24, 24), draws())
    middles = views[:, :2].mean(dim=(2, 3))
    assert 0.25 < middles.min() < 0.27
    assert 0.73 < middles.max() < 0.75
    assert (middles.mean(dim=0) - 0.5).abs().max() < 0.02


def test_jitter_changes_as_many_images_as_asked() -> None:
    """About p of the images change, with factors of their own."""
    x = from_images(pixels(500))
    moved = (ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8)(x, draws()) != x).flatten(1).any(dim=1)
    assert 360 < int(moved.sum()) < 440


def test_jitter_of_brightness_stays_within_its_range() -> None:
    """Brightness alone multiplies each image by one factor of [1 - b, 1 + b]."""
    x = torch.full((500, 3, 4, 4), 0.5)
    y = ColorJitter(0.4, 0.0, 0.0, 0.0, p=1.0)(x, draws())
    factors = y[:, 0, 0, 0] / 0.5

    assert torch.allclose(y, factors.view(-1, 1, 1, 1) * x, atol=1e-6)
    assert 0.599 < factors.min() < 0.62
    assert 1.38 < factors.max() < 1.401


def test_gray_images_have_equal_channels() -> None:
    """With certainty every image is its brightness three times."""
    x = from_images(pixels())
    y = Grayscale(1.0)(x, draws())
    assert torch.equal(y[:, 0], y[:, 1])
    assert torch.equal(y[:, 0], y[:, 2])
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    assert torch.allclose(y[:, 0], (x * weights).sum(dim=1), atol=1e-6)


def test_solarize_inverts_from_its_threshold_on() -> None:
    """At the default, uint8 values from 128 on are inverted."""
    given = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    expected = np.where(given < 128, given, 255 - given)
    assert np.array_equal(to_images(Solarize(1.0)(from_images(given), draws())), expected)


def test_images_survive_the_way_there_and_back() -> None:
    """Every uint8 value comes back as it was."""
    given = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 8, 32, 3)
    assert np.array_equal(to_images(from_images(given)), given)
    read_only = given.copy()
    read_only.flags.writeable = False
    assert from_images(read_only).shape == (1, 3, 8, 32)


def test_quantizing_rounds_and_clips() -> None:
    """Values between two steps go to the nearer one, values outside [0, 1] to its ends."""
    x = torch.tensor([-0.2, 0.4 / 255, 0.6 / 255, 1.3]).repeat(3, 1).view(1, 3, 1, 4)
    assert to_images(x)[0, 0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("bad", [np.zeros((2, 3, 8, 8), np.uint8), np.zeros((2, 8, 8, 3))])
def test_other_than_uint8_images_are_refused(bad: np.ndarray[Any, Any]) -> None:
    """A wrong order of axes or dtype gives one clear error."""
    with pytest.raises(InputError, match=r"uint8 images of shape \(n, h, w, 3\)"):
        from_images(bad)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Crop(scale=(0.0, 1.0)), "scale"),
        (lambda: Crop(scale=(0.9, 0.2)), "scale"),
        (lambda: Crop(scale=(0.2, 1.1)), "scale"),
        (lambda: Crop(ratio=(0.0, 1.0)), "ratio"),
        (lambda: Crop(side=0), "side"),
        (lambda: RandomCropPad(-1), "padding"),
        (lambda: Flip(1.5), "p "),
        (lambda: ColorJitter(-0.1, 0, 0, 0), "brightness"),
        (lambda: ColorJitter(0, 0, 0, 0.6), "hue"),
        (lambda: ColorJitter(0, 0, 0, 0, p=-1), "p "),
        (lambda: Grayscale(float("nan")), "p "),
        (lambda: Blur(0.1, sigma=(0.0, 1.0)), "sigma"),
        (lambda: Blur(0.1, kernel=4), "odd kernel"),
        (lambda: Solarize(2.0), "p "),
    ],
)
def test_impossible_settings_are_refused(make: Any, match: str) -> None:
    """Ranges out of order, chances outside [0, 1] and the like are errors when made."""
    with pytest.raises(ConfigurationError, match=match):
        make()
