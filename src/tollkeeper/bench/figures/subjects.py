"""Accounts of many subjects, cut from the tasks that come with labels, before fresh guards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tollkeeper.bench.experiment import Context
from tollkeeper.bench.figures.thieves import by_region
from tollkeeper.bench.figures.traffic import Stage, load_stage
from tollkeeper.guard import profiles
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Embeddings

PARTS = {
    "banking77": 4,
    "ag_news": 4,
    "sst2": 2,
    "gtsrb": 4,
    "fashion_mnist": 4,
    "cifar10": 4,
}
"""Task to the number of subjects that its classes are dealt out to, classes of neighboring
numbers together: four groups of bank intents or traffic signs, each topic of the news."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What one narrow account asks about.

    Attributes:
        name: task and number.
        embeddings: (n, d) clean.
        narrow: whether its task is; a topic of the news is narrower than the news, but not narrow.
    """

    name: str
    embeddings: Embeddings
    narrow: bool


def subjects(stage: Stage, *, rng: np.random.Generator) -> tuple[Subject, ...]:
    """Return every subject of an encoder's labeled tasks, each in random order."""
    return tuple(_cut(stage, rng))


def _cut(stage: Stage, rng: np.random.Generator) -> Iterator[Subject]:
    for traffic in stage.honest:
        if traffic.labels is None:
            continue
        classes = np.unique(traffic.labels)
        for number, some in enumerate(np.array_split(classes, PARTS[traffic.name]), start=1):
            rows = traffic.embeddings[np.isin(traffic.labels, some)]
            name, narrow = f"{traffic.name}{number}", traffic.kind == "narrow"
            yield Subject(name, rng.permutation(rows), narrow)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One encoder's traffic before one deployment.

    Attributes:
        stage: the encoder with its traffic.
        guard: `recommended`, with a secret of its own.
        rng: of this scene.
    """

    stage: Stage
    guard: Guard
    rng: np.random.Generator

    def orders(self) -> Iterator[Embeddings]:
        """Yield the thief's pool in the orders it may ask in: at random, and region by region."""
        pool = self.rng.permutation(self.stage.pool.embeddings)
        yield pool
        yield pool[by_region(pool, seed=int(self.rng.integers(2**31)))]


def scenes(
    encoders: Sequence[str], secrets: int, limit: int, context: Context, data: dict[str, str]
) -> Iterator[Scene]:
    """Yield every encoder before every secret, and report progress.

    Args:
        encoders: names of `encoders.MODALITY`.
        secrets: deployments of each.
        limit: inputs of a task or pool at most.
        context: of the experiment.
        data: gets the checksums of the data sets.

    Raises:
        ConfigurationError: an unknown encoder.
        DataError: a data set is missing or damaged.
    """
    steps = len(encoders) * (1 + secrets)
    for number, name in enumerate(encoders):
        done = number * (1 + secrets)
        context.progress(done, steps, f"embedding for {name}")
        stage = load_stage(name, limit=limit, rng=context.rng(0, number), data=data)
        for secret in range(secrets):
            context.progress(done + 1 + secret, steps, f"{name}, secret {secret + 1}")
            rng = context.rng(1, number, secret)
            guard = Guard(profiles.RECOMMENDED, stage.calibration, secret=rng.bytes(32))
            yield Scene(stage, guard, rng)
