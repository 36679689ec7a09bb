"""Query pools: what is in them, and that no test input is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tollkeeper.bench.theft import pools
from tollkeeper.bench.theft.pools import POOLS, halved, load_pool, without
from tollkeeper.bench.theft.tasks import STANDS_IN_FOR, load_task
from tollkeeper.data import load_images
from tollkeeper.errors import ConfigurationError


def test_pixels_are_averaged_in_squares() -> None:
    """Each new pixel is the mean of four, rounded half up, channel by channel."""
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 3), np.uint8)
    images[0, :2, :2] = 255
    small = halved(images)
    assert small.shape == (2, 3, 2, 3)
    assert small.dtype == np.uint8
    for n, y, x, c in np.ndindex(small.shape):
        four = [int(images[n, 2 * y + dy, 2 * x + dx, c]) for dy in (0, 1) for dx in (0, 1)]
        assert small[n, y, x, c] == int(sum(four) / 4 + 0.5)


def test_barred_texts_are_left_out_however_they_are_spelled() -> None:
    """Repeats go, and what differs from a barred text by case, spaces and marks alone."""
    found = without(["b", "It 's  good .", "a", "b", "its goods"], ["it's good!"])
    assert found == ["b", "a", "its goods"]


@pytest.mark.parametrize("name", ["cifar100", "broad_text"])
def test_pools_are_distinct_and_nested(name: str, data_dir: Path) -> None:
    """A smaller pool begins a larger one of the same seed; no input comes twice."""
    pool, small = (
        load_pool(name, size=size, rng=np.random.default_rng(3), data={}) for size in (400, 150)
    )
    raw = [item.encode() if isinstance(item, str) else item.tobytes() for item in pool.inputs]
    assert len(set(raw)) == len(raw) == 400
    for one, other in zip(small.inputs, pool.inputs, strict=False):
        np.testing.assert_array_equal(one, other)
    assert len(small.inputs) == 150
    if pool.labels is not None:
        assert small.labels is not None
        np.testing.assert_array_equal(small.labels, pool.labels[:150])


@pytest.mark.slow
def test_tiny_imagenet_is_halved_and_labeled(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool holds averaged photographs beside their classes, and is in the manifest."""
    whole = load_images("tiny_imagenet", "train")
    assert whole.labels is not None
    monkeypatch.setattr(pools, "load_images", lambda name, split: whole)  # decoding takes seconds
    data: dict[str, str] = {}
    pool = load_pool("tiny_imagenet", size=300, rng=np.random.default_rng(0), data=data)
    order = np.random.default_rng(0).permutation(10_000)[:300]
    np.testing.assert_array_equal(pool.inputs, halved(np.asarray(whole.inputs)[order]))
    np.testing.assert_array_equal(pool.labels, whole.labels[order])
    assert list(data) == ["tiny_imagenet/train"]


def test_no_pool_of_texts_holds_a_test_input(data_dir: Path) -> None:
    """The whole broad pool shares no text with the test parts of the tasks."""
    data: dict[str, str] = {}
    rng = np.random.default_rng(0)
    pool = load_pool("broad_text", size=27_000, rng=rng, data=data)
    for name in ("sst2", "ag_news", "banking77"):
        task = load_task(name, train=1, test=10**6, rng=rng, data={})
        assert not set(pool.inputs) & set(task.test_inputs)
    assert {"ag_news/train", "wikitext2/test", "mr/all", "sst2/train", "sst2/test"} <= set(data)


def test_bad_wishes_are_named(data_dir: Path) -> None:
    """Unknown pools and sizes beyond the pool are refused in one line."""
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigurationError, match="no query pool 'imagenet'; choose tiny_imagenet"):
        load_pool("imagenet", size=1, rng=rng, data={})
    for size in (0, 10_001):
        with pytest.raises(ConfigurationError, match=f"expected 1 to 10000 inputs .* got {size}"):
            load_pool("cifar100", size=size, rng=rng, data={})


def test_every_stand_in_exists() -> None:
    """Sets that stand in for published ones are tasks or pools."""
    rng = np.random.default_rng(0)
    for name in STANDS_IN_FOR:
        if name not in POOLS:
            with pytest.raises(ConfigurationError, match="at least 1"):
                load_task(name, train=0, test=0, rng=rng, data={})
