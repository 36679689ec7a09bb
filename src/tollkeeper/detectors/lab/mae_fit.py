"""Training the masked autoencoder of SAME on honest pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tollkeeper.detectors.lab.mae import PUBLISHED, MaeLayout, MaskedAutoencoder, random_places
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import AdamW, Schedule, fit
from tollkeeper.lab.progress import Progress, Step
from tollkeeper.lab.torching import autocast, device, generator
from tollkeeper.types import Images

PHASE = "autoencoder"
"""Its name in progress."""

_PUBLISHED_SCALE = 0.75
_TOGETHER = 512

AfterEpoch = Callable[[int, MaskedAutoencoder], None]
"""Called after each epoch with its number, from 1, and the network, which it may export."""


@dataclass(frozen=True, slots=True)
class MaeRecipe:
    """How to train a masked autoencoder.

    Source: Xie et al. (AAAI 2024), released code: see `published`.
    Notes: the code masks 3 of 4 patches in training and none in scoring, so that it scores with
    a network that never saw whole pictures. Here each batch draws its ratio, 0 among them.

    Attributes:
        layout: sizes of the network.
        ratios: mask ratios; each batch draws one.
        masked_only: whether only masked pixels count in the loss, as upstream; a batch of which
            nothing is masked then counts all.
        scale: the loss is divided by it.
        schedule: how long and how fast.
    """

    layout: MaeLayout = field(default_factory=MaeLayout)
    ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    masked_only: bool = False
    scale: float = 1.0
    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            epochs=40, batch=128, rate=2e-3, optimizer=AdamW(), warmup=3
        )
    )

    def __post_init__(self) -> None:
        """Refuse ratios that leave nothing to see.

        Raises:
            ConfigurationError: no ratios, or one out of range.
        """
        if not self.ratios or not all(0 <= ratio < 1 for ratio in self.ratios):
            raise ConfigurationError(f"expected mask ratios from 0 to below 1, got {self.ratios}")


def published(*, epochs: int = 500, warmup: int = 50) -> MaeRecipe:
    """Return the recipe of the released code; its learning rate is 0.01, whatever it is told."""
    return MaeRecipe(
        layout=PUBLISHED,
        ratios=(0.75,),
        scale=_PUBLISHED_SCALE,
        schedule=Schedule(epochs=epochs, batch=128, rate=0.01, optimizer=AdamW(), warmup=warmup),
    )


def train_mae(
    images: Images,
    *,
    recipe: MaeRecipe,
    rng: np.random.Generator,
    progress: Progress,
    after_epoch: AfterEpoch | None = None,
) -> MaskedAutoencoder:
    """Train a masked autoencoder from scratch.

    Args:
        images: (n, c, h, w) float32 in [0, 1], honest.
        recipe: how.
        rng: weights, order of the pictures, ratios and masks.
        progress: told after each epoch.
        after_epoch: called after each epoch.

    Raises:
        ConfigurationError: too few pictures, patches that do not cover them, or a loss that is no
            longer finite.
    """
    _, c, h, w = images.shape
    network: MaskedAutoencoder = recipe.layout.build((c, h, w), rng).to(device())
    rows, order = torch.from_numpy(images).to(device()), generator(rng)

    def loss(index: Tensor) -> Tensor:
        ratio = recipe.ratios[int(rng.integers(len(recipe.ratios)))]
        return _loss(network, rows[index.to(rows.device)], ratio, recipe, order)

    def tell(step: Step) -> None:
        progress(step)
        if after_epoch is not None:
            after_epoch(step.done, network)
            network.train()

    fit(
        [network],
        len(images),
        loss,
        schedule=recipe.schedule,
        rng=rng,
        progress=tell,
        phase=PHASE,
    )
    return network


def _loss(
    network: MaskedAutoencoder,
    images: Tensor,
    ratio: float,
    recipe: MaeRecipe,
    order: torch.Generator,
) -> Tensor:
    """Return the mean squared error over pixels in [-1, 1]."""
    visible = recipe.layout.visible(network.shape, ratio)
    patches = network.patchify(images)
    kept = random_places(len(images), network.count, visible, order).to(images.device)
    with autocast(images.device):
        whole = visible == network.count
        made = network.restore_all(patches)[0] if whole else network.restore(patches, kept)
    squared = torch.square(made.float() - patches)
    if recipe.masked_only and not whole:
        masked = torch.ones_like(squared[:, :, 0]).scatter(1, kept, 0.0)
        return (squared.mean(2) * masked).sum() / masked.sum() / recipe.scale
    return squared.mean() / recipe.scale


def restored(
    network: MaskedAutoencoder,
    images: Images,
    *,
    ratio: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Images:
    """Restore n pictures.

    Args:
        network: trained.
        images: (n, c, h, w) float32 in [0, 1].
        ratio: of what is masked.
        rng: draws the masks; may be None if nothing is masked.

    Returns:
        (n, c, h, w) float32, not clipped.
    """
    network.eval()
    where, order = network.cls_token.device, generator(rng) if rng is not None else None
    visible, made = network.layout.visible(network.shape, ratio), []
    with torch.no_grad():
        for part in torch.from_numpy(images).split(_TOGETHER):
            rows = part.to(where)
            if order is None or visible == network.count:
                made.append(network(rows)[0].cpu())
                continue
            kept = random_places(len(part), network.count, visible, order).to(where)
            made.append(network.unpatchify(network.restore(network.patchify(rows), kept)).cpu())
    found: Images = torch.cat(made).numpy()
    return found
