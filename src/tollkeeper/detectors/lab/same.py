"""Fitting SAME: a masked autoencoder, then a classifier of what it restores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.detectors.lab.mae import MaskedAutoencoder
from tollkeeper.detectors.lab.mae_fit import MaeRecipe, restored, train_mae
from tollkeeper.detectors.same import LATENT, LOGITS, PUBLISHED_ALPHA, RESTORED, Same
from tollkeeper.errors import ConfigurationError
from tollkeeper.graphs import Graph
from tollkeeper.lab.exporting import export_graph
from tollkeeper.lab.fit import Schedule, fit, run_network
from tollkeeper.lab.progress import Progress
from tollkeeper.lab.torching import device
from tollkeeper.types import Images, Probabilities

PHASE = "auxiliary"
"""Its name in progress."""

Aim = Literal["labels", "answers"]
"""What the auxiliary classifier learns: true labels (the code), or the victim's answers (eq. 5)."""

MakeNetwork = Callable[[np.random.Generator], nn.Module]
"""Makes an untrained network from (n, c, h, w) in [0, 1] to (n, k) logits."""

AfterEpoch = Callable[[int, Same], None]
"""Called after an epoch of the autoencoder with its number and SAME-X as it then is."""


@dataclass(frozen=True, slots=True)
class SameRecipe:
    """How to fit SAME.

    Source: Xie et al. (AAAI 2024). Equation 5 trains the auxiliary classifier on the victim's
    answers; the released code trains it on labels, over pictures restored from a quarter of their
    patches, for 80 epochs, and never asks the victim.
    Notes: it is trained on pictures restored as scoring restores them; `ratio` 0.75 is the code's
    way. What augments them is the network's own matter, see
    `outlier_exposure.MakeNetwork`; the code augments before it restores, here it comes after.

    Attributes:
        mae: how to train the autoencoder.
        aim: what the auxiliary classifier learns.
        ratio: how much is masked of the pictures that it learns from, anew in each epoch.
        schedule: how long and how fast it learns.
        alpha: weight of the first sign.
    """

    mae: MaeRecipe = field(default_factory=MaeRecipe)
    aim: Aim = "labels"
    ratio: float = 0.0
    schedule: Schedule = field(default_factory=lambda: Schedule(epochs=6, batch=128, rate=1e-3))
    alpha: float = PUBLISHED_ALPHA


def fit_same(
    images: Images,
    labels: NDArray[np.int64] | None,
    answers: Probabilities | None,
    *,
    classes: int,
    make_network: MakeNetwork,
    recipe: SameRecipe,
    rng: np.random.Generator,
    progress: Progress,
    snapshots: tuple[int, ...] = (),
    after_epoch: AfterEpoch | None = None,
) -> Same:
    """Fit SAME on honest pictures.

    Args:
        images: (n, c, h, w) float32 in [0, 1]: what the victim was trained on, or alike.
        labels: (n,) true classes; needed for the aim "labels".
        answers: (n, k) the victim's probabilities; needed for the aim "answers".
        classes: k.
        make_network: makes the auxiliary network, of the victim's architecture in the paper.
        recipe: how.
        rng: all that is random.
        progress: told after each epoch of both networks.
        snapshots: epochs of the autoencoder after which `after_epoch` is called.
        after_epoch: takes SAME-X of those epochs.

    Raises:
        ConfigurationError: the aim lacks its labels or answers, or training fails.
    """
    _check(labels, answers, recipe.aim, rows=len(images), classes=classes)

    def told(epoch: int, network: MaskedAutoencoder) -> None:
        if after_epoch is not None and epoch in snapshots:
            after_epoch(epoch, same_x(network, classes=classes))

    network = train_mae(images, recipe=recipe.mae, rng=rng, progress=progress, after_epoch=told)
    return fit_auxiliary(
        network,
        images,
        labels,
        answers,
        classes=classes,
        make_network=make_network,
        recipe=recipe,
        rng=rng,
        progress=progress,
    )


def same_x(network: MaskedAutoencoder, *, classes: int) -> Same:
    """Return SAME of an autoencoder alone."""
    return Same(_reconstruction(network), None, classes=classes, alpha=1)


def fit_auxiliary(
    network: MaskedAutoencoder,
    images: Images,
    labels: NDArray[np.int64] | None,
    answers: Probabilities | None,
    *,
    classes: int,
    make_network: MakeNetwork,
    recipe: SameRecipe,
    rng: np.random.Generator,
    progress: Progress,
) -> Same:
    """Train the auxiliary classifier for an autoencoder; arguments as for `fit_same`."""
    _check(labels, answers, recipe.aim, rows=len(images), classes=classes)
    auxiliary = make_network(rng).to(device())
    wanted = _wanted(labels, answers, recipe.aim)
    pictures = _Restored(network, images, recipe.ratio, rng)

    def loss(index: Tensor) -> Tensor:
        logits = run_network(auxiliary, pictures.take(index).to(device()))
        aims = wanted[index].to(device())
        if recipe.aim == "labels":
            return F.cross_entropy(logits, aims)
        # Equation 5: the squared distance, a sum over classes.
        return torch.square(logits.softmax(1) - aims).sum(1).mean()

    schedule = recipe.schedule
    fit([auxiliary], len(images), loss, schedule=schedule, rng=rng, progress=progress, phase=PHASE)
    graph = export_graph(auxiliary, network.shape, outputs=(LOGITS,))
    return Same(
        _reconstruction(network),
        Graph(graph, name="auxiliary"),
        classes=classes,
        alpha=recipe.alpha,
    )


class _Restored:
    """Restored pictures: made once if nothing is masked, else for each batch anew."""

    def __init__(
        self, network: MaskedAutoencoder, images: Images, ratio: float, rng: np.random.Generator
    ) -> None:
        self._network, self._images, self._ratio, self._rng = network, images, ratio, rng
        self._fixed = None if ratio else torch.from_numpy(restored(network, images))

    def take(self, index: Tensor) -> Tensor:
        """Return the restored pictures at these places."""
        if self._fixed is not None:
            return self._fixed[index]
        rows = self._images[index.numpy()]
        return torch.from_numpy(restored(self._network, rows, ratio=self._ratio, rng=self._rng))


def _reconstruction(network: MaskedAutoencoder) -> Graph:
    data = export_graph(network, network.shape, outputs=(RESTORED, LATENT))
    return Graph(data, name="reconstruction")


def _wanted(labels: NDArray[np.int64] | None, answers: Probabilities | None, aim: Aim) -> Tensor:
    if aim == "labels":
        return torch.from_numpy(np.asarray(labels, np.int64))
    return torch.from_numpy(np.asarray(answers, np.float32))


def _check(
    labels: NDArray[np.int64] | None,
    answers: Probabilities | None,
    aim: Aim,
    *,
    rows: int,
    classes: int,
) -> None:
    wanted, shape = (labels, (rows,)) if aim == "labels" else (answers, (rows, classes))
    if wanted is None or np.shape(wanted) != shape:
        found = "none" if wanted is None else f"shape {np.shape(wanted)}"
        raise ConfigurationError(
            f"an auxiliary model that learns {aim} needs {aim} of shape {shape}, got {found}"
        )
