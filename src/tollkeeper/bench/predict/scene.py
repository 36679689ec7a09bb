"""Who holds which images: victim, honest users, thief and defender never share one.

The official splits of the victim's data are joined and shuffled before they are dealt out: the
test file of MNIST is sorted by how clean its writers are, and slices of it tell themselves apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.inputs import noted
from tollkeeper.data import load_images
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Images

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cast:
    """Whose data plays which part.

    Attributes:
        thief: data set and splits of the thief's pool.
        outside: data set and splits that some detectors are fitted against.
        stands_in_for: what the published thief asks, where ours asks something else.
        channels: 1 is gray.
    """

    thief: tuple[str, ...]
    outside: tuple[str, ...]
    stands_in_for: str = ""
    channels: int = 1


CASTS: Mapping[str, Cast] = {
    "mnist": Cast(
        ("emnist_letters", "train", "test"), ("kmnist", "test"), stands_in_for="EMNIST digits"
    ),
    "cifar10": Cast(
        ("cifar100", "train", "test"),
        ("tiny_imagenet", "train"),
        stands_in_for="",
        channels=3,
    ),
}
"""Victim's data set to the others, as in tables 1 and 2 of the SAME paper."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many images each part gets.

    Attributes:
        train: the victim's, which detectors may be fitted on too.
        honest: asked by honest users, and what accuracy is measured on.
        calibration: honest queries held out of every fit: thresholds and ranks.
        seeds: in-distribution images that a thief starts from.
        insider: in-distribution images that a thief asks.
        pool: of the thief's other images.
        outside: of the images that detectors are fitted against.
        reference: honest queries that the victim was not trained on, for detectors to be fitted on.
    """

    train: int
    honest: int
    calibration: int
    seeds: int
    insider: int
    pool: int
    outside: int
    reference: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The images of one data set's users; all (n, c, h, w) float32 in [0, 1].

    Attributes:
        dataset: of the victim.
        classes: names of its labels.
        train: of the victim.
        train_labels: (n,) of these.
        honest: asked by honest users.
        honest_labels: (n,) of these.
        reference: honest queries that the victim was not trained on.
        calibration: honest queries held out of every fit.
        seeds: the thief's in-distribution images.
        insider: in-distribution images asked by a thief.
        pool: the thief's other images.
        pool_labels: (n,) of these.
        outside: what detectors are fitted against.
        outside_labels: (n,) of these.
    """

    dataset: str
    classes: tuple[str, ...]
    train: Images
    train_labels: Labels
    honest: Images
    honest_labels: Labels
    reference: Images
    calibration: Images
    seeds: Images
    insider: Images
    pool: Images
    pool_labels: Labels
    outside: Images
    outside_labels: Labels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (c, h, w)."""
        c, h, w = self.train.shape[1:]
        return c, h, w


def load_scene(
    dataset: str, sizes: Sizes, *, rng: np.random.Generator, data: dict[str, str]
) -> Scene:
    """Load a data set with its cast and deal the images out.

    Args:
        dataset: of `CASTS`.
        sizes: of the parts.
        rng: shuffles; with the same state and sizes the scene is the same.
        data: gets the checksums.

    Raises:
        ConfigurationError: an unknown data set, or fewer images than are asked for.
        DataError: a data set is missing or damaged.
    """
    if dataset not in CASTS:
        raise ConfigurationError(f"no scene of {dataset!r}; choose from {', '.join(CASTS)}")
    cast = CASTS[dataset]
    mine, outside, pool = (
        _joined(names, cast.channels, rng.spawn(1)[0], data)
        for names in ((dataset, "train", "test"), cast.outside, cast.thief)
    )
    own = _Deal(dataset, *mine[:2])
    train, train_labels = own.take(sizes.train)
    honest, honest_labels = own.take(sizes.honest)
    calibration, seeds, insider, reference = (
        own.take(count)[0]
        for count in (sizes.calibration, sizes.seeds, sizes.insider, sizes.reference)
    )
    asked, asked_labels = _Deal(cast.thief[0], *pool[:2]).take(sizes.pool)
    other, other_labels = _Deal(cast.outside[0], *outside[:2]).take(sizes.outside)
    return Scene(
        dataset=dataset,
        classes=mine[2],
        train=train,
        train_labels=train_labels,
        honest=honest,
        honest_labels=honest_labels,
        reference=reference,
        calibration=calibration,
        seeds=seeds,
        insider=insider,
        pool=asked,
        pool_labels=asked_labels,
        outside=other,
        outside_labels=other_labels,
    )


class _Deal:
    """A shuffled set of which parts are taken from the top."""

    def __init__(self, name: str, images: NDArray[np.uint8], labels: Labels) -> None:
        self._name, self._images, self._labels, self._used = name, images, labels, 0

    def take(self, count: int) -> tuple[Images, Labels]:
        """Return the next `count` images as tensors, with their labels."""
        part = slice(self._used, self._used + count)
        self._used += count
        if self._used > len(self._images):
            raise ConfigurationError(
                f"expected {self._used:,} images of {self._name}, got {len(self._images):,}; "
                "lower the budgets"
            )
        return tensors(self._images[part]), self._labels[part]


def tensors(images: NDArray[np.uint8]) -> Images:
    """Return (n, h, w, c) uint8 as (n, c, h, w) float32 in [0, 1]."""
    found: Images = np.ascontiguousarray(
        np.moveaxis(images, 3, 1).astype(np.float32) / np.float32(255)
    )
    return found


def _joined(
    names: tuple[str, ...], channels: int, rng: np.random.Generator, data: dict[str, str]
) -> tuple[NDArray[np.uint8], Labels, tuple[str, ...]]:
    """Return all splits of a set in one random order."""
    name, *splits = names
    parts = list(noted(load_images, data, name, *splits))
    shrink = _SHRINK.get(name, _as_is)
    images = np.concatenate([shrink(np.asarray(one.inputs)[..., :channels]) for one in parts])
    labels = np.concatenate(
        [np.zeros(len(one), np.int64) if one.labels is None else one.labels for one in parts]
    )
    order = rng.permutation(len(images))
    return images[order], labels[order], parts[0].classes


def _as_is(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images


def _halved(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images of half the size, by the mean of four pixels."""
    n, h, w, c = images.shape
    sums = images.reshape(n, h // 2, 2, w // 2, 2, c).sum(axis=(2, 4), dtype=np.uint16)
    found: NDArray[np.uint8] = ((sums + 2) // 4).astype(np.uint8)
    return found


_SHRINK: Mapping[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {"tiny_imagenet": _halved}
