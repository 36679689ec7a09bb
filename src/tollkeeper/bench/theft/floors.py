"""What a copy must beat: a network nobody trained, and one that never asked the victim."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.augment import SIMCLR, Augmentation
from tollkeeper.attacks.surrogate import NetworkFactory, Surrogate
from tollkeeper.attacks.views import floats
from tollkeeper.encoders.base import Encoder
from tollkeeper.lab.fit import Schedule, fit, run_network
from tollkeeper.lab.progress import Progress, silent
from tollkeeper.lab.torching import device, generator, seeded_init
from tollkeeper.types import Batch

PROJECTION = 128


def untrained(network: NetworkFactory, dim: int, *, rng: np.random.Generator) -> Encoder:
    """Return the surrogate's network with the weights that it starts with."""
    return Surrogate(network.build(dim, rng), dim=dim, name="untrained")


def self_trained(
    images: Batch,
    network: NetworkFactory,
    dim: int,
    *,
    schedule: Schedule,
    rng: np.random.Generator,
    temperature: float = 0.2,
    augment: Augmentation = SIMCLR,
    progress: Progress = silent,
) -> Encoder:
    """Train the surrogate's network by itself on the attacker's images: what theft saves.

    SimCLR (Chen et al. 2020) with a two-layer projector that is thrown away.

    Args:
        images: (n, h, w, 3) uint8, the pool that an attacker would ask about.
        network: architecture.
        dim: embedding width.
        schedule: as for the attack, so that both see as many images.
        rng: all randomness.
        temperature: of NT-Xent.
        augment: makes the two views.
        progress: told after each epoch.
    """
    building, drawing, ordering = rng.spawn(3)
    body = network.build(dim, building)
    with seeded_init(building):
        head = nn.Sequential(
            nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, PROJECTION)
        ).to(device())
    pixels = body.prepare(images).to(device())
    draws = generator(drawing)

    def loss(index: Tensor) -> Tensor:
        some = floats(pixels[index])
        both = torch.cat([augment(some, draws), augment(some, draws)])
        return _nt_xent(head(run_network(body, both)), temperature)

    fit(
        [body, head],
        len(images),
        loss,
        schedule=schedule,
        rng=ordering,
        progress=progress,
        phase="self-training",
    )
    return Surrogate(body, dim=dim, name="self-trained")


def _nt_xent(projected: Tensor, temperature: float) -> Tensor:
    """Return the NT-Xent loss of (2 n, p) projections: first views, then second ones."""
    z = F.normalize(projected, dim=1)
    scores = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return F.cross_entropy(scores, partners)
