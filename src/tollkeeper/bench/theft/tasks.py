"""Downstream tasks: what honest users and thieves want an encoder for.

B4B's table (NeurIPS 2023) probes CIFAR-10, STL-10, SVHN and Fashion-MNIST. Two of them
cannot be had here, see `STANDS_IN_FOR`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.inputs import noted
from tollkeeper.data import Dataset, load_images, load_text
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch

SIDE = 32
"""Pixels a side of every image: what `builtin:image` and the surrogates see."""

IMAGE_TASKS = ("cifar10", "cifar100", "gtsrb", "fashion_mnist")
TEXT_TASKS = ("banking77", "ag_news", "sst2")

STANDS_IN_FOR: Mapping[str, str] = {
    "gtsrb": "SVHN",
    "cifar100": "STL-10",
    "tiny_imagenet": "ImageNet",
}
"""Tasks and pools to the published set that they replace; tables must say so."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One labeled task; inputs are strings, or one (n, 32, 32, 3) uint8 array.

    Attributes:
        name: of `IMAGE_TASKS` or `TEXT_TASKS`.
        train_inputs: n inputs to fit a probe on.
        train_labels: (n,) int64.
        test_inputs: m inputs, none of which may be used to choose anything.
        test_labels: (m,) int64.
    """

    name: str
    train_inputs: Batch
    train_labels: NDArray[np.int64]
    test_inputs: Batch
    test_labels: NDArray[np.int64]


def load_task(
    name: str, *, train: int, test: int, rng: np.random.Generator, data: dict[str, str]
) -> Task:
    """Load a task, cut to size with every class keeping its share.

    =============  =======================================================================
    name           inputs
    =============  =======================================================================
    cifar10        objects, 10 classes; at most 20,000 and 10,000
    cifar100       objects, 100 classes, stands in for STL-10; at most 10,000 and 2,000
    gtsrb          traffic signs, 43 classes, stands in for SVHN; at most 3,920 and 5,000
    fashion_mnist  gray clothes, 10 classes, scaled from 28 pixels as `builtin:image`
                   scales them; at most 60,000 and 10,000
    banking77      bank customers' questions, 77 intents; at most 10,003 and 3,080
    ag_news        news, 4 topics; at most 10,001 descriptions and 7,600 titles with
                   descriptions, so the probe meets somewhat longer texts than it saw
    sst2           film reviews' sentences, 2 sentiments; at most 6,920 and 1,821
    =============  =======================================================================

    Args:
        name: the task.
        train: training inputs, or all where there are fewer.
        test: test inputs, or all where there are fewer.
        rng: chooses and orders them.
        data: gets the checksum of each whole split, for the manifest.

    Raises:
        ConfigurationError: unknown name, or no inputs wanted.
        DataError: a data set is missing or damaged.
    """
    if name not in _SOURCES:
        raise ConfigurationError(f"no task {name!r}; choose {', '.join(_SOURCES)}")
    if train < 1 or test < 1:
        raise ConfigurationError(
            f"expected at least 1 training and 1 test input, got {train} and {test}"
        )
    load, stored = _SOURCES[name]
    whole = noted(load, data, stored, "train", "test")
    (fit, fit_labels), (held, held_labels) = (
        _cut(part, count, rng=rng) for part, count in zip(whole, (train, test), strict=True)
    )
    return Task(name, fit, fit_labels, held, held_labels)


def stratified(
    labels: NDArray[np.int64], count: int, *, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Choose positions so that every class keeps its share, rounded up or down.

    Args:
        labels: (n,) class numbers.
        count: how many to choose; all if there are fewer.
        rng: chooses within classes, and the order.

    Returns:
        (min(count, n),) distinct positions in random order.
    """
    sizes = np.bincount(labels)
    shares = sizes * (min(count, len(labels)) / len(labels))
    quotas = np.floor(shares + 1e-9).astype(np.intp)  # a whole share may come out just below
    left = min(count, len(labels)) - int(quotas.sum())
    quotas[np.argsort(quotas - shares, kind="stable")[:left]] += 1
    members = (np.flatnonzero(labels == label) for label in range(len(sizes)))
    chosen = [rng.permutation(at)[:quota] for at, quota in zip(members, quotas, strict=True)]
    return rng.permutation(np.concatenate(chosen))


def select(inputs: Batch, positions: NDArray[np.intp]) -> Batch:
    """Return the inputs at (n,) positions, in that order."""
    if isinstance(inputs, np.ndarray):
        return inputs[positions]
    return [inputs[at] for at in positions.tolist()]


def _cut(part: Dataset, count: int, *, rng: np.random.Generator) -> tuple[Batch, NDArray[np.int64]]:
    assert part.labels is not None
    chosen = stratified(part.labels, count, rng=rng)
    inputs = select(part.inputs, chosen)
    if isinstance(inputs, np.ndarray) and inputs.shape[1:3] != (SIDE, SIDE):
        inputs = scaled(inputs)
    return inputs, part.labels[chosen]


def scaled(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Scale n images (h, w, 3) to (n, 32, 32, 3) as `builtin:image` does, so its answers stay."""
    from PIL import Image

    small = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image)).resize(
                (SIDE, SIDE), Image.Resampling.BILINEAR
            )
        )
        for image in images
    ]
    return np.stack(small)


_SOURCES: Mapping[str, tuple[Callable[[str, str], Dataset], str]] = {
    "cifar10": (load_images, "cifar10"),
    "cifar100": (load_images, "cifar100"),
    "gtsrb": (load_images, "gtsrb32"),
    "fashion_mnist": (load_images, "fashion_mnist"),
    "banking77": (load_text, "banking77"),
    "ag_news": (load_text, "ag_news"),
    "sst2": (load_text, "sst2"),
}
