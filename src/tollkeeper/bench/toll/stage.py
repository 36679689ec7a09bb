"""The images that victims and users of `pow-calibration` are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tollkeeper.bench.inputs import noted
from tollkeeper.bench.toll.models import SIDE
from tollkeeper.data import load_images
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.torching import device
from tollkeeper.types import Batch

Images = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The images of one data set's users; all (n, 28, 28) uint8.

    Attributes:
        images: of the victim, its teachers and its honest users.
        labels: (n,) of these.
        test: what copies are scored on.
        test_labels: (n,) of these.
        letters: other characters.
        photos: natural images in gray.
    """

    images: Images
    labels: NDArray[np.int64]
    test: Images
    test_labels: NDArray[np.int64]
    letters: Images
    photos: Images


def load_stage(dataset: str, data: dict[str, str], *, train: int, budget: int) -> Stage:
    """Load a data set and what thieves ask instead of it.

    Args:
        dataset: its name.
        data: gets the checksums.
        train: images of the victim.
        budget: queries of a user.

    Raises:
        ConfigurationError: fewer images than victim and users need.
        DataError: missing or damaged.
    """
    mine, test = noted(load_images, data, dataset, "train", "test")
    (letters,) = noted(load_images, data, "emnist_letters", "train")
    (photos,) = noted(load_images, data, "cifar10", "train")
    needed = train + 2 * budget
    if mine.labels is None or test.labels is None or len(mine.classes) != 10:
        raise ConfigurationError(f"expected labels of ten classes, {dataset} has none such")
    if len(mine) < needed or min(len(letters), len(photos)) < budget:
        raise ConfigurationError(
            f"expected {needed:,} images of {dataset} and {budget:,} of others, got "
            f"{len(mine):,}, {len(letters):,} letters and {len(photos):,} photos; lower the budget"
        )
    edge = (32 - SIDE) // 2
    gray = np.asarray(photos.inputs)[:, edge : edge + SIDE, edge : edge + SIDE].mean(axis=3)
    return Stage(
        _one_channel(mine.inputs),
        mine.labels,
        _one_channel(test.inputs),
        test.labels,
        _one_channel(letters.inputs),
        gray.astype(np.uint8),
    )


def _one_channel(images: Batch) -> Images:
    found: Images = np.ascontiguousarray(np.asarray(images)[..., 0])
    return found


def pixels(images: Images) -> Tensor:
    """Return (n, 1, 28, 28) float32 in [0, 1]."""
    return torch.from_numpy(images[:, np.newaxis].astype(np.float32) / 255).to(device())
