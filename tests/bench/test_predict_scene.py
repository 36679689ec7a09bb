"""Whose images are whose in the prediction experiments, and how pictures are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tollkeeper.bench.predict import scene as scenes
from tollkeeper.bench.predict.scene import Sizes, load_scene
from tollkeeper.data import Dataset
from tollkeeper.errors import ConfigurationError

SIZES = Sizes(
    train=60, honest=50, reference=15, calibration=40, seeds=10, insider=20, pool=30, outside=25
)
PARTS = ("train", "honest", "reference", "calibration", "seeds", "insider", "pool", "outside")


Load = Callable[[str, str], Dataset]


@pytest.mark.parametrize(("dataset", "shape"), [("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))])
def test_nobody_shares_an_image(drawn: Load, dataset: str, shape: tuple[int, int, int]) -> None:
    """Every part has its size, its shape and values in [0, 1], and no image is in two parts."""
    data: dict[str, str] = {}
    found = load_scene(dataset, SIZES, rng=np.random.default_rng(0), data=data)
    seen: set[bytes] = set()
    for name in PARTS:
        images = getattr(found, name)
        assert images.shape == (getattr(SIZES, name), *shape)
        assert images.dtype == np.float32
        assert 0 <= images.min() < images.max() <= 1
        seen |= {image.tobytes() for image in images}
    assert len(seen) == sum(getattr(SIZES, name) for name in PARTS)
    assert {f"{dataset}/train", f"{dataset}/test"} <= set(data)


def test_the_same_seed_deals_the_same_images(drawn: Load) -> None:
    """A scene is a function of its seed; another seed deals others."""
    one, same, other = (
        load_scene("mnist", SIZES, rng=np.random.default_rng(seed), data={}) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.honest, same.honest)
    assert not np.array_equal(one.honest, other.honest)


def test_both_official_splits_are_mixed(drawn: Load) -> None:
    """Honest users' images come from both files: the order of a file tells nothing."""
    found = load_scene("mnist", SIZES, rng=np.random.default_rng(0), data={})
    test = {
        image.tobytes()
        for image in scenes.tensors(np.asarray(drawn("mnist", "test").inputs)[..., :1])
    }
    from_test = sum(image.tobytes() in test for image in found.honest)
    assert 0 < from_test < len(found.honest)


def test_too_few_images_are_refused_by_name(drawn: Load) -> None:
    """What is missing, and of which set, is said before anything is trained."""
    with pytest.raises(ConfigurationError, match=r"images of emnist_letters, got 1,800; lower"):
        load_scene("mnist", replace(SIZES, pool=2000), rng=np.random.default_rng(0), data={})
    with pytest.raises(ConfigurationError, match="no scene of 'svhn'; choose from mnist, cifar10"):
        load_scene("svhn", SIZES, rng=np.random.default_rng(0), data={})
