"""What all theft experiments share: a victim, a pool, tasks, and one job per surrogate.

The victim's clean answers to pool and tasks are computed once and mapped by all workers; an
attack still asks for each of them through its meter. Augmented queries reach the encoder itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from tollkeeper.attacks.base import Attack, Theft
from tollkeeper.bench.experiment import Context
from tollkeeper.bench.theft.payload import Payload, shared
from tollkeeper.bench.theft.pools import Pool, load_pool
from tollkeeper.bench.theft.scoring import Reference, Scores, score, task_reference
from tollkeeper.bench.theft.tasks import load_task
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.cached import CachedEncoder, MemoryStore
from tollkeeper.encoders.load import load_encoder
from tollkeeper.types import Embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Victim, pool and tasks; settings of experiments hold these fields.

    Attributes:
        victim: SPEC of the encoder.
        pool: name of the attacker's inputs.
        pool_size: how many of them.
        tasks: downstream tasks.
        train: inputs that a probe is trained on.
        test: inputs that it is tested on.
    """

    victim: str = "builtin:image"
    pool: str = "tiny_imagenet"
    pool_size: int = 10_000
    tasks: tuple[str, ...] = ("cifar10", "cifar100", "gtsrb", "fashion_mnist")
    train: int = 3000
    test: int = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A scene with everything loaded.

    Attributes:
        spec: of the victim.
        pool: the attacker's inputs.
        answers: (n, d) the victim's clean embeddings of the pool.
        references: the victim's clean embeddings of the tasks.
        victim: the victim's own scores.
    """

    spec: str
    pool: Pool
    answers: Embeddings
    references: tuple[Reference, ...]
    victim: Scores

    def encoder(self) -> CachedEncoder:
        """Return the open victim, which remembers its answers to the pool."""
        encoder = CachedEncoder(load_encoder(self.spec), MemoryStore())
        encoder.remember(self.pool.inputs, self.answers)
        return encoder


@contextmanager
def staged(
    scene: Scene, context: Context, data: dict[str, str]
) -> Iterator[tuple[Stage, Payload[Stage]]]:
    """Load a scene, embed everything, and lay it out for worker processes.

    Args:
        scene: what to load.
        context: randomness and progress.
        data: gets the checksums of the data sets.

    Raises:
        ConfigurationError: unknown pool or task.
        DataError: a data set is missing or damaged.
    """
    with threadpool_limits(limits=1):  # spinning threads starve each other on a busy machine
        stage = _load(scene, context, data)
    with shared(stage) as payload:
        yield stage, payload


def _load(scene: Scene, context: Context, data: dict[str, str]) -> Stage:
    context.progress(0, 1, "embedding pool and tasks")
    pool = load_pool(scene.pool, size=scene.pool_size, rng=context.rng(90), data=data)
    tasks = [
        load_task(name, train=scene.train, test=scene.test, rng=context.rng(91, number), data=data)
        for number, name in enumerate(scene.tasks)
    ]
    encoder = CachedEncoder(load_encoder(scene.victim), MemoryStore())
    references = tuple(task_reference(encoder, task) for task in tasks)
    return Stage(
        spec=scene.victim,
        pool=pool,
        answers=encoder.embed(pool.inputs),
        references=references,
        victim=score(encoder, references),
    )


@cache
def opened(payload: Payload[Stage]) -> tuple[Stage, CachedEncoder]:
    """Return the stage and the open victim; once per worker process."""
    stage = payload.load()
    return stage, stage.encoder()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One surrogate, scored.

    Attributes:
        scores: by name, as `Scores.named`.
        queries: distinct inputs that were answered, over all accounts.
        repeats: inputs that were answered again.
        calls: calls that were answered.
        seconds: from the first query to the finished surrogate.
        asking_s: seconds of those that the victim took.
        partial: why the attack was answered less than it wanted.
        facts: what an experiment adds, by name.
    """

    scores: Mapping[str, float]
    queries: int = 0
    repeats: int = 0
    calls: int = 0
    seconds: float = 0.0
    asking_s: float = 0.0
    partial: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)


def steal(
    attack: Attack,
    victim: Encoder,
    stage: Stage,
    *,
    budget: int,
    rng: np.random.Generator,
    facts: Mapping[str, float] | None = None,
) -> Outcome:
    """Run an attack on a victim, open or guarded, and score the surrogate."""
    theft = attack(victim, stage.pool.inputs, budget=budget, rng=rng, clock=perf_counter)
    return outcome(theft, stage, facts)


def outcome(theft: Theft, stage: Stage, facts: Mapping[str, float] | None = None) -> Outcome:
    """Score the surrogate of a theft."""
    return Outcome(
        score(theft.surrogate, stage.references).named(),
        theft.queries_spent,
        theft.repeats,
        theft.calls,
        theft.seconds,
        theft.asking_s,
        theft.partial,
        facts or {},
    )
