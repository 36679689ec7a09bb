"""Thieves who know which response stands before the victim, but not its key and its networks.

Each asks pictures of its pool at random, as Knockoff does, and makes of the answers what it can
before it trains its copy. All spend the same number of distinct queries.
Source: the semi-adaptive thieves of Tang et al., ModelGuard, USENIX Security 2024; the inverse map
is after Chen et al., "D-DAE: Defense-Penetrating Model Extraction Attacks", IEEE S&P 2023.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.classifier.copies import (
    Copying,
    probabilities,
    soft_cross_entropy,
)
from tollkeeper.encoders.base import Encoder
from tollkeeper.lab.fit import Adam, Schedule, fit
from tollkeeper.lab.progress import silent
from tollkeeper.lab.torching import device, seeded_init
from tollkeeper.responses.base import Perturbation
from tollkeeper.types import Images, Probabilities

_LEVEL = np.float32(1 / 255)
_SMALLEST = 1e-4
_INVERTING = Schedule(epochs=20, batch=64, rate=3e-3, optimizer=Adam())
_TEMPERATURES = (1.0, 2.0, 4.0)
_HIDDEN = 128


@dataclass(frozen=True, slots=True, eq=False)
class Loot:
    """What a copy is trained on.

    Attributes:
        images: (n, c, h, w).
        answers: (n, k) probabilities.
    """

    images: Images
    answers: Probabilities


@dataclass(frozen=True, slots=True, eq=False)
class Trainer:
    """Trains copies; the same loot gives the same copy, and is trained on once.

    Attributes:
        attack: whose network and schedule copies have.
        pictures: for which the schedule's epochs are meant; fewer are shown as often in all, so
            that whoever asks fewer pictures or throws some away trains no less.
        seed: of all copies, so that they differ by their loot alone.
    """

    attack: Copying
    pictures: int
    seed: int
    _made: dict[bytes, nn.Module] = field(default_factory=dict)

    def __call__(self, loot: Loot) -> nn.Module:
        """Return the copy, in evaluation mode."""
        mark = hashlib.blake2b(loot.images.tobytes() + loot.answers.tobytes()).digest()
        if mark not in self._made:
            epochs = math.ceil(self.attack.schedule.epochs * self.pictures / len(loot.images))
            self._made[mark] = self.attack.trained(
                loot.images,
                loot.answers,
                rng=np.random.default_rng(self.seed),
                schedule=replace(self.attack.schedule, epochs=epochs),
            ).eval()
        return self._made[mark]


@dataclass(frozen=True, slots=True, eq=False)
class Thief:
    """What a thief has.

    Attributes:
        pool: (n, c, h, w) pictures to ask.
        budget: distinct pictures that may be asked.
        trainer: of its copies.
        guesses: the response as the thief builds it for itself; several where it has networks,
            so that what the thief learns is not about one of them.
    """

    pool: Images
    budget: int
    trainer: Trainer
    guesses: tuple[Perturbation, ...]


class Countermeasure(Protocol):
    """Asks, and makes the best of the answers."""

    def __call__(self, victim: Encoder, thief: Thief, *, rng: np.random.Generator) -> Loot:
        """Return what to train on, for at most `thief.budget` distinct pictures asked."""
        ...


def _asked(victim: Encoder, thief: Thief, rng: np.random.Generator) -> Loot:
    images = thief.pool[rng.permutation(len(thief.pool))[: thief.budget]]
    return Loot(images, victim.embed(images))


def _labels(answers: Probabilities) -> Probabilities:
    rows = np.zeros_like(answers)
    rows[np.arange(len(rows)), answers.argmax(axis=1)] = 1
    return rows


@dataclass(frozen=True, slots=True)
class Believe:
    """Takes answers as they are."""

    def __call__(self, victim: Encoder, thief: Thief, *, rng: np.random.Generator) -> Loot:
        """Ask once each."""
        return _asked(victim, thief, rng)


@dataclass(frozen=True, slots=True)
class LabelsOnly:
    """Takes the top class of each answer, which many responses leave as it is."""

    def __call__(self, victim: Encoder, thief: Thief, *, rng: np.random.Generator) -> Loot:
        """Ask once each and forget the probabilities."""
        loot = _asked(victim, thief, rng)
        return Loot(loot.images, _labels(loot.answers))


@dataclass(frozen=True, slots=True)
class Average:
    """Asks fewer pictures, each several times with pixels moved by a level, and takes the mean.

    The victim hardly notices the change, but noise that an input decides is drawn anew.

    Attributes:
        times: queries of each picture.
    """

    times: int = 4

    def __call__(self, victim: Encoder, thief: Thief, *, rng: np.random.Generator) -> Loot:
        """Ask `budget / times` pictures."""
        count = thief.budget // self.times
        images = thief.pool[rng.permutation(len(thief.pool))[:count]]
        total = np.zeros((count, victim.dim))
        for _ in range(self.times):
            moved = images + _LEVEL * rng.integers(-1, 2, images.shape).astype(np.float32)
            total += victim.embed(np.clip(moved, 0, 1))
        return Loot(images, (total / self.times).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Discard:
    """Keeps sure answers only: a network that was trained to be wrong is seldom sure.

    Attributes:
        least: top probability of what is kept.
        share: of the answers that are kept at least, the surest first.
    """

    least: float = 0.9
    share: float = 0.1

    def __call__(self, victim: Encoder, thief: Thief, *, rng: np.random.Generator) -> Loot:
        """Ask once each and throw away the unsure."""
        loot = _asked(victim, thief, rng)
        top = loot.answers.max(axis=1)
        kept = top >= min(self.least, float(np.quantile(top, 1 - self.share)))
        return Loot(loot.images[kept], loot.answers[kept])


@dataclass(frozen=True, slots=True)
class Invert:
    """Learns to undo the response from a model of its own, behind a response of its own.

    The model is a copy trained on labels alone. What it says of the whole pool, with and without
    the response, teaches a small network the way back, which the bought answers then take. Labels
    make a model surer than the victim may be, so it is heard at three temperatures.
    Notes: D-DAE's shadow models are trained on other data; this one costs no more queries.
    """

    def __call__(self, victim: Encoder, thief: Thief, *, rng: np.random.Generator) -> Loot:
        """Ask once each and undo the answers."""
        loot = _asked(victim, thief, rng)
        shadow = thief.trainer(Loot(loot.images, _labels(loot.answers)))
        said = probabilities(shadow, thief.pool)
        true = np.concatenate([_softened(said, warmth) for warmth in _TEMPERATURES])
        shown = np.concatenate([thief.pool] * len(_TEMPERATURES))
        changed, key = np.empty_like(true), rng.bytes(32)
        for number, guess in enumerate(thief.guesses):
            part = slice(number, None, len(thief.guesses))
            changed[part] = guess(shown[part], true[part], key=key)
        inverse = _inverse(changed, true, rng=rng)
        with torch.no_grad():
            logits = inverse(_seen(loot.answers))
            undone: Probabilities = torch.softmax(logits, dim=1).cpu().numpy()
        return Loot(loot.images, undone)


def _softened(answers: Probabilities, temperature: float) -> Probabilities:
    raised = np.maximum(answers, np.float32(1e-12)) ** (1 / temperature)
    found: Probabilities = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def _seen(answers: Probabilities) -> Tensor:
    return torch.from_numpy(np.log(np.maximum(answers, _SMALLEST))).to(device())


def _inverse(changed: Probabilities, true: Probabilities, *, rng: np.random.Generator) -> nn.Module:
    """Return a network from changed answers to the logits of true ones."""
    classes = true.shape[1]
    with seeded_init(rng):
        network = nn.Sequential(
            nn.Linear(classes, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, classes),
        ).to(device())
    inputs, targets = _seen(changed), torch.from_numpy(true).to(device())

    def loss(index: Tensor) -> Tensor:
        return soft_cross_entropy(network(inputs[index]), targets[index]).mean()

    fit([network], len(true), loss, schedule=_INVERTING, rng=rng, progress=silent)
    return network


COUNTERMEASURES: Mapping[str, Countermeasure] = {
    "believed": Believe(),
    "labels": LabelsOnly(),
    "averaged": Average(),
    "inverted": Invert(),
    "discarded": Discard(),
}
"""By name; `believed` is none."""
