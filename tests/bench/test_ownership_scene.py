"""Whose images are whose in the ownership experiments, and the encoders trained on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tollkeeper.data import Dataset
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from tollkeeper.bench.ownership import scene as scenes  # noqa: E402 - torch may be missing
from tollkeeper.bench.ownership.networks import Small  # noqa: E402
from tollkeeper.bench.ownership.scene import Block, Scene, Sizes, load_scene, small  # noqa: E402
from tollkeeper.bench.ownership.simclr import (  # noqa: E402
    Recipe,
    train_simclr,
    train_supervised,
    untrained,
    view,
)

SIZES = Sizes(
    block=80,
    claims=2,
    references=2,
    public=60,
    probe_train=50,
    probe_test=40,
    pool=300,
    other=100,
)
RECIPE = Recipe(Small(width=32), dim=8, epochs=3)


Load = Callable[[str, str], Dataset]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, drawn: Load) -> Scene:
    """Deal made-up pictures out."""
    monkeypatch.setattr(scenes, "load_images", drawn)
    return load_scene(SIZES, rng=np.random.default_rng(0), data={})


def parts(scene: Scene) -> list[Block]:
    """Return all blocks of the first data set that must be disjoint."""
    sides = [side for claim in scene.claims for side in (claim.private, claim.held)]
    rest = [scene.public, scene.probe_train, scene.probe_test, scene.world]
    return [*sides, *scene.references, *rest]


def test_nobody_shares_an_image(scene: Scene) -> None:
    """Every part has its size, pictures of 16 pixels, and none that another part has."""
    blocks = parts(scene)
    assert [len(block) for block in blocks] == [80] * 6 + [60, 50, 40, 1800 - 630]
    assert all(block.images.shape[1:] == (16, 16, 3) for block in blocks)
    assert len({image.tobytes() for block in blocks for image in block.images}) == 1800
    assert {name: len(block) for name, block in scene.others.items()} == {
        "cifar100": 100,
        "tiny_imagenet": 100,
    }


def test_labels_stay_with_their_images(scene: Scene) -> None:
    """The bright stripe of a drawn picture, which is its class, is where its label says."""
    for block in (scene.world, scene.claims[1].held):
        rows = block.images.astype(float).mean(axis=(2, 3))
        assert np.array_equal(rows[:, 1:13].argmax(axis=1), block.labels)


def test_blocks_of_the_world_do_not_overlap(scene: Scene) -> None:
    """Independents of different numbers share no image, and there is a last number."""
    first, second = scene.world_block(0), scene.world_block(1)
    assert len(first) == len(second) == 80
    assert not {i.tobytes() for i in first.images} & {i.tobytes() for i in second.images}
    with pytest.raises(ConfigurationError, match="below 14, got 14"):
        scene.world_block(14)


def test_a_scene_is_a_function_of_its_seed(scene: Scene) -> None:
    """The same seed deals the same images, another seed others."""
    same, other = (load_scene(SIZES, rng=np.random.default_rng(seed), data={}) for seed in (0, 2))
    assert np.array_equal(scene.public.images, same.public.images)
    assert not np.array_equal(scene.public.images, other.public.images)


def test_copies_of_an_image_are_dropped(monkeypatch: pytest.MonkeyPatch, drawn: Load) -> None:
    """An image that a data set holds twice is dealt once: no coin may decide on it twice."""

    def doubled(name: str, split: str) -> Dataset:
        found = drawn(name, split)
        images = np.concatenate([np.asarray(found.inputs), np.asarray(found.inputs)[:50]])
        assert found.labels is not None
        labels = np.concatenate([found.labels, found.labels[:50]])
        return Dataset(name, split, images, labels, found.classes)

    monkeypatch.setattr(scenes, "load_images", doubled)
    found = load_scene(SIZES, rng=np.random.default_rng(0), data={})
    assert sum(map(len, parts(found))) == 1800


@pytest.mark.parametrize("sizes", [replace(SIZES, block=500), replace(SIZES, pool=1500)])
def test_too_few_images_are_refused(
    monkeypatch: pytest.MonkeyPatch, drawn: Load, sizes: Sizes
) -> None:
    """What is missing is said before anything is trained."""
    monkeypatch.setattr(scenes, "load_images", drawn)
    with pytest.raises(ConfigurationError, match="lower the sizes"):
        load_scene(sizes, rng=np.random.default_rng(0), data={})


def test_images_are_averaged_down() -> None:
    """A pixel is the rounded mean of the square it stands for."""
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    expected = images.reshape(3, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(small(images) - expected).max() <= 0.5


def test_views_are_images(scene: Scene) -> None:
    """Views stay in [0, 1], differ from each other, and repeat with their seed."""
    x = torch.from_numpy(scene.public.images.transpose(0, 3, 1, 2).copy()).float() / 255
    one, same, other = (view(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == x.shape
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_training_repeats_with_its_seed(scene: Scene, kind: str) -> None:
    """The same generator gives the same encoder bit for bit, another one another."""
    recipe = replace(RECIPE, network=Small(kind, 32))  # type: ignore[arg-type]
    images = scene.claims[0].private.images
    one, same, other = (
        train_simclr(images, recipe, rng=np.random.default_rng(seed)).embed(images)
        for seed in (1, 1, 2)
    )
    assert one.shape == (80, 8)
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)


def test_a_trained_encoder_finds_views_of_its_images_alike(scene: Scene) -> None:
    """After training, two views of one image are closer than before it."""
    images = scene.claims[0].private.images
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    draws = torch.Generator().manual_seed(0)
    views = [
        (255 * view(x, draws)).byte().permute(0, 2, 3, 1).contiguous().numpy() for _ in range(2)
    ]

    def alike(encoder: Encoder) -> float:
        one, two = (encoder.embed(seen) for seen in views)
        one, two = one - one.mean(axis=0), two - two.mean(axis=0)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        return float(((one * two).sum(axis=1) / lengths).mean())

    rng = np.random.default_rng(0)
    trained = train_simclr(images, replace(RECIPE, epochs=30), rng=rng)
    assert alike(trained) > alike(untrained(RECIPE, rng=rng))


def test_training_goes_on_from_an_encoder(scene: Scene) -> None:
    """A start is taken over and left as it is; one of another size is refused."""
    images = scene.claims[0].private.images
    start = train_simclr(images, RECIPE, rng=np.random.default_rng(1))
    before = start.embed(images)
    further = train_simclr(
        images, replace(RECIPE, epochs=1, rate=1e-9), rng=np.random.default_rng(2), start=start
    )
    assert np.array_equal(start.embed(images), before)
    # Weights move by almost nothing; running means of batch normalization by one epoch.
    assert np.corrcoef(further.embed(images).ravel(), before.ravel())[0, 1] > 0.9
    with pytest.raises(ConfigurationError, match="of the same recipe"):
        train_simclr(images, replace(RECIPE, dim=4), rng=np.random.default_rng(2), start=start)


def test_labels_teach_an_encoder(scene: Scene) -> None:
    """Trained on coin flips as labels, an encoder puts their two groups apart; a random one not."""
    images, rng = scene.claims[0].private.images, np.random.default_rng(0)
    labels = rng.integers(0, 2, len(images))

    def apart(encoder: Encoder) -> float:
        rows = encoder.embed(images)
        gap = rows[labels == 1].mean(axis=0) - rows[labels == 0].mean(axis=0)
        return float(np.square(gap).sum() / rows.var(axis=0).sum())

    recipe = replace(RECIPE, epochs=40)
    trained = train_supervised(images, labels, recipe, rng=rng)
    assert apart(trained) > 3 * apart(untrained(recipe, rng=rng))


def test_an_unknown_network_is_refused() -> None:
    """A wrong name is answered with the known ones."""
    with pytest.raises(ConfigurationError, match="mlp or conv, got 'resnet'"):
        Small("resnet").build(8, np.random.default_rng(0))  # type: ignore[arg-type]
