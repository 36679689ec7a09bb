"""What copies `guard-figures` makes, and one of them as a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tollkeeper.attacks import names, presets
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.networks.convnet import ConvNet
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.bench.theft.stage import Scene, Stage
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.calibrations import calibration_for
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Batch

SCENES: Mapping[str, Scene] = {
    "text": Scene(
        victim="builtin:text",
        pool="broad_text",
        tasks=("banking77", "ag_news", "sst2"),
        train=2000,
    ),
    "image": Scene(tasks=("cifar10", "gtsrb", "fashion_mnist"), train=2000),
}
"""Encoder to what is stolen, and what it is worth."""

_BASE = {"text": "text-distillation", "image": "direct-infonce"}
"""Encoder to the attack that is inside all ways."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is stolen and how.

    Attributes:
        budgets: queries of the theft curve.
        guarded: queries of the ways behind a guard that take many accounts; one of the budgets.
            Accounts that are asked to the end get the largest.
        profiles: guard profiles.
        attacked: queries of each attack of the toolkit, without a guard and behind one.
        pool: inputs that the thief can choose from.
        train: inputs that probes are trained on.
        test: inputs that they are tested on.
        epochs: of the copy's training.
        seeds: thefts of each kind; attacks of the toolkit are run once.
        workers: processes.
    """

    budgets: tuple[int, ...] = (1000, 2000, 4000, 8000)
    guarded: int = 4000
    profiles: tuple[str, ...] = ("b4b-2023", "recommended")
    attacked: int = 2000
    pool: int = 10_000
    train: int = 2000
    test: int = 2000
    epochs: int = 20
    seeds: int = 3
    workers: int = 2

    def check(self) -> None:
        """Refuse a plan that cannot be kept.

        Raises:
            ConfigurationError: thieves behind a guard without a copy to compare with, or budgets
                above the pool.
        """
        most = max(*self.budgets, self.attacked)
        if self.guarded not in self.budgets or most > self.pool:
            raise ConfigurationError(
                f"expected budgets of at most {self.pool:,} inputs with {self.guarded:,} among "
                f"them, got {', '.join(map(str, self.budgets))} and {self.attacked} of each attack"
            )


@dataclass(frozen=True, slots=True)
class Job:
    """One copy.

    Attributes:
        stage: the scene.
        plan: of the experiment.
        encoder: `text` or `image`.
        profile: guard profile.
        way: of `ways.WAYS`, or `open`, or an attack of the toolkit.
        budget: queries.
        seed: of everything random.
    """

    stage: Payload[Stage]
    plan: Plan
    encoder: str
    profile: str
    way: str
    budget: int
    seed: int

    @property
    def name(self) -> str:
        """For progress."""
        return f"{self.encoder}, {self.profile}, {self.way}, {self.budget:,}, seed {self.seed + 1}"

    @property
    def secret(self) -> bytes:
        """Of the deployment that the thief meets."""
        return self.rng(1).bytes(32)

    def rng(self, *path: int) -> np.random.Generator:
        """Return the generator of one part; thefts of one seed share what they can."""
        return np.random.default_rng([77, self.seed, *path])


@dataclass(frozen=True, slots=True)
class Thief:
    """Who makes a copy.

    Attributes:
        attack: what it does.
        inputs: what it can ask.
        accounts: how many it has.
    """

    attack: Attack
    inputs: Batch
    accounts: int = 1


def small(job: Job, name: str) -> Any:
    """Return an attack of the toolkit, small enough for a processor."""
    text = job.encoder == "text"
    network = None if text else ConvNet(width=16, side=24)
    return presets.for_two_cores(
        names.load(name), text=text, epochs=job.plan.epochs, network=network
    )


def bare(job: Job) -> Any:
    """Return the attack that is inside all ways."""
    return small(job, _BASE[job.encoder])


def calibration(stage: Stage) -> Calibration:
    """Return the calibration that the victim ships."""
    return calibration_for(stage.spec, stage.answers.shape[1], given=None, required=True)


def guard(profile: str, job: Job, stage: Stage) -> Guard:
    """Return the guard of the deployment that a thief meets."""
    return Guard(profiles.get(profile), calibration(stage), secret=job.secret)
