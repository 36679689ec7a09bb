"""The victim, its copies, and the teachers that vote on what a query asks for."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.lab.fit import Schedule, fit
from tollkeeper.lab.progress import silent
from tollkeeper.lab.torching import device, generator, seeded_init

CLASSES, SIDE = 10, 28
_FORWARD = 512
_TIMED = 20
_FILTERS, _POOL = 16, 7
_FEATURES = _FILTERS * (SIDE // _POOL) ** 2


def classifier(rng: np.random.Generator, *, width: int = 8) -> nn.Module:
    """Return an untrained network from (n, 1, 28, 28) in [0, 1] to (n, 10) logits."""
    with seeded_init(rng):
        network = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * (SIDE // 4) ** 2, 64),
            nn.ReLU(),
            nn.Linear(64, CLASSES),
        )
    return network.to(device()).eval()


def train(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    epochs: int,
    rng: np.random.Generator,
) -> None:
    """Train on soft or hard targets, (n, 10) probabilities or (n,) classes."""

    def loss(index: Tensor) -> Tensor:
        return functional.cross_entropy(network(images[index]), targets[index])

    schedule = Schedule(epochs=epochs, batch=64, rate=2e-3)
    fit([network], len(images), loss, schedule=schedule, rng=rng, progress=silent)


def probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """Return (n, 10) softmax outputs without gradients."""
    with torch.no_grad():
        parts = [torch.softmax(network(part), dim=1) for part in images.split(_FORWARD)]
    return torch.cat(parts) if parts else torch.zeros(0, CLASSES)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that get their label."""
    return float((probabilities(network, images).argmax(dim=1) == labels).float().mean())


@dataclass(frozen=True, slots=True, eq=False)
class Teachers:
    """Many small networks on disjoint shards, trained and asked as one product.

    All see the image through the same random filters, which know nothing of any data; what a
    teacher learns is a network of one hidden layer on top.
    Notes: the reference's teachers are convolutional networks trained one by one.

    Attributes:
        filters: (16, 1, 5, 5), each of mean zero.
        first: (t, 256, h) weights of the hidden layers.
        bias: (t, 1, h) of these.
        second: (t, h, 10) weights of the outputs.
    """

    filters: Tensor
    first: Tensor
    bias: Tensor
    second: Tensor

    @classmethod
    def untrained(cls, count: int, hidden: int, draws: torch.Generator) -> Teachers:
        """Return `count` teachers that have seen nothing."""
        filters = torch.randn(_FILTERS, 1, 5, 5, generator=draws)
        first = torch.randn(count, _FEATURES, hidden, generator=draws) / _FEATURES**0.5
        second = torch.randn(count, hidden, CLASSES, generator=draws) / hidden**0.5
        filters -= filters.mean(dim=(2, 3), keepdim=True)
        parts = filters, first, torch.zeros(count, 1, hidden), second
        return cls(*(part.to(device()) for part in parts))

    def seen(self, images: Tensor) -> Tensor:
        """Return features (n, 256) of images (n, 1, 28, 28), each image's scaled by itself."""
        with torch.no_grad():
            filtered = functional.conv2d(images, self.filters, padding=2)
            pooled = functional.avg_pool2d(torch.relu(filtered), _POOL).flatten(1)
            found: Tensor = functional.layer_norm(pooled, (_FEATURES,))
        return found

    def logits(self, features: Tensor) -> Tensor:
        """Return (t, n, 10) of features (n, 256), or of each teacher's own (t, n, 256)."""
        found: Tensor = torch.relu(features @ self.first + self.bias) @ self.second
        return found

    def votes(self, images: Tensor) -> NDArray[np.int64]:
        """Return (n, 10) how many teachers say which class of images (n, 1, 28, 28)."""
        counts = [np.zeros((0, CLASSES), np.int64)]
        with torch.no_grad():
            for part in images.split(_FORWARD):
                said = self.logits(self.seen(part)).argmax(dim=2)
                counts.append(functional.one_hot(said, CLASSES).sum(dim=0).cpu().numpy())
        return np.concatenate(counts)


def teach(
    images: Tensor, labels: Tensor, *, count: int, hidden: int, steps: int, rng: np.random.Generator
) -> Teachers:
    """Train teachers on disjoint shards of equal size; what does not divide is left out."""
    teachers = Teachers.untrained(count, hidden, generator(rng))
    shard = len(images) // count
    parts = [teachers.seen(part) for part in images[: count * shard].split(_FORWARD)]
    mine = torch.cat(parts).reshape(count, shard, _FEATURES)
    wanted = labels[: count * shard]
    learned = [teachers.first, teachers.bias, teachers.second]
    optimizer = torch.optim.Adam([part.requires_grad_() for part in learned], lr=5e-3)
    for _ in range(steps):
        # The sum over teachers, so that each one's gradient is its own.
        loss = functional.cross_entropy(teachers.logits(mine).flatten(0, 1), wanted) * count
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return teachers


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """What answers, and what meters it.

    Attributes:
        victim: the network for sale.
        teachers: vote on each query.
    """

    victim: nn.Module
    teachers: Teachers

    def service_s(self, images: Tensor) -> float:
        """Return the median seconds that answering and metering `images` take as one batch."""
        taken = []
        for _ in range(_TIMED):
            began = time.perf_counter()
            probabilities(self.victim, images)
            self.teachers.votes(images)
            taken.append(time.perf_counter() - began)
        return float(np.median(taken))


def deploy(
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    count: int,
    hidden: int,
    steps: int,
    rng: np.random.Generator,
) -> Deployment:
    """Train a victim and its teachers on the same images."""
    victim = classifier(rng)
    train(victim, images, labels, epochs=epochs, rng=rng)
    teachers = teach(images, labels, count=count, hidden=hidden, steps=steps, rng=rng)
    return Deployment(victim, teachers)
