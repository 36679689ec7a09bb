"""Planting the rotation mark: by fine-tuning a clean encoder, or by alternation as published.

Source: Dziedzic et al., "On the Difficulty of Defending Self-Supervised Learning against Model
Extraction", ICML 2022, and its released code (ssl-attacks-defenses).

Notes:
    - `plant_rotation` is ours: it keeps embeddings near the clean encoder's, of upright images and
      of turned ones. The first keeps what users and alignment need. The second keeps the mark
      small and therefore peculiar to its heads: a large shift moves the answer of any head, and
      decoys become almost as good as the planted ones.
    - `alternate` is as published: one epoch of self-supervised training, one of the mark, in turn.
    - Heads are frozen in both, see `tollkeeper.audit.watermarks.rotation`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.audit.lab.planting import Prepare, Still, TorchLayers
from tollkeeper.audit.views import Pictures
from tollkeeper.audit.watermarks.layers import Layers
from tollkeeper.audit.watermarks.turning import rotated
from tollkeeper.lab.fit import Schedule, fit
from tollkeeper.lab.progress import Progress, silent

Loss = Callable[[Tensor], Tensor]
"""Positions of a batch, (b,) int64, to a scalar."""

FINE = Schedule(epochs=25, batch=128, rate=1e-3)
"""For a small encoder; of a large one take the last rate that it was trained with."""


@dataclass(frozen=True, slots=True)
class Turned:
    """Images, and copies of them turned at random.

    Attributes:
        images: (n, ...).
        prepare: makes rows for the network.
        rng: draws the angles.
    """

    images: Pictures
    prepare: Prepare
    rng: np.random.Generator

    def copies(self, index: Tensor) -> Tensor:
        """Return 2b rows: of the images turned by less than 180 degrees, then by more."""
        some = self.images[index.numpy()]
        degrees = self.rng.uniform(0, 180, (2, len(some))) + np.array([[0.0], [180.0]])
        return torch.cat([self.prepare(rotated(some, angles)) for angles in degrees])


def plant_rotation(
    network: nn.Module,
    images: Pictures,
    heads: Sequence[Layers],
    *,
    prepare: Prepare,
    rng: np.random.Generator,
    keep: float = 1.0,
    keep_turned: float = 0.3,
    schedule: Schedule = FINE,
    progress: Progress = silent,
) -> nn.Module:
    """Return a copy of a clean encoder that carries the mark.

    Args:
        network: clean; it is left as it is, but for its mode.
        images: (n, ...) private ones; those that it was trained on will do.
        heads: of the committed key.
        prepare: makes rows for the network.
        rng: order and angles.
        keep: weight of the squared distance to the clean embeddings, in units of their variance.
        keep_turned: the same for turned images.
        schedule: how long and how fast.
        progress: told after each epoch.
    """
    clean, marked = network.eval(), copy.deepcopy(network)
    where = next(network.parameters()).device
    secrets = [TorchLayers(head).to(where) for head in heads]
    upright, turned = prepare(images), Turned(images, prepare, rng.spawn(1)[0])
    with torch.no_grad():
        scale = clean(upright.to(where)).var(dim=0).mean()

    def loss(index: Tensor) -> Tensor:
        rows = torch.cat([upright[index], turned.copies(index)]).to(where)
        with torch.no_grad():
            before = clean(rows)
        now, b = marked(rows), len(index)
        drift = (now - before).square().mean(dim=1) / scale
        kept = keep * drift[:b].mean() + keep_turned * drift[b:].mean()
        return mark_loss(now[b:], secrets) + kept

    fit(
        [Still(marked)],
        len(images),
        loss,
        schedule=schedule,
        rng=rng,
        progress=progress,
        phase="mark",
    )
    return marked


def alternate(
    network: nn.Module,
    images: Pictures,
    heads: Sequence[Layers],
    *,
    training: Loss,
    beside: Sequence[nn.Module] = (),
    prepare: Prepare,
    rng: np.random.Generator,
    schedule: Schedule,
    progress: Progress = silent,
) -> None:
    """Train an encoder from where it is, with an epoch of the mark after each of its own.

    Args:
        network: trained in place; the published encoder begins with random weights.
        images: (n, ...) that both kinds of epochs go over.
        heads: of the committed key.
        training: self-supervised loss of the network, of the positions of a batch.
        beside: modules that are trained along, for example a projector.
        prepare: makes rows for the network.
        rng: order and angles.
        schedule: of both kinds of epochs together.
        progress: told after each epoch.
    """
    where = next(network.parameters()).device
    secrets = [TorchLayers(head).to(where) for head in heads]
    turned, steps = Turned(images, prepare, rng.spawn(1)[0]), 0
    per_epoch = max(1, len(images) // schedule.batch)

    def loss(index: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        if (steps - 1) // per_epoch % 2:
            return mark_loss(network(turned.copies(index).to(where)), secrets)
        return training(index)

    modules = [network, *beside]
    fit(modules, len(images), loss, schedule=schedule, rng=rng, progress=progress, phase="mark")


def mark_loss(rows: Tensor, heads: Sequence[nn.Module]) -> Tensor:
    """Return the mean cross-entropy of heads on 2b embeddings, of less turned images first."""
    truth = torch.arange(2, device=rows.device).repeat_interleave(len(rows) // 2)
    losses = [functional.cross_entropy(head(rows), truth) for head in heads]
    return torch.stack(losses).mean()
