"""Narrow accounts of many subjects, cut from the tasks that come with labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tollkeeper.bench.figures.traffic import Stage
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
    """

    name: str
    embeddings: Embeddings


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
            yield Subject(f"{traffic.name}{number}", rng.permutation(rows))
