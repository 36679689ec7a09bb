"""Views are the same for every encoder, and what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.audit.views import Views
from tollkeeper.errors import AuditRefused, ConfigurationError

PLAIN = {"area": (1.0, 1.0), "flip": 0.0, "brightness": 0.0, "noise": 0.0}


@pytest.fixture
def images() -> NDArray[np.uint8]:
    """Return (70, 9, 12, 3) images: more than are worked on together."""
    return np.random.default_rng(0).integers(0, 256, (70, 9, 12, 3), dtype=np.uint8)


def _tensors(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.moveaxis(images, 3, 1)).astype(np.float32) / np.float32(255)


def test_a_view_depends_on_seed_number_and_id_alone(images: NDArray[np.uint8]) -> None:
    """Asked in another order, in parts or again, an image has the same views."""
    views = Views(5)
    whole = views.make(images, 2)
    order = np.random.default_rng(1).permutation(70)

    assert np.array_equal(views.make(images[order], 2, order), whole[order])
    assert np.array_equal(views.make(images[40:], 2, np.arange(40, 70)), whole[40:])
    assert not np.array_equal(views.make(images, 3), whole)
    assert not np.array_equal(Views(6).make(images, 2), whole)
    assert not np.array_equal(views.make(images, 2, np.arange(1, 71)), whole)


def test_both_kinds_of_images_get_the_same_views(images: NDArray[np.uint8]) -> None:
    """Bytes and tensors are changed alike, up to rounding to bytes."""
    views = Views(5)
    made = views.make(_tensors(images), 1)

    assert made.dtype == np.float32
    assert made.shape == (70, 3, 9, 12)
    assert 0 <= made.min() < made.max() <= 1
    assert np.abs(np.moveaxis(made, 1, 3) * 255 - views.make(images, 1)).max() <= 0.501


def test_without_any_change_the_image_stays(images: NDArray[np.uint8]) -> None:
    """A crop of everything with nothing else is the image itself."""
    assert np.array_equal(Views(1, **PLAIN).make(images, 0), images)


def test_flip_mirrors_left_and_right(images: NDArray[np.uint8]) -> None:
    """With probability 1 every image is mirrored."""
    assert np.array_equal(Views(1, **{**PLAIN, "flip": 1}).make(images, 0), images[:, :, ::-1])


def test_crop_is_a_stretch_of_the_image() -> None:
    """A crop of a slope is a slope of the side that the area says, from inside the image."""
    slope = np.broadcast_to(np.linspace(0, 1, 41, dtype=np.float32), (300, 1, 41, 41)).copy()
    made = Views(1, **{**PLAIN, "area": (0.36, 0.64)}).make(slope, 0)
    steps = np.diff(made[:, 0, 20], axis=1)[:, 3:-3] * 40

    assert steps.std(axis=1).max() < 1e-4
    sides = steps.mean(axis=1)
    assert 0.6 <= sides.min() < 0.62
    assert 0.78 < sides.max() <= 0.8001
    assert made[:, 0, :, 0].mean() < 0.2


def test_brightness_and_noise_have_their_size() -> None:
    """Gray images get factors within the range, and noise of the stated deviation."""
    gray = np.full((400, 3, 8, 8), 0.5, np.float32)
    factors = Views(1, **{**PLAIN, "brightness": 0.2}).make(gray, 0).mean(axis=(1, 2, 3)) / 0.5
    noise = Views(1, **{**PLAIN, "noise": 0.05}).make(gray, 0) - gray

    assert 0.8 <= factors.min() < 0.81
    assert 1.19 < factors.max() <= 1.2001
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    assert abs(noise.mean()) < 5e-4


def test_noise_of_one_view_is_unlike_that_of_another() -> None:
    """Views, images and seeds share no random numbers."""
    gray = np.full((2, 3, 16, 16), 0.5, np.float32)
    noisy = {**PLAIN, "noise": 0.05}
    made = [
        (Views(seed, **noisy).make(gray, view) - gray).reshape(2, -1)
        for seed in (1, 2)
        for view in (0, 1)
    ]

    assert np.abs(np.corrcoef(np.concatenate(made)) - np.eye(8)).max() < 0.15


def test_no_images_give_no_views() -> None:
    """An empty batch stays empty."""
    assert Views(1).make(np.empty((0, 4, 4, 3), np.uint8), 0).shape == (0, 4, 4, 3)


def test_what_makes_no_views_is_refused(images: NDArray[np.uint8]) -> None:
    """Settings out of range all at once, and images, ids and numbers that are none."""
    with pytest.raises(ConfigurationError, match=r"two or more views, got 1; areas .*; brightness"):
        Views(1, k=1, area=(0, 1), brightness=2)
    with pytest.raises(ConfigurationError, match="a seed"):
        Views(-1)
    for bad in (images.astype(np.float64), images[0], _tensors(images) * 2, [1, 2]):
        with pytest.raises(AuditRefused, match="expected"):
            Views(1).make(bad, 0)  # type: ignore[arg-type]
    with pytest.raises(AuditRefused, match="70 ids"):
        Views(1).make(images, 0, np.arange(3))
    with pytest.raises(AuditRefused, match="a view from 0 to 5"):
        Views(1).make(images, 6)
    with pytest.raises(AuditRefused, match="got values nan"):
        Views(1).make(np.full((1, 3, 2, 2), np.nan, np.float32), 0)
