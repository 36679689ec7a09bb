"""The classifiers under audit: the victim, its copies, and those that never met it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tollkeeper.attacks import names
from tollkeeper.attacks.classifier.copies import Conv3Copy, Copying
from tollkeeper.attacks.classifier.jbda import Augmenting
from tollkeeper.attacks.classifier.presets import for_two_cores
from tollkeeper.audit.classifiers.margins import Side
from tollkeeper.bench.ownership.classifier_scene import Recipe, Stage, part, trained
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.types import Images


@dataclass(frozen=True, slots=True)
class Making:
    """What suspects are made with.

    Attributes:
        recipe: of the victim, and of whoever trains on labels.
        copying: epochs of thieves.
        budget: queries of thieves; half as many and a quarter as many too.
        jbda: queries of JBDA.
    """

    recipe: Recipe
    copying: int
    budget: int
    jbda: int


Maker = Callable[[Stage, Making, np.random.Generator], TorchClassifier]


def _victim(stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
    del making, rng
    return stage.victim


def _other_seed(stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
    """Steal the data: the same recipe from other weights."""
    return trained(stage.private, making.recipe, rng=rng)


def _other_width(stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
    """Steal the data and train half as wide a network."""
    recipe = replace(making.recipe, width=max(1, making.recipe.width // 2))
    return trained(stage.private, recipe, rng=rng)


def _half(stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
    """Train on every second private picture and as many fresh ones."""
    size = len(stage.private) // 2
    own, new = stage.private, part(_drawn(stage, rng), size)
    images = np.concatenate([own.images[::2], new.images])
    side = Side(images, np.concatenate([own.labels[::2], new.labels]))
    return trained(side, making.recipe, rng=rng)


def _fine_tuned(stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
    """Steal the weights and train on a little with pictures that the victim named."""
    images = stage.pool[: making.budget]
    side = Side(images, stage.victim.embed(images).argmax(axis=1))
    recipe = replace(making.recipe, epochs=max(1, making.recipe.epochs // 16))
    return trained(side, recipe, rng=rng, after=stage.victim)


def _independent(stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
    return trained(_drawn(stage, rng), making.recipe, rng=rng)


def _on_public(stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
    """Train on the held-out side, as the paper's independent classifier is."""
    return trained(stage.public, making.recipe, rng=rng)


def _untrained(stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
    return trained(stage.private, replace(making.recipe, epochs=0), rng=rng)


def _drawn(stage: Stage, rng: np.random.Generator) -> Side:
    """Return as many fresh pictures as a side has."""
    at = rng.permutation(len(stage.fresh))[: len(stage.private)]
    return Side(stage.fresh.images[at], stage.fresh.labels[at])


@dataclass(frozen=True, slots=True)
class _Knockoff:
    """Asks pictures at random.

    Attributes:
        share: of the budget, asked of the other source; 0 asks all private pictures.
        labels_only: whether answers are read as labels.
    """

    share: float
    labels_only: bool = False

    def __call__(self, stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
        pool = stage.pool if self.share else stage.private.images
        budget = min(int(making.budget * self.share), len(pool)) or len(pool)
        attack = replace(_attack("knockoff", making), labels_only=self.labels_only)
        return _stolen(attack, stage, pool, budget, rng)


@dataclass(frozen=True, slots=True)
class _Jbda:
    """Asks steps away from a few fresh pictures.

    Attributes:
        labels_only: whether answers are read as labels.
    """

    labels_only: bool = False

    def __call__(self, stage: Stage, making: Making, rng: np.random.Generator) -> TorchClassifier:
        attack = _attack("jbda", making)
        assert isinstance(attack, Augmenting)
        seeds = min(attack.seeds, making.jbda // 4)
        attack = replace(attack, labels_only=self.labels_only, seeds=seeds)
        return _stolen(attack, stage, _drawn(stage, rng).images, making.jbda, rng)


def _attack(name: str, making: Making) -> Copying:
    """Return an attack of the toolkit with the victim's network and two cores' schedule."""
    network = Conv3Copy(making.recipe.width)
    found = names.load(name)
    assert isinstance(found, Copying)
    return for_two_cores(found, epochs=making.copying, network=network)


def _stolen(
    attack: Copying, stage: Stage, pool: Images, budget: int, rng: np.random.Generator
) -> TorchClassifier:
    found = attack(stage.victim, pool, budget=budget, rng=rng, clock=time.perf_counter).surrogate
    assert isinstance(found, TorchClassifier)
    return found


THIEVES: Mapping[str, Maker] = {
    "victim": _victim,
    "distilled": _Knockoff(0),
    "other_seed": _other_seed,
    "other_width": _other_width,
    "half_data": _half,
    "fine_tuned": _fine_tuned,
    "knockoff.full": _Knockoff(1),
    "knockoff.half": _Knockoff(0.5),
    "knockoff.quarter": _Knockoff(0.25),
    "knockoff.labels": _Knockoff(1, labels_only=True),
    "jbda": _Jbda(),
    "jbda.labels": _Jbda(labels_only=True),
}
"""Whoever has the victim's data, weights or answers."""

HONEST: Mapping[str, Maker] = {"on_public": _on_public, "untrained": _untrained}
"""Special cases of those that never met it."""


def maker(name: str) -> Maker:
    """Return what makes a suspect; other names are independents."""
    return {**THIEVES, **HONEST}.get(name, _independent)
