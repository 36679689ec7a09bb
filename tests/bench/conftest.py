"""Made-up data sets that stand in for downloaded ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tollkeeper.bench.predict import scene
from tollkeeper.data import Dataset

COUNT = 900
_SIDES = {"cifar10": 32, "cifar100": 32, "tiny_imagenet": 64}


def drawn_images(name: str, split: str) -> Dataset:
    """Return 900 pictures of stripes, whose place is their class; each picture is unique."""
    side = _SIDES.get(name, 28)
    rng = np.random.default_rng([*name.encode(), *split.encode()])
    labels = rng.integers(0, 10, COUNT)
    images = rng.integers(0, 60, (COUNT, side, side, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2 : 2 * label + 5] += 180
    if side == 28:
        images[:] = images[..., :1]
    return Dataset(name, split, images, labels, tuple("0123456789"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Dataset]:
    """Let scenes of the prediction experiments load made-up pictures; return the loader."""
    monkeypatch.setattr(scene, "load_images", drawn_images)
    return drawn_images
