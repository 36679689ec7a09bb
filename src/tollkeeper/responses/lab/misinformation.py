"""Fitting the networks of adaptive misinformation.

Source: Kariyappa and Qureshi, CVPR 2020, sections 4.1 and 4.2; Hendrycks et al., "Deep Anomaly
Detection with Outlier Exposure", ICLR 2019, for the victim's training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.lab.exporting import export_graph
from tollkeeper.lab.fit import Adam, Schedule, fit
from tollkeeper.lab.progress import Progress, silent
from tollkeeper.lab.torching import generator
from tollkeeper.types import Images, Probabilities

SCHEDULE = Schedule(epochs=4, batch=128, rate=1e-3, optimizer=Adam())
"""Of the misinformer, which needs to be wrong and no more."""


def reverse_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log(1 - p_label), from (n, k) logits; finite at every p."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (logits.logsumexp(dim=1) - others.logsumexp(dim=1)).mean()


def fit_misinformer(
    network: nn.Module,
    images: Images,
    labels: NDArray[np.int64],
    *,
    outliers: Images | None = None,
    answers: Probabilities | None = None,
    schedule: Schedule = SCHEDULE,
    rng: np.random.Generator,
    progress: Progress = silent,
) -> bytes:
    """Train a network to be wrong and return it as a graph of logits.

    Args:
        network: untrained, from (n, c, h, w) in [0, 1] to (n, k) logits.
        images: (n, c, h, w), the victim's training images.
        labels: (n,) of these.
        outliers: (m, c, h, w) of anything else; wrong about the victim's labels there.
        answers: (m, k), the victim's of `outliers`.
        schedule: of the training.
        rng: order of the rows.
        progress: told after each epoch.

    Raises:
        ConfigurationError: fewer than two images, or the loss is not finite.
    """
    shown, wanted = images, labels
    if outliers is not None and answers is not None:
        shown = np.concatenate([images, outliers])
        wanted = np.concatenate([labels, answers.argmax(axis=1)])
    inputs, targets = _beside(network, shown, wanted)

    def loss(index: Tensor) -> Tensor:
        return reverse_cross_entropy(network(inputs[index]), targets[index])

    fit(
        [network],
        len(shown),
        loss,
        schedule=schedule,
        rng=rng,
        progress=progress,
        phase="misinforming",
    )
    return export_graph(network, images.shape[1:], outputs=("logits",))


def fit_exposed(
    network: nn.Module,
    images: Images,
    labels: NDArray[np.int64],
    outliers: Images,
    *,
    weight: float = 1.0,
    schedule: Schedule,
    rng: np.random.Generator,
    progress: Progress = silent,
) -> None:
    """Train a victim that is unsure of outliers, so that the gate of misinformation opens there.

    The loss is cross-entropy plus `weight` times the cross-entropy to uniform on as many outliers
    (Hendrycks et al., equation 2; weight 1 as in the code of adaptive misinformation).

    Args:
        network: untrained; trained in place.
        images: (n, c, h, w) in [0, 1].
        labels: (n,) of these.
        outliers: (m, c, h, w) in [0, 1], m of any size above 0.
        weight: of the outliers.
        schedule: of the training.
        rng: order of the rows.
        progress: told after each epoch.
    """
    inputs, targets, others = _beside(network, images, labels, outliers)
    draws = generator(rng)

    def loss(index: Tensor) -> Tensor:
        drawn = torch.randint(len(others), index.shape, generator=draws)
        logits = network(torch.cat([inputs[index], others[drawn]]))
        inside, outside = logits[: len(index)], logits[len(index) :]
        uniform = (outside.logsumexp(dim=1) - outside.mean(dim=1)).mean()
        return functional.cross_entropy(inside, targets[index]) + weight * uniform

    fit([network], len(images), loss, schedule=schedule, rng=rng, progress=progress)


def _beside(network: nn.Module, *arrays: NDArray[Any]) -> list[Tensor]:
    """Return arrays as tensors on a network's device."""
    where = next(network.parameters()).device
    return [torch.from_numpy(array).to(where) for array in arrays]
