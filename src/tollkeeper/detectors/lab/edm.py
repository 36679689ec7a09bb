"""Training of diverse ensembles."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.detectors.edm import Edm
from tollkeeper.detectors.lab.outlier_exposure import DIGITS, MakeNetwork
from tollkeeper.detectors.lab.rows import tensor
from tollkeeper.lab.exporting import export_graph
from tollkeeper.lab.fit import Schedule, fit, run_network
from tollkeeper.lab.progress import Progress, silent
from tollkeeper.lab.torching import device, generator
from tollkeeper.types import Images


def coherence_loss(logits: list[Tensor]) -> Tensor:
    """Return the mean of log sum over pairs of exp cos of the members' probabilities.

    Args:
        logits: one (n, k) per member, of the same n outliers.
    """
    answers = [one.softmax(1) for one in logits]
    cosines = [functional.cosine_similarity(a, b) for a, b in combinations(answers, 2)]
    return torch.logsumexp(torch.stack(cosines), 0).mean()


def train_edm(
    images: Images,
    labels: NDArray[np.int64],
    outliers: Images,
    *,
    make_network: MakeNetwork,
    rng: np.random.Generator,
    members: int = 5,
    weight: float = 1.0,
    schedule: Schedule = DIGITS,
    progress: Progress = silent,
) -> list[nn.Module]:
    """Train members that are right about images and disagree about outliers.

    The loss is the sum of the members' cross-entropies plus `weight` times the mean over outliers
    of `log sum_{i<j} exp cos(p_i, p_j)`; outliers are drawn as in `train_outlier_exposure`.

    Args:
        images: (n, c, h, w) float32 in [0, 1].
        labels: (n,) classes from 0.
        outliers: (m, c, h, w).
        make_network: called once for each member.
        rng: initial weights and orders.
        members: N; the paper's 5, or 3 at three fifths of the cost.
        weight: of the diversity.
        schedule: how long and how fast; less than the victim's own costs accuracy.
        progress: told after each epoch.

    Returns:
        The members on the training device, in evaluation mode.

    Source: Kariyappa et al., ICLR 2021; loss and weight are recalled, not seen in the paper.
    """
    where = device()
    networks = [make_network(rng).to(where) for _ in range(members)]
    pictures, strange = tensor(images, where), tensor(outliers, where)
    classes, draws = tensor(labels, where), generator(rng)

    def loss(index: Tensor) -> Tensor:
        other = torch.randint(len(strange), (len(index),), generator=draws)
        both = torch.cat([pictures[index], strange[other]])
        logits = [run_network(network, both) for network in networks]
        right = [functional.cross_entropy(one[: len(index)], classes[index]) for one in logits]
        return torch.stack(right).sum() + weight * coherence_loss(
            [one[len(index) :] for one in logits]
        )

    fit(networks, len(images), loss, schedule=schedule, rng=rng, progress=progress, phase="edm")
    return networks


def train_hash(
    images: Images,
    labels: NDArray[np.int64],
    *,
    make_network: MakeNetwork,
    rng: np.random.Generator,
    schedule: Schedule = DIGITS,
    progress: Progress = silent,
) -> nn.Module:
    """Train the network that chooses members: a classifier of another set of pictures."""
    where = device()
    network = make_network(rng).to(where)
    pictures, classes = tensor(images, where), tensor(labels, where)

    def loss(index: Tensor) -> Tensor:
        return functional.cross_entropy(run_network(network, pictures[index]), classes[index])

    fit([network], len(images), loss, schedule=schedule, rng=rng, progress=progress, phase="hash")
    return network


def fit_edm(
    images: Images,
    labels: NDArray[np.int64],
    outliers: Images,
    outlier_labels: NDArray[np.int64] | None,
    *,
    classes: int,
    make_network: MakeNetwork,
    rng: np.random.Generator,
    members: int = 5,
    weight: float = 1.0,
    make_hash: MakeNetwork | None = None,
    schedule: Schedule = DIGITS,
    progress: Progress = silent,
) -> Edm:
    """Train an ensemble, and the hash network that serves it, and return the detector.

    Args: as of `train_edm`, and
        outlier_labels: (m,) classes of the outliers, on which the hash network is trained; None
            for an ensemble that only scores.
        classes: k.
        make_hash: where the outliers have more classes than k; otherwise `make_network`.
    """
    networks = train_edm(
        images,
        labels,
        outliers,
        make_network=make_network,
        rng=rng,
        members=members,
        weight=weight,
        schedule=schedule,
        progress=progress,
    )
    shape, hashing = tuple(images.shape[1:]), None
    if outlier_labels is not None:
        hashing = export_graph(
            train_hash(
                outliers,
                outlier_labels,
                make_network=make_hash or make_network,
                rng=rng,
                schedule=schedule,
                progress=progress,
            ),
            shape,
        )
    graphs = [export_graph(network, shape) for network in networks]
    return Edm(graphs, classes=classes, hashing=hashing)
