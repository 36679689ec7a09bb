"""What all attacks on classifiers share: the copy, how it is trained, what it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.classifier.top_one import TopOne
from tollkeeper.attacks.classifier.transfer import Line, View
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.conv3 import conv3
from tollkeeper.lab.fit import SGD, Schedule, fit, run_network
from tollkeeper.lab.progress import Progress, silent
from tollkeeper.lab.torching import device
from tollkeeper.types import Batch, Images, Probabilities

_TOGETHER = 1024


class CopyFactory(Protocol):
    """Makes networks from (n, c, h, w) in [0, 1] to (n, k) logits; a frozen dataclass."""

    def build(
        self, shape: tuple[int, int, int], classes: int, rng: np.random.Generator
    ) -> nn.Module:
        """Return a new network for pictures of (c, h, w) with random weights."""
        ...


@dataclass(frozen=True, slots=True)
class Conv3Copy:
    """The architecture of SAME's victims: an attacker who knows it, the extreme case there.

    Attributes:
        width: filters of the first layer.
    """

    width: int = 32

    def build(
        self, shape: tuple[int, int, int], classes: int, rng: np.random.Generator
    ) -> nn.Module:
        """Return a new network with random weights."""
        return conv3(shape, classes, rng, width=self.width)


KNOCKOFF_SCHEDULE = Schedule(epochs=100, batch=64, rate=0.01, optimizer=SGD(momentum=0.5))
"""Of the KnockoffNets code; here the rate falls along a cosine, there tenfold at epoch 60."""


@dataclass(frozen=True, kw_only=True)
class Copying(Attack):
    """Asks for pictures and trains a network on the answers; subclasses write `steal`.

    Attributes:
        network: architecture of the copy.
        schedule: how the last copy is trained.
        labels_only: read no more of an answer than its top class.
        view: what becomes of pictures before they are asked; the copy learns what was asked.
            For thieves who match the honest rendering or project onto honest pictures.
    """

    network: CopyFactory = field(default_factory=Conv3Copy)
    schedule: Schedule = KNOCKOFF_SCHEDULE
    labels_only: bool = False
    view: View | None = None

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Return the copy.

        Raises:
            ConfigurationError: the pool is not of tensors, or of more than one size.
        """
        pool = pictures(queries)
        asked = TopOne(victim) if self.labels_only else victim
        line = Line(asked, view=self.view, progress=progress)
        network = self.steal(line, pool, rng=rng, progress=progress)
        return TorchClassifier(
            network,
            input_shape=shape_of(pool),
            classes=tuple(str(number) for number in range(victim.dim)),
            name="surrogate",
        )

    @abstractmethod
    def steal(
        self, line: Line, pool: Images, *, rng: np.random.Generator, progress: Progress
    ) -> nn.Module:
        """Return the network of the copy: pictures to (n, k) logits.

        Args:
            line: to the victim.
            pool: (n, c, h, w).
            rng: all randomness of the run.
            progress: told after each step.
        """

    def trained(
        self,
        images: Images,
        answers: Probabilities,
        *,
        rng: np.random.Generator,
        progress: Progress = silent,
        schedule: Schedule | None = None,
    ) -> nn.Module:
        """Return a new network trained on answers (n, k) to n pictures."""
        building, ordering = rng.spawn(2)
        network = self.network.build(shape_of(images), answers.shape[1], building).to(device())
        imitate(
            network,
            images,
            answers,
            schedule=schedule or self.schedule,
            rng=ordering,
            progress=progress,
        )
        return network


def imitate(
    network: nn.Module,
    images: Images,
    answers: Probabilities,
    *,
    schedule: Schedule,
    rng: np.random.Generator,
    progress: Progress = silent,
) -> None:
    """Train a network on answers (n, k), soft or one-hot, by cross-entropy.

    Raises:
        ConfigurationError: fewer than 2 answers, or the loss is no longer finite.
    """
    where = next(network.parameters()).device
    inputs = torch.from_numpy(images.copy()).to(where)  # Data sets are read-only.
    targets = torch.from_numpy(answers).to(where)

    def loss(index: Tensor) -> Tensor:
        index = index.to(where)
        return soft_cross_entropy(run_network(network, inputs[index]), targets[index]).mean()

    fit([network], len(images), loss, schedule=schedule, rng=rng, progress=progress)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (n,) cross-entropies of (n, k) logits with probabilities."""
    return -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1)


def probabilities(network: nn.Module, images: Images) -> Probabilities:
    """Return a network's (n, k) probabilities of n pictures."""
    where = next(network.parameters()).device
    with torch.no_grad():
        parts = [
            functional.softmax(network(part.to(where)), dim=1).cpu()
            for part in torch.from_numpy(images.copy()).split(_TOGETHER)
        ]
    found: Probabilities = torch.cat(parts).numpy()
    return found


def pictures(queries: Batch) -> Images:
    """Return a pool as (n, c, h, w) float32.

    Raises:
        ConfigurationError: it is something else, or out of range.
    """
    pool = np.asarray(queries)
    if pool.ndim != 4 or pool.dtype != np.float32:
        raise ConfigurationError(
            "attacks on classifiers expect a pool of (n, c, h, w) float32 pictures, got "
            f"{pool.dtype} {pool.shape}"
        )
    # Not `pool.min() < 0`: NaN must fail too.
    if pool.size and not (pool.min() >= 0 and pool.max() <= 1):
        raise ConfigurationError(
            f"expected pictures in [0, 1], got {pool.min():g} to {pool.max():g}"
        )
    return pool


def shape_of(images: Images) -> tuple[int, int, int]:
    """Return (c, h, w)."""
    channels, height, width = images.shape[1:]
    return channels, height, width
