"""Who holds which pictures when classifiers are audited, and what every worker shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tollkeeper.audit.classifiers.inference import MarginSplit
from tollkeeper.audit.classifiers.margins import Side
from tollkeeper.bench.inputs import noted
from tollkeeper.bench.predict.scene import tensors
from tollkeeper.data import load_images
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.conv3 import conv3
from tollkeeper.lab.fit import Adam, Schedule, fit, run_network
from tollkeeper.lab.progress import silent
from tollkeeper.lab.torching import device

_SIDE = 16
_CLASSES = 10
_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a classifier is trained: the victim and all others alike.

    Attributes:
        width: filters of the first layer of `Conv3`.
        epochs: passes over the pictures; long enough to learn them by heart, as published victims
            do.
        batch: pictures per step.
    """

    width: int = 16
    epochs: int = 60
    batch: int = 32


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The pictures, 16 x 16, and the victim. Which are private was drawn before any training.

    Attributes:
        private: the victim was trained on.
        public: held out, and used for nothing but the audit.
        fresh: of the same source; independents draw theirs from here.
        exam: accuracy is measured on.
        pool: of another source (CIFAR-100); thieves ask these.
        victim: trained.
    """

    private: Side
    public: Side
    fresh: Side
    exam: Side
    pool: NDArray[np.float32]
    victim: TorchClassifier

    def split(self, count: int) -> MarginSplit:
        """Return the first pictures of both sides, of which the audit is."""
        return MarginSplit(part(self.private, count), part(self.public, count), randomized=True)


def part(side: Side, count: int) -> Side:
    """Return the first pictures of a side."""
    return Side(side.images[:count], side.labels[:count])


def load_stage(
    size: int, exam: int, recipe: Recipe, *, rng: np.random.Generator, data: dict[str, str]
) -> Stage:
    """Load pictures, deal them out and train the victim.

    Args:
        size: pictures of each side, and of each independent.
        exam: pictures that accuracy is measured on.
        recipe: of the victim.
        rng: shuffles and trains.
        data: gets the checksums.

    Raises:
        ConfigurationError: fewer pictures than are asked for.
        DataError: a data set is missing or damaged.
    """
    images, labels = _joined("cifar10", rng, data)
    pool, _ = _joined("cifar100", rng, data)
    least = 3 * size + exam
    if len(images) < least:
        raise ConfigurationError(
            f"expected {least:,} pictures for two sides, an exam and independents, got "
            f"{len(images):,}; lower size"
        )
    cuts = np.cumsum([size, size, exam])
    sides = [
        Side(*pair) for pair in zip(np.split(images, cuts), np.split(labels, cuts), strict=True)
    ]
    private, public, marked, fresh = sides
    victim = trained(private, recipe, rng=rng)
    return Stage(private, public, fresh, marked, pool, victim)


def _joined(
    name: str, rng: np.random.Generator, data: dict[str, str]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return both official splits of a set of 32 x 32 pictures, halved, in one random order."""
    parts = list(noted(load_images, data, name, "train", "test"))
    pixels = np.concatenate([np.asarray(one.inputs) for one in parts])
    labels = np.concatenate([one.labels for one in parts if one.labels is not None])
    order = rng.permutation(len(pixels))
    large = pixels[order].reshape(-1, _SIDE, 2, _SIDE, 2, 3).astype(np.float32)
    small = np.rint(large.mean(axis=(2, 4))).astype(np.uint8)
    return tensors(small), labels[order]


def trained(
    side: Side, recipe: Recipe, *, rng: np.random.Generator, after: TorchClassifier | None = None
) -> TorchClassifier:
    """Return a classifier trained on a side; `after` gives the weights to start from."""
    shape = (3, _SIDE, _SIDE)
    network = conv3(shape, _CLASSES, rng, width=recipe.width).to(device())
    if after is not None:
        network.load_state_dict(after.network.state_dict())
    images = torch.from_numpy(side.images.copy()).to(device())
    labels = torch.from_numpy(side.labels.copy()).to(device())

    def loss(index: torch.Tensor) -> torch.Tensor:
        at = index.to(images.device)
        return functional.cross_entropy(run_network(network, images[at]), labels[at])

    rate = _RATE if after is None else _RATE / 3
    schedule = Schedule(epochs=recipe.epochs, batch=recipe.batch, rate=rate, optimizer=Adam())
    fit([network], len(images), loss, schedule=schedule, rng=rng, progress=silent)
    return TorchClassifier(
        network, input_shape=shape, classes=tuple(map(str, range(_CLASSES))), name="classifier"
    )
