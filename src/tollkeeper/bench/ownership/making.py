"""Encoders of an ownership experiment, made and asked in worker processes."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from tollkeeper.attacks.surrogate import Surrogate
from tollkeeper.bench.experiment import Progress
from tollkeeper.bench.ownership.measuring import Asked, Told, tell
from tollkeeper.bench.ownership.networks import Small
from tollkeeper.bench.ownership.obfuscations import OUTPUTS, obfuscated, pruned
from tollkeeper.bench.ownership.scene import Scene
from tollkeeper.bench.ownership.simclr import Recipe, train_simclr
from tollkeeper.bench.ownership.suspects import Suspect, Training, make
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload, shared
from tollkeeper.encoders.base import Encoder


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """What workers train and ask with.

    Attributes:
        scene: the images.
        asked: what every encoder is asked.
        training: how long.
        root: seed.
        victims: by claim; empty while they are trained.
    """

    scene: Scene
    asked: Asked
    training: Training
    root: int
    victims: tuple[Surrogate, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One encoder to be made and asked.

    Attributes:
        suspect: which.
        payload: the stage.
        hides: whether it also answers through every obfuscation.
        keeps: whether the encoder itself is sent back.
    """

    suspect: Suspect
    payload: Payload[Stage]
    hides: bool = False
    keeps: bool = False

    @property
    def name(self) -> str:
        """For progress."""
        return self.suspect.name


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a job gave.

    Attributes:
        suspect: which.
        told: its answers.
        hidden: its answers through obfuscations, by name.
        encoder: itself, where it is needed further on.
    """

    suspect: Suspect
    told: Told
    hidden: dict[str, Told] = field(default_factory=dict)
    encoder: Encoder | None = None


def make_all(
    stage: Stage,
    owners: Sequence[Suspect],
    roster: Sequence[Suspect],
    *,
    hiding: Container[Suspect],
    workers: int,
    progress: Progress,
) -> list[Made]:
    """Return everybody, the victims first.

    Args:
        stage: the images, without victims.
        owners: the victims by claim.
        roster: all others.
        hiding: who also answers through every obfuscation.
        workers: processes.
        progress: told after each encoder.
    """
    total = len(owners) + len(roster)
    with shared(stage) as payload:
        jobs = [Job(one, payload, hides=one in hiding, keeps=True) for one in owners]
        found = run_jobs(made, jobs, workers=workers, progress=_part(progress, 0, total))
    victims = tuple(one.encoder for one in found if isinstance(one.encoder, Surrogate))
    with shared(replace(stage, victims=victims)) as payload:
        jobs = [Job(one, payload, hides=one in hiding) for one in roster]
        late = run_jobs(made, jobs, workers=workers, progress=_part(progress, len(owners), total))
    return [*found, *late]


def _part(progress: Progress, done: int, total: int) -> Progress:
    return lambda step, _, name: progress(done + step, total, name)


@cache
def _opened(payload: Payload[Stage]) -> Stage:
    """Return the stage; once per worker process."""
    return payload.load()


def made(job: Job) -> Made:
    """Make an encoder and ask it; a job of a worker process."""
    stage, suspect = _opened(job.payload), job.suspect
    rng = np.random.default_rng([stage.root, suspect.claim + 1, *suspect.name.encode()])
    encoder = make(suspect, stage.scene, stage.victims, stage.training, rng=rng)
    hidden = _hidden(encoder, stage, rng) if job.hides else {}
    return Made(suspect, tell(encoder, stage.asked), hidden, encoder if job.keeps else None)


def _hidden(encoder: Encoder, stage: Stage, rng: np.random.Generator) -> dict[str, Told]:
    """Return what an encoder answers through each obfuscation."""
    ways: dict[str, Encoder] = {
        name: obfuscated(name, encoder, stage.asked.public, rng=rng.spawn(1)[0]) for name in OUTPUTS
    }
    if isinstance(encoder, Surrogate):
        ways["prune"] = pruned(encoder)
        # A tenth of a training, on images of the thief's own.
        training = stage.training
        recipe = Recipe(Small(width=training.width), epochs=max(1, training.epochs // 10))
        own = stage.scene.pool.images[-stage.scene.sizes.block :]
        ways["finetune"] = train_simclr(own, recipe, rng=rng.spawn(1)[0], start=encoder)
    return {name: tell(one, stage.asked) for name, one in ways.items()}
