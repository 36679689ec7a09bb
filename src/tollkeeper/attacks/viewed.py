"""Attacks that ask for random views of images: choose, ask for views, then train offline."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.asking import Asker, remaining, take
from tollkeeper.attacks.augment import CONT_STEAL, Augmentation
from tollkeeper.attacks.recovery.base import AsAnswered
from tollkeeper.attacks.trained import Loss, Trained
from tollkeeper.attacks.views import ask_views
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.progress import Progress
from tollkeeper.lab.torching import device, generator
from tollkeeper.types import Batch


@dataclass(frozen=True, eq=False)
class Views:
    """What a viewed attack trains on.

    Attributes:
        plain: (m, 3, h, w) uint8, the images without augmentation.
        pixels: (v, m, 3, h, w) uint8, the views that were asked.
        targets: (v, m, d) float32 victim answers.
        draws: randomness of training.
        turns: (m,) int64, how often each image was drawn; starts anywhere.
    """

    plain: Tensor
    pixels: Tensor
    targets: Tensor
    draws: torch.Generator
    turns: Tensor

    def some(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next view of each image of a batch and its answer, all in turn."""
        choice = self.turns[index] % len(self.pixels)
        self.turns[index] += 1
        return self.pixels[choice, index], self.targets[choice, index]


@dataclass(frozen=True, kw_only=True)
class Viewed(Trained):
    """Asks for `views` random views of as many images as the budget allows.

    Attributes:
        views: per image; each is a query.
        augment: makes the views that are asked.
    """

    views: int
    augment: Augmentation = CONT_STEAL

    def __post_init__(self) -> None:
        """Refuse an attack that asks for nothing.

        Raises:
            ConfigurationError: no view.
        """
        if self.views < 1:
            raise ConfigurationError(f"expected at least 1 view of each image, got {self.views}")

    @property
    def asks_per_input(self) -> int:
        """Distinct queries that one image becomes."""
        return self.views

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Choose images, ask for views of them, and train a network on the answers."""
        choosing, asking, building, drawing, ordering = rng.spawn(5)
        count = remaining(victim) // self.views
        if count < 1:
            raise ConfigurationError(
                f"expected a budget of at least {self.views} queries, one per view of an image, "
                f"got {remaining(victim)}"
            )
        asker = Asker(victim, queries, recovery=AsAnswered(), rng=asking)
        images = take(queries, self.selection.choose(queries, count, ask=asker, rng=choosing))
        known = ask_views(
            victim, images, views=self.views, augment=self.augment, rng=asking, progress=progress
        )
        network = self.network.build(known.embeddings.shape[2], building)
        target = device()
        asked = known.embeddings.shape[1]
        views = Views(
            network.prepare(images[:asked]).to(target),
            torch.stack([network.prepare(view) for view in known.pixels]).to(target),
            torch.from_numpy(known.embeddings).to(target),
            generator(drawing),
            torch.from_numpy(drawing.integers(0, self.views, asked)),
        )
        loss, modules = self.loss(network, views, rng=drawing, progress=progress)
        return self.trained(
            network,
            loss,
            beside=modules,
            count=asked,
            dim=victim.dim,
            rng=ordering,
            progress=progress,
        )

    @abstractmethod
    def loss(
        self, network: nn.Module, views: Views, *, rng: np.random.Generator, progress: Progress
    ) -> tuple[Loss, list[nn.Module]]:
        """Return the loss of a batch, and modules to be trained beside the network."""
