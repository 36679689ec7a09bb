"""Training of networks with outliers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.detectors.lab.rows import tensor
from tollkeeper.detectors.outlier_exposure import OutlierExposure
from tollkeeper.lab.exporting import export_graph
from tollkeeper.lab.fit import Schedule, fit, run_network
from tollkeeper.lab.progress import Progress, silent
from tollkeeper.lab.torching import device, generator
from tollkeeper.types import Images

MakeNetwork = Callable[[np.random.Generator], nn.Module]
"""Makes a network of (n, c, h, w) in [0, 1] to (n, k) logits; it may be trained already.

What it does in training mode alone, such as shifting pictures, is learned from but not exported."""

DIGITS = Schedule(epochs=8, batch=128, rate=1e-3)
"""Enough for 28x28 digits."""


def uniform_loss(logits: Tensor) -> Tensor:
    """Return the mean of -mean z + logsumexp z: the cross-entropy to uniform."""
    return (torch.logsumexp(logits, 1) - logits.mean(1)).mean()


class Objective(Protocol):
    """A loss of logits of labeled pictures and of outliers."""

    statistic: ClassVar[str]

    def __call__(self, seen: Tensor, labels: Tensor, strange: Tensor) -> Tensor:
        """Return a scalar."""
        ...


@dataclass(frozen=True, slots=True)
class Joint:
    """CE + weight * cross-entropy of outliers to uniform, in one step.

    Source: Hendrycks et al., ICLR 2019, equation 2, weight 0.5; Adaptive Misinformation takes 1.
    """

    weight: float = 0.5
    statistic: ClassVar[str] = "max-softmax"

    def __call__(self, seen: Tensor, labels: Tensor, strange: Tensor) -> Tensor:
        """Return the weighted sum."""
        return functional.cross_entropy(seen, labels) + self.weight * uniform_loss(strange)


class Alternating:
    """CE in one step, cross-entropy of outliers to uniform in the next, without a weight.

    Source: the trainer in SAME's released code (Xie et al., AAAI 2024).
    Notes: each step draws its batch anew, so a schedule needs twice the epochs for the same
    number of labeled batches.
    """

    statistic: ClassVar[str] = "max-softmax"

    def __init__(self) -> None:
        """Begin with labels."""
        self._labeled = False

    def __call__(self, seen: Tensor, labels: Tensor, strange: Tensor) -> Tensor:
        """Return the loss whose turn it is."""
        self._labeled = not self._labeled
        return functional.cross_entropy(seen, labels) if self._labeled else uniform_loss(strange)


class Shadow:
    """CE with outliers as one more class.

    Source: the variant in SAME's released code (Xie et al., AAAI 2024).
    """

    statistic: ClassVar[str] = "shadow"

    def __call__(self, seen: Tensor, labels: Tensor, strange: Tensor) -> Tensor:
        """Return the mean of both cross-entropies."""
        last = torch.full((len(strange),), strange.shape[1] - 1, device=strange.device)
        return functional.cross_entropy(torch.cat([seen, strange]), torch.cat([labels, last]))


def train_outlier_exposure(
    images: Images,
    labels: NDArray[np.int64],
    outliers: Images,
    *,
    make_network: MakeNetwork,
    rng: np.random.Generator,
    objective: Objective | None = None,
    schedule: Schedule = DIGITS,
    progress: Progress = silent,
) -> nn.Module:
    """Train a classifier that is unsure of outliers.

    Args:
        images: (n, c, h, w) float32 in [0, 1].
        labels: (n,) classes from 0.
        outliers: (m, c, h, w); as many per step as images.
        make_network: with one more output than classes for `Shadow`.
        rng: initial weights, and the order of pictures and outliers.
        objective: `Joint()` if None.
        schedule: how long and how fast; less than the victim's own costs accuracy.
        progress: told after each epoch.

    Returns:
        The network on the training device, in evaluation mode.

    Notes: outliers are drawn at random with replacement in each step; the public code of
    Adaptive Misinformation goes through them in one order, so that short runs see one part only.
    Images and outliers pass through the network together, so batch normalization sees both.
    """
    objective = objective or Joint()
    network, where = make_network(rng).to(device()), device()
    pictures, strange = tensor(images, where), tensor(outliers, where)
    classes, draws = tensor(labels, where), generator(rng)

    def loss(index: Tensor) -> Tensor:
        other = torch.randint(len(strange), (len(index),), generator=draws)
        logits = run_network(network, torch.cat([pictures[index], strange[other]]))
        return objective(logits[: len(index)], classes[index], logits[len(index) :])

    fit([network], len(images), loss, schedule=schedule, rng=rng, progress=progress, phase="oe")
    return network


def fit_outlier_exposure(
    images: Images,
    labels: NDArray[np.int64],
    outliers: Images,
    *,
    classes: int,
    make_network: MakeNetwork,
    rng: np.random.Generator,
    objective: Objective | None = None,
    schedule: Schedule = DIGITS,
    progress: Progress = silent,
) -> OutlierExposure:
    """Train a network with outliers and return the detector that holds it.

    Args: as of `train_outlier_exposure`, and `classes`: k.
    """
    objective = objective or Joint()
    network = train_outlier_exposure(
        images,
        labels,
        outliers,
        make_network=make_network,
        rng=rng,
        objective=objective,
        schedule=schedule,
        progress=progress,
    )
    graph = export_graph(network, tuple(images.shape[1:]))
    return OutlierExposure(graph, classes=classes, statistic=objective.statistic)
