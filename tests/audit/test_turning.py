"""Turning of images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tollkeeper.audit.watermarks.turning import rotated
from tollkeeper.errors import AuditRefused


def pictures(count: int = 3, side: int = 9) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return random pictures (n, h, w, 3)."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turns_are_exact(side: int) -> None:
    """A multiple of 90 degrees moves pixels and mixes none."""
    images = pictures(side=side)
    for quarters in range(5):
        turned = rotated(images, np.full(3, 90.0 * quarters))
        assert (turned == np.rot90(images, quarters, axes=(1, 2))).all()


def test_both_forms_agree() -> None:
    """Bytes (h, w, c) and floats (c, h, w) of the same images turn alike, each by its own angle."""
    images, angles = pictures(), np.array([10.0, 130.0, 301.0])
    floats = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) / np.float32(255)
    turned = rotated(floats, angles)
    assert turned.dtype == np.float32
    assert np.abs(turned.transpose(0, 2, 3, 1) * 255 - rotated(images, angles)).max() <= 0.51
    for at in range(3):
        alone = rotated(images[at : at + 1], angles[at : at + 1])
        assert (alone == rotated(images, angles)[at]).all()


def test_inside_it_is_the_bilinear_rotation() -> None:
    """Away from the border, SciPy's linear spline rotation gives the same pixels."""
    images = pictures(1, 21)
    ours = rotated(images, np.array([37.0]))[0, 6:15, 6:15].astype(float)
    theirs = ndimage.rotate(images[0].astype(float), 37, order=1, reshape=False)[6:15, 6:15]
    assert np.abs(ours - theirs).max() <= 0.51


def test_corners_are_black_and_nothing_brighter_than_before() -> None:
    """White images turned by 45 degrees have black corners and no value above white."""
    turned = rotated(np.ones((2, 1, 16, 16), np.float32), np.array([45.0, 225.0]))
    assert (turned[:, :, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()
    assert turned.max() <= 1
    assert turned[:, 0, 8, 8].min() > 0.999


def test_what_is_no_image_is_refused() -> None:
    """A batch that is no images is refused with what was expected."""
    with pytest.raises(AuditRefused, match="expected images"):
        rotated(np.zeros((3, 4), np.uint8), np.zeros(3))
