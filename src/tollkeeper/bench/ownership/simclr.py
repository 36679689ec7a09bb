"""Training of small encoders: contrastive, supervised, or none at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.objectives import InfoNCE
from tollkeeper.attacks.surrogate import Surrogate, pixels
from tollkeeper.bench.ownership.networks import Small
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import Schedule, fit
from tollkeeper.lab.progress import Progress, silent
from tollkeeper.lab.torching import generator, seeded_init


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an encoder is trained.

    Attributes:
        network: its architecture.
        dim: embedding width d.
        epochs: passes over its images.
        batch: images per step, at most a quarter of them.
        rate: of Adam, falling to zero along a cosine.
        temperature: of the contrastive loss.
    """

    network: Small = field(default_factory=Small)
    dim: int = 64
    epochs: int = 100
    batch: int = 256
    rate: float = 1e-3
    temperature: float = 0.2

    def schedule(self, count: int) -> Schedule:
        """Return the schedule for so many images."""
        batch = max(2, min(self.batch, count // 4))
        return Schedule(epochs=self.epochs, batch=batch, rate=self.rate)


def train_simclr(
    images: NDArray[np.uint8],
    recipe: Recipe,
    *,
    rng: np.random.Generator,
    start: Surrogate | None = None,
    progress: Progress = silent,
) -> Surrogate:
    """Train an encoder on two views of each image, and throw the projector away.

    Source: Chen et al., "A Simple Framework for Contrastive Learning", ICML 2020; the mild views
    of `view` keep the over-fitting to training images that dataset inference reads.

    Args:
        images: (n, 16, 16, 3) uint8, n >= 4.
        recipe: how.
        rng: weights, order and views.
        start: an encoder of the same recipe to go on from; it is left as it is.
        progress: told after each epoch.
    """
    building, drawing, ordering = rng.spawn(3)
    network = _begun(recipe, start, building)
    with seeded_init(building):
        width = recipe.dim
        projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    inputs, draws, objective = pixels(images), generator(drawing), InfoNCE(recipe.temperature)

    def loss(index: Tensor) -> Tensor:
        some = inputs[index].float() / 255
        both = torch.cat([view(some, draws), view(some, draws)])
        z = projector(network(both))
        return objective(z[: len(some)], z[len(some) :])

    modules = [network, projector]
    return _fit(modules, len(inputs), loss, recipe, rng=ordering, progress=progress)


def train_supervised(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    recipe: Recipe,
    *,
    rng: np.random.Generator,
    progress: Progress = silent,
) -> Surrogate:
    """Train an encoder by cross-entropy of a linear head on single views; the head is thrown away.

    Args:
        images: (n, 16, 16, 3) uint8, n >= 4.
        labels: (n,) classes.
        recipe: how; the temperature does not matter.
        rng: weights, order and views.
        progress: told after each epoch.
    """
    building, drawing, ordering = rng.spawn(3)
    network = _begun(recipe, None, building)
    with seeded_init(building):
        head = nn.Sequential(nn.ReLU(), nn.Linear(recipe.dim, int(labels.max()) + 1))
    inputs, targets, draws = pixels(images), torch.from_numpy(labels), generator(drawing)

    def loss(index: Tensor) -> Tensor:
        logits = head(network(view(inputs[index].float() / 255, draws)))
        return F.cross_entropy(logits, targets[index])

    return _fit([network, head], len(inputs), loss, recipe, rng=ordering, progress=progress)


def untrained(recipe: Recipe, *, rng: np.random.Generator) -> Surrogate:
    """Return an encoder with random weights."""
    return Surrogate(recipe.network.build(recipe.dim, rng), dim=recipe.dim, name="untrained")


def view(x: Tensor, draws: torch.Generator) -> Tensor:
    """Return a random view of each image (n, 3, h, w) in [0, 1].

    A square of .6 to 1 of the area at a random place, edges reflected; flipped half the time;
    brightness times .8 to 1.2; noise of standard deviation .05.
    """
    n = len(x)
    area, across, down, gain = torch.rand(4, n, generator=draws)
    flip = torch.where(torch.rand(n, generator=draws) < 0.5, -1.0, 1.0)
    side = (0.6 + 0.4 * area).sqrt()
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = side * flip, side
    theta[:, 0, 2], theta[:, 1, 2] = (
        (1 - side) * (2 * across - 1),
        (1 - side) * (2 * down - 1),
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    seen = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    noise = torch.randn(x.shape, generator=draws)
    bright: Tensor = seen * (0.8 + 0.4 * gain)[:, None, None, None] + 0.05 * noise
    return bright.clamp_(0, 1)


def _begun(recipe: Recipe, start: Surrogate | None, rng: np.random.Generator) -> nn.Module:
    network = recipe.network.build(recipe.dim, rng)
    if start is not None:
        try:
            network.load_state_dict(start.network.state_dict())
        except RuntimeError as error:
            raise ConfigurationError(
                "expected an encoder of the same recipe to go on from"
            ) from error
    return network


def _fit(
    modules: list[nn.Module],
    count: int,
    loss: Callable[[Tensor], Tensor],
    recipe: Recipe,
    *,
    rng: np.random.Generator,
    progress: Progress,
) -> Surrogate:
    """Train modules, of which the first is the encoder's network."""
    schedule = recipe.schedule(count)
    fit(modules, count, loss, schedule=schedule, rng=rng, progress=progress)
    return Surrogate(modules[0], dim=recipe.dim, name=recipe.network.kind)
