"""Fitting all that guards one classifier, from honest inputs and its answers to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.bundle import Bundle, Victim, probe_for
from tollkeeper.detectors.floors import ColorDetail, MaxSoftmax, PixelShare
from tollkeeper.detectors.fused import Fused
from tollkeeper.detectors.history import History
from tollkeeper.detectors.lab.mae import MaeLayout
from tollkeeper.detectors.lab.mae_fit import MaeRecipe, train_mae
from tollkeeper.detectors.lab.same import MakeNetwork, SameRecipe, fit_same, same_x
from tollkeeper.detectors.same import Same
from tollkeeper.detectors.signals import FEWEST_PIXELS
from tollkeeper.errors import ConfigurationError
from tollkeeper.graphs import Graph
from tollkeeper.lab.conv3 import conv3
from tollkeeper.lab.fit import AdamW, Schedule
from tollkeeper.lab.halving import halved
from tollkeeper.lab.progress import Progress, Step
from tollkeeper.types import Images, Probabilities

FEWEST = 2000
"""Honest inputs needed: the smallest part holds a tenth."""

SHARES = (0.4, 0.15, 0.1, 0.35)
"""Of honest inputs: for networks, for statistics, for tail probabilities, and for honest scores.
The last is largest as what can be said of one account depends on it."""

_FINE, _COARSE = 4, 7
_ASKED_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class BundleRecipe:
    """How the networks are trained.

    Attributes:
        same: SAME with its auxiliary model, a rival.
        fused: the autoencoder of the fused score, with larger patches: it takes a third of the
            time of SAME's, and the fused score loses nothing by it.
        make_network: the auxiliary model's architecture; None means a small convolutional one.
    """

    same: SameRecipe = field(default_factory=SameRecipe)
    fused: MaeRecipe = field(default_factory=MaeRecipe)
    make_network: MakeNetwork | None = None


def recipe_for(shape: tuple[int, int, int], *, epochs: int = 40, labels: bool) -> BundleRecipe:
    """Return the recipe for pictures of a shape.

    Args:
        shape: (c, h, w).
        epochs: of the autoencoders.
        labels: whether the auxiliary model learns true labels, or the victim's answers.
    """
    schedule = Schedule(
        epochs=epochs, batch=128, rate=2e-3, optimizer=AdamW(), warmup=min(3, epochs // 4)
    )
    fine, coarse = (
        MaeRecipe(layout=MaeLayout(patch=_patch(shape, near)), schedule=schedule)
        for near in (_FINE, _COARSE)
    )
    return BundleRecipe(SameRecipe(mae=fine, aim="labels" if labels else "answers"), coarse)


def fit_bundle(
    victim: Victim,
    images: Images,
    labels: NDArray[np.int64] | None = None,
    *,
    recipe: BundleRecipe,
    graphs: Mapping[str, bytes] | None = None,
    rng: np.random.Generator,
    progress: Progress,
) -> Bundle:
    """Fit detectors for a classifier.

    Args:
        victim: the classifier; it is asked each input once.
        images: (n, c, h, w) float32 in [0, 1], honest inputs that it was not trained on.
        labels: (n,) true classes, where the recipe's auxiliary model learns them.
        recipe: how networks are trained; see `recipe_for`.
        graphs: further networks to keep in the bundle.
        rng: all that is random.
        progress: told of the victim's answers and of each epoch.

    Raises:
        ConfigurationError: too few inputs, or training fails.
        EncoderError: the victim failed.
    """
    if len(images) < FEWEST:
        raise ConfigurationError(
            f"expected at least {FEWEST:,} honest inputs, got {len(images):,}; record more"
        )
    _, c, h, w = images.shape
    shape = (c, h, w)
    traffic = _Traffic(images, labels, asked(victim, images, progress))
    networks, statistics, tails, held = (traffic.part(at) for at in _parts(len(images), rng))
    same = _fit_same(networks, recipe, rng, progress)
    fused = _fit_fused(networks, statistics, tails, recipe=recipe.fused, rng=rng, progress=progress)
    made: list[Detector] = [
        fused,
        same,
        same.weighted(1),
        MaxSoftmax(shape, victim.dim),
        PixelShare.fitted(statistics.images, classes=victim.dim),
    ]
    if c > 1 and min(h, w) >= FEWEST_PIXELS:
        made.append(ColorDetail(shape, victim.dim))
    honest = {one.name: np.sort(one.score(held.images, held.answers)) for one in made}
    probe = probe_for(shape)
    return Bundle(
        victim=victim.name,
        input_shape=shape,
        classes=victim.dim,
        detectors={one.name: one for one in made},
        recommended=fused.name,
        honest=honest,
        account=History(fused, honest[fused.name]),
        graphs={name: halved(graph) for name, graph in (graphs or {}).items()},
        probe=probe,
        probe_answers=victim.embed(probe),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Traffic:
    """Honest inputs (n, c, h, w), their classes (n,) where known, and the victim's answers (n, k)."""

    images: Images
    labels: NDArray[np.int64] | None
    answers: Probabilities

    def part(self, at: NDArray[np.intp]) -> _Traffic:
        labels = None if self.labels is None else self.labels[at]
        return _Traffic(self.images[at], labels, self.answers[at])


def _fit_same(
    traffic: _Traffic, recipe: BundleRecipe, rng: np.random.Generator, progress: Progress
) -> Same:
    _, c, h, w = traffic.images.shape
    classes = traffic.answers.shape[1]
    found = fit_same(
        traffic.images,
        traffic.labels,
        traffic.answers,
        classes=classes,
        make_network=recipe.make_network or _small((c, h, w), classes),
        recipe=recipe.same,
        rng=rng,
        progress=_named(progress, "SAME"),
    )
    return _halved(found)


def _fit_fused(
    networks: _Traffic,
    statistics: _Traffic,
    tails: _Traffic,
    *,
    recipe: MaeRecipe,
    rng: np.random.Generator,
    progress: Progress,
) -> Fused:
    coarse = train_mae(networks.images, recipe=recipe, rng=rng, progress=_named(progress, "fused"))
    return Fused.fitted(
        _halved(same_x(coarse, classes=networks.answers.shape[1])),
        statistics.images,
        statistics.answers,
        calibration_images=tails.images,
        calibration_answers=tails.answers,
    )


def asked(victim: Victim, images: Images, progress: Progress) -> Probabilities:
    """Return the victim's (n, k) answers."""
    found = []
    for start in range(0, len(images), _ASKED_TOGETHER):
        found.append(victim.embed(images[start : start + _ASKED_TOGETHER]))
        progress(Step("asking", min(start + _ASKED_TOGETHER, len(images)), len(images)))
    return np.concatenate(found)


def _parts(count: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Return the places of each part, at random: files are often ordered."""
    ends = np.cumsum([int(count * share) for share in SHARES])[:-1]
    return np.split(rng.permutation(count), ends)


def _halved(same: Same) -> Same:
    graphs = [
        None if graph is None else Graph(halved(graph.to_bytes()), name=graph.name)
        for graph in (same.reconstruction, same.auxiliary)
    ]
    assert graphs[0] is not None
    return Same(graphs[0], graphs[1], classes=same.classes, alpha=same.alpha)


def _small(shape: tuple[int, int, int], classes: int) -> MakeNetwork:
    return lambda rng: conv3(shape, classes, rng, width=16)


def _named(progress: Progress, who: str) -> Callable[[Step], None]:
    return lambda step: progress(replace(step, phase=f"{who}: {step.phase}"))


def _patch(shape: tuple[int, int, int], near: int) -> int:
    """Return the divisor of both sides that is nearest to `near`."""
    whole = math.gcd(shape[1], shape[2])
    divisors = [size for size in range(2, whole + 1) if whole % size == 0]
    if not divisors:
        raise ConfigurationError(
            f"expected pictures whose sides share a divisor, to be cut into squares, got "
            f"{shape[1]} x {shape[2]}; resize them, and the classifier's input"
        )
    return min(divisors, key=lambda size: abs(math.log(size / near)))
