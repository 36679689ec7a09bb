"""Pictures drawn as honest ones are: place, size, thickness and cleanness."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

from tollkeeper.attacks.classifier.rendering import Rendering, _centers, _sizes  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.types import Images  # noqa: E402

SIDE = 28


def bars(count: int, *, seed: int, size: int, thick: int, blur: bool, shift: int) -> Images:
    """Return crosses of some size and thickness, sharp or blurred, off center or not."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 1, SIDE, SIDE), np.float32)
    for image in images[:, 0]:
        long = size + int(rng.integers(-1, 2))
        top = (SIDE - long) // 2 + shift
        middle = SIDE // 2 + shift - thick // 2
        image[top : top + long, middle : middle + thick] = 1
        image[middle : middle + thick, top : top + long] = 1
    if blur:
        moved = [np.roll(images, (a, b), (2, 3)) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        images = np.mean(moved, axis=0)
    return images.astype(np.float32)


HONEST = bars(40, seed=0, size=18, thick=2, blur=False, shift=0)
LETTERS = bars(60, seed=1, size=24, thick=4, blur=True, shift=2)


def test_rendered_pictures_have_honest_pixels() -> None:
    """Values, place and size are those of honest pictures; before, they were not."""
    made = Rendering.fitted(HONEST, LETTERS)(LETTERS)
    assert made.shape == LETTERS.shape
    assert made.dtype == np.float32
    assert set(np.unique(made)) == {0.0, 1.0}
    assert len(np.unique(LETTERS)) > 2
    assert made.mean() == pytest.approx(HONEST.mean(), rel=0.05)
    assert np.abs(_centers(made) - _centers(HONEST).mean(axis=0)).max() < 2 / SIDE
    assert np.abs(_centers(LETTERS)).min() > 3 / SIDE
    assert np.median(_sizes(made)) == pytest.approx(np.median(_sizes(HONEST)), abs=2)


def test_what_is_drawn_stays() -> None:
    """A cross is still a cross: rendered letters are nearer to honest crosses than to their turns."""
    made = Rendering.fitted(HONEST, LETTERS)(LETTERS).mean(axis=0)[0]
    middle = slice(SIDE // 2 - 1, SIDE // 2 + 1)
    assert made[middle, 8:20].mean() > 0.6
    assert made[8:20, middle].mean() > 0.6
    assert made[6:11, 6:11].mean() < 0.05


def test_each_picture_is_rendered_by_itself() -> None:
    """Batch mates change nothing, and a black picture is fine."""
    view = Rendering.fitted(HONEST, LETTERS)
    together = view(LETTERS[:7])
    assert np.array_equal(together, np.concatenate([view(one[None]) for one in LETTERS[:7]]))
    assert view(np.zeros((2, 1, SIDE, SIDE), np.float32)).shape == (2, 1, SIDE, SIDE)
    with pytest.raises(ConfigurationError, match="pictures of one shape"):
        Rendering.fitted(HONEST, LETTERS[:, :, :20])
