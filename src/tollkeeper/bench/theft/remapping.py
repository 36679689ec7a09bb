"""Two accounts' views of one victim, and how well a mapper carries one into the other.

What `b4b-remap` measures again and again; the study is B4B's (`src/sybil_defense*.py` of its
released code).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.sybil.mappers import Mapper, ProcrustesMapper, RidgeMapper
from tollkeeper.attacks.sybil.network_mappers import ThreeLayerMapper, Training, TwoLayerMapper
from tollkeeper.bench.theft.noise_sweep import noisy
from tollkeeper.bench.theft.probes import linear_probe, unit
from tollkeeper.bench.theft.scoring import agreement
from tollkeeper.guard.orthogonal import Orthogonal
from tollkeeper.guard.transform import (
    AffinePadShuffle,
    Binary,
    DenseAffine,
    DiagonalAffine,
    PadShuffle,
    TransformFamily,
)
from tollkeeper.types import Embeddings

TRANSFORMS: Mapping[str, Callable[[int], TransformFamily]] = {
    "affine": lambda _: DiagonalAffine(),
    "pad_shuffle": PadShuffle,
    "affine_pad_shuffle": AffinePadShuffle,
    "binary": lambda _: Binary(),
    "dense_affine": lambda _: DenseAffine(),
    "orthogonal": lambda _: Orthogonal(),
}
"""Width d to family. As many pads as features: the code's 1,536 are those of its DINO victim."""

CLOSED: Mapping[str, tuple[Mapper, tuple[str, ...]]] = {
    "ridge": (RidgeMapper(), tuple(TRANSFORMS)),
    "procrustes": (ProcrustesMapper(), ("pad_shuffle", "orthogonal")),
}
"""Closed-form mappers, and the transforms they are for: Procrustes needs angles to be kept."""

TRAINED: Mapping[str, Callable[[int, int], Mapper]] = {
    "paper": lambda dim, steps: TwoLayerMapper(dim, Training(rate=1e-5, max_steps=steps)),
    "paper3": lambda dim, steps: ThreeLayerMapper(dim, Training(rate=1e-4, max_steps=steps)),
}
"""The paper's mappers: width of the middle layers and most steps to a mapper."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The victim's clean embeddings.

    Attributes:
        train: (n, d), in random order.
        train_labels: (n,).
        test: (m, d).
        test_labels: (m,).
        feature_std: of the encoder.
    """

    train: Embeddings
    train_labels: NDArray[np.int64]
    test: Embeddings
    test_labels: NDArray[np.int64]
    feature_std: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One mapper with so many pairs.

    Attributes:
        name: for metric names, for example `ridge.n100`.
        mapper: how the map is learned.
        count: pairs.
    """

    name: str
    mapper: Mapper
    count: int


@dataclass(frozen=True, slots=True)
class Remapped:
    """B's test answers after a map, or instead of one.

    Attributes:
        accuracy: of A's probe on them.
        distance: mean cosine distance to A's own answers.
    """

    accuracy: float
    distance: float


def remap(
    answers: Answers,
    transform: str,
    trials: Sequence[Trial],
    *,
    std: float,
    train: int,
    rng: np.random.Generator,
) -> dict[str, Remapped]:
    """Try mappers between two accounts that differ in their secret transform.

    Args:
        answers: clean embeddings; the first n of a random order of `train` are shared.
        transform: name of `TRANSFORMS`.
        trials: mappers; a count is at most the number of training embeddings.
        std: noise on both accounts' training answers, in feature standard deviations.
        train: training answers of A that the probe is fitted on.
        rng: secrets, order, noise and fits, in that order.

    Returns:
        Trial name to what B's mapped test answers are worth; `reference` are A's own,
        `unmapped` B's as they are.
    """
    dim = answers.test.shape[1]
    family = TRANSFORMS[transform](dim)
    one, other = (family.for_tenant(rng.bytes(32), dim) for _ in "AB")
    order = rng.permutation(len(answers.train))
    rows, labels = answers.train[order], answers.train_labels[order[:train]]
    noise = std * answers.feature_std
    seen, seen_other = (account(noisy(rows, noise, rng=rng)) for account in (one, other))
    own, foreign = one(answers.test), other(answers.test)
    views = {"reference": own, "unmapped": foreign}
    for trial in trials:
        source, target = seen_other[: trial.count], seen[: trial.count]
        views[trial.name] = trial.mapper.fit(source, target, rng=rng)(foreign)
    predicted = linear_probe(seen[:train], labels, np.concatenate(list(views.values())))
    return {
        name: Remapped(agreement(some, answers.test_labels), cosine_distance(view, own))
        for (name, view), some in zip(views.items(), predicted.reshape(len(views), -1), strict=True)
    }


def cosine_distance(rows: Embeddings, target: Embeddings) -> float:
    """Return the mean of one minus the cosine of corresponding rows of (m, d)."""
    return float(1 - np.einsum("ij,ij->i", unit(rows), unit(target)).mean())
