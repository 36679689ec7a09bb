"""Fitting of anchors and of the classifier of distances."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.detectors.fdinet import Anchors, FdiNet, feature_distances
from tollkeeper.detectors.lab.rows import tensor
from tollkeeper.detectors.networks import Network
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.exporting import export_graph
from tollkeeper.lab.fit import Schedule, fit
from tollkeeper.lab.progress import Progress, silent
from tollkeeper.lab.torching import device, generator, seeded_init
from tollkeeper.types import Images, Probabilities

JUDGE = Schedule(epochs=20, batch=64, rate=1e-3)
"""For a few thousand pictures; the paper takes Adam at 1e-4 for 20 epochs of 100,000."""


class Judge(nn.Module):
    """Distances to a logit: 256 and 32 hidden units, ReLUs between them or nothing.

    Distances are standardized place by place before.
    """

    def __init__(self, far: NDArray[np.float32], *, linear: bool) -> None:
        """Make an untrained classifier for (n, layers, a) distances like these."""
        super().__init__()
        between = nn.Identity if linear else nn.ReLU
        self.register_buffer("mean", torch.from_numpy(far.mean(axis=0)))
        self.register_buffer("scale", torch.from_numpy(far.std(axis=0) + np.float32(1e-6)))
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(far[0].size, 256),
            between(),
            nn.Linear(256, 32),
            between(),
            nn.Linear(32, 1),
        )

    def forward(self, far: Tensor) -> Tensor:
        """Return (n, 1) logits of being strange."""
        logits: Tensor = self.layers((far - self.mean) / self.scale)
        return logits


def choose_anchors(
    answers: Probabilities, *, count: int, sure: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return the positions of `count` pictures for each predicted class, (k, count).

    They are drawn from those of the class whose confidence is at least `sure`; where they are too
    few, those that the victim finds likeliest of the class fill up.
    """
    kinds, best = answers.argmax(axis=1), answers.max(axis=1)
    chosen = np.empty((answers.shape[1], count), np.intp)
    for kind in range(len(chosen)):
        certain = (kinds == kind) & (best >= sure)
        doubtful = np.flatnonzero(~certain)
        likeliest = doubtful[np.argsort(-answers[doubtful, kind], kind="stable")]
        ranked = np.concatenate([rng.permutation(np.flatnonzero(certain)), likeliest])
        chosen[kind] = np.resize(ranked, count)
    return chosen


def fit_fdinet(
    images: Images,
    answers: Probabilities,
    outliers: Images,
    outlier_answers: Probabilities,
    *,
    layers: nn.Module,
    rng: np.random.Generator,
    anchors: int = 100,
    sure: float = 0.98,
    linear: bool = False,
    schedule: Schedule = JUDGE,
    progress: Progress = silent,
) -> FdiNet:
    """Choose anchors, train the classifier of distances and return the detector.

    Args:
        images: (n, c, h, w) honest training pictures in [0, 1].
        answers: (n, k) of the victim to them.
        outliers: (m, c, h, w) strange pictures.
        outlier_answers: (m, k) of the victim to them.
        layers: network of pictures to a tuple of (n, d), as `Layers` of the victim.
        rng: anchors, initial weights and orders.
        anchors: for each class; half of the images at most, so that honest ones remain.
        sure: confidence of an anchor.
        linear: the released classifier, without a non-linearity.
        schedule: how long and how fast.
        progress: told after each epoch.

    Raises:
        ConfigurationError: too few pictures beside the anchors.
    """
    shape, count = tuple(images.shape[1:]), _layer_count(layers, images)
    graph = export_graph(layers, shape, outputs=tuple(f"layer-{at}" for at in range(count)))
    network = Network(graph, name="fdinet layers")
    rows = list(network.run(images).values())
    chosen = choose_anchors(answers, count=anchors, sure=sure, rng=rng)
    kept: list[Anchors] = [layer[chosen].astype(np.float16) for layer in rows]
    rest = np.setdiff1d(np.arange(len(images)), chosen)
    if len(rest) < 2:
        raise ConfigurationError(
            f"expected more pictures than the {chosen.size} anchors, got {len(images)}; "
            "take fewer anchors"
        )
    honest = [layer[rest] for layer in rows], answers[rest].argmax(axis=1)
    strange = list(network.run(outliers).values()), outlier_answers.argmax(axis=1)
    wide = [one.astype(np.float32) for one in kept]
    near, far = (feature_distances(x, wide, c) for x, c in (honest, strange))
    judge = _train(near, far, linear=linear, rng=rng, schedule=schedule, progress=progress)
    return FdiNet(graph, kept, export_graph(judge, near.shape[1:]))


def _layer_count(layers: nn.Module, images: Images) -> int:
    where = next(layers.parameters()).device
    with torch.no_grad():
        return len(layers(tensor(images[:1], where)))


def _train(
    near: NDArray[np.float32],
    far: NDArray[np.float32],
    *,
    linear: bool,
    rng: np.random.Generator,
    schedule: Schedule,
    progress: Progress,
) -> Judge:
    where, draws = device(), generator(rng)
    with seeded_init(rng):
        judge = Judge(np.concatenate([near, far]), linear=linear)
    judge.to(where)
    honest, strange = tensor(near, where), tensor(far, where)

    def loss(index: Tensor) -> Tensor:
        other = torch.randint(len(strange), (len(index),), generator=draws)
        logits = judge(torch.cat([honest[index], strange[other]]))[:, 0]
        truth = (torch.arange(len(logits), device=where) >= len(index)).float()
        return functional.binary_cross_entropy_with_logits(logits, truth)

    fit([judge], len(near), loss, schedule=schedule, rng=rng, progress=progress, phase="fdinet")
    return judge
