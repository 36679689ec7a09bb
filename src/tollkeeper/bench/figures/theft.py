"""What free answers are worth: copies made without a guard, and behind it in every way known.

A thief without a guard asks a pool at several budgets: the theft curve. Behind a guard it
asks as much as the largest budget that has a comparison, in one of these ways:

- `greedy`: through one account, whatever the answers are by then, until it is refused;
- `stop`: through one account that is left at its first changed answer;
- `merged`: through one account that is asked every input merged with the same filler, so that
  all of them lie in one place;
- `overlap`, `rotation`, `trunk`: through as many accounts as the answers need, each left at its
  first changed answer, joined by shared inputs, by the shape of the answers, or by one network
  with a head for each account;
- `shards`: as `trunk`, but each account asks one region of the space, as the victim's own clean
  embeddings divide it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from tollkeeper.attacks import names, presets
from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.merged import Merge
from tollkeeper.attacks.networks.convnet import ConvNet
from tollkeeper.attacks.selection.random import FixedOrder
from tollkeeper.attacks.sybil.canary import StopAtNoise
from tollkeeper.attacks.sybil.mappers import ProcrustesMapper
from tollkeeper.bench.experiment import Context
from tollkeeper.bench.figures import thieves, traffic
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.theft.floors import untrained
from tollkeeper.bench.theft.guarded import GuardedVictim
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.bench.theft.scoring import score
from tollkeeper.bench.theft.stage import Scene, Stage, opened, outcome, staged
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.calibrations import calibration_for
from tollkeeper.guard import profiles
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Batch

_SYBILS = {
    "overlap": "sybil-overlap",
    "rotation": "sybil-rotation",
    "trunk": "sybil-trunk",
    "shards": "sybil-trunk",
}
"""Ways with several accounts to the attack that joins them."""

WAYS = ("greedy", "stop", "merged", *_SYBILS)
"""Ways to steal behind a guard."""

_MOST_ACCOUNTS = 25
_ANCHORS = 100

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


@dataclass(frozen=True, slots=True)
class Plan:
    """What is stolen and how.

    Attributes:
        budgets: queries of the theft curve.
        guarded: queries of every thief behind a guard; one of the budgets.
        profiles: guard profiles.
        ways: of `WAYS`.
        pool: inputs that the thief can choose from.
        train: inputs that probes are trained on.
        test: inputs that they are tested on.
        epochs: of the copy's training.
        seeds: thefts of each kind.
        workers: processes.
    """

    budgets: tuple[int, ...] = (1000, 2000, 4000, 8000)
    guarded: int = 4000
    profiles: tuple[str, ...] = ("b4b-2023", "recommended")
    ways: tuple[str, ...] = WAYS
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
        if self.guarded not in self.budgets or max(self.budgets) > self.pool:
            raise ConfigurationError(
                f"expected budgets of at most {self.pool:,} inputs with {self.guarded:,} among "
                f"them, got {', '.join(map(str, self.budgets))}"
            )


@dataclass(frozen=True, slots=True)
class Job:
    """One copy.

    Attributes:
        stage: the scene.
        plan: of the experiment.
        encoder: `text` or `image`.
        profile: guard profile.
        way: of `WAYS`, or `open`.
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

    def rng(self, *path: int) -> np.random.Generator:
        """Return the generator of one part; thefts of one seed share what they can."""
        return np.random.default_rng([77, self.seed, *path])


def work(job: Job) -> dict[str, float]:
    """Make one copy and say what it is worth; what worker processes call."""
    stage, encoder = opened(job.stage)
    bare: Any = presets.for_two_cores(names.load(_BASE[job.encoder]), **_small(job))
    floor = untrained(bare.network, stage.answers.shape[1], rng=job.rng(0))
    worst = score(floor, stage.references).accuracy
    if job.way == "open":
        theft = bare(
            encoder, stage.pool.inputs, budget=job.budget, rng=job.rng(3), clock=perf_counter
        )
        count = 1
    else:
        inputs, count = _arranged(job, stage)
        with GuardedVictim(
            encoder,
            profiles.get(job.profile),
            _calibration(stage),
            secret=_secret(job),
            clock=perf_counter,
            rng=job.rng(2),
        ) as victim:
            accounts = [victim.account(f"thief{number}") for number in range(count)]
            theft = _attack(job, bare)(
                Accounts(accounts) if count > 1 else accounts[0],
                inputs,
                budget=min(job.budget, len(inputs)),
                rng=job.rng(3),
                clock=perf_counter,
            )
    found = outcome(theft, stage)
    gained, whole = (
        math.fsum(scores[f"accuracy.{task}"] - worst[task] for task in worst)
        for scores in (found.scores, stage.victim.named())
    )
    return {"fidelity": gained / whole, "queries": float(found.queries), "accounts": float(count)}


_BASE = {"text": "text-distillation", "image": "direct-infonce"}


def _small(job: Job) -> dict[str, Any]:
    """Return what makes an attack small enough for a processor."""
    text = job.encoder == "text"
    network = None if text else ConvNet(width=16, side=24)
    return {"text": text, "epochs": job.plan.epochs, "network": network}


def _attack(job: Job, bare: Any) -> Attack:
    """Return the thief's attack."""
    if job.way == "greedy":
        attack: Attack = bare
    elif job.way == "merged":
        attack = Merge(inner=bare, filler=traffic.filler(_narrow(job)))
    elif job.way == "stop":
        attack = StopAtNoise(inner=replace(bare, selection=FixedOrder()))
    else:
        joined: Any = presets.for_two_cores(names.load(_SYBILS[job.way]), **_small(job))
        if job.way in {"trunk", "shards"}:
            joined = replace(joined, selection=FixedOrder())
        elif job.encoder == "text":
            joined = replace(joined, inner=bare)
        if job.way == "overlap":
            # The transforms are rotations, which take fewer pairs than affine maps.
            joined = replace(joined, mapper=ProcrustesMapper(), anchors=_ANCHORS)
        attack = StopAtNoise(inner=joined)
    return attack


def _narrow(job: Job) -> Batch:
    """Return inputs of the narrow task that the filler is taken from."""
    task = next(iter(traffic.TASKS[job.encoder]))
    references = opened(job.stage)[0].references
    return next(one.inputs for one in references if one.name == task)


def _arranged(job: Job, stage: Stage) -> tuple[Batch, int]:
    """Return the inputs in the order in which they are asked, and how many accounts it takes."""
    order = job.rng(4).permutation(len(stage.pool.inputs))
    if job.way in {"greedy", "stop", "merged"}:
        return _taken(stage.pool.inputs, order), 1
    order = order[: job.budget]
    if job.way == "shards":
        order = order[thieves.by_region(stage.answers[order], seed=job.seed)]
    guard = Guard(profiles.get(job.profile), _calibration(stage), secret=_secret(job))
    needed = thieves.accounts_needed(guard, stage.answers[order])
    # One more for what the last ones leave, and at least two to be sybils.
    count = int(min(_MOST_ACCOUNTS, max(2, needed + 1)))
    return _taken(stage.pool.inputs, order), count


def _taken(inputs: Batch, order: np.ndarray[Any, Any]) -> Batch:
    return inputs[order] if isinstance(inputs, np.ndarray) else [inputs[at] for at in order]


def _calibration(stage: Stage) -> Any:
    return calibration_for(stage.spec, stage.answers.shape[1], given=None, required=True)


def _secret(job: Job) -> bytes:
    return job.rng(1).bytes(32)


def jobs(stage: Payload[Stage], encoder: str, plan: Plan) -> Iterator[Job]:
    """Yield every theft of an encoder."""
    for seed in range(plan.seeds):
        for budget in plan.budgets:
            yield Job(stage, plan, encoder, "none", "open", budget, seed)
        for profile in plan.profiles:
            for way in plan.ways:
                # Fresh noise changes every answer, so there is no first change to stop at.
                if way == "greedy" or profile != "b4b-2023":
                    yield Job(stage, plan, encoder, profile, way, plan.guarded, seed)


def measure(
    plan: Plan, context: Context, samples: Samples, data: dict[str, str]
) -> Mapping[str, Any]:
    """Make every copy and add what they are worth.

    Returns:
        Diagnostics: queries and accounts of each theft.

    Raises:
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    facts: dict[str, Any] = {}
    for encoder, scene in SCENES.items():
        sized = replace(scene, pool_size=plan.pool, train=plan.train, test=plan.test)
        with staged(sized, context, data) as (_, payload):
            asked = list(jobs(payload, encoder, plan))
            found = run_jobs(work, asked, workers=plan.workers, progress=context.progress)
        opens = {
            (job.seed, job.budget): one["fidelity"]
            for job, one in zip(asked, found, strict=True)
            if job.way == "open"
        }
        for job, one in zip(asked, found, strict=True):
            name = f"{encoder}.{job.profile}.{job.way}"
            if job.way == "open":
                samples.add(f"theft.{name}.n{job.budget}", one["fidelity"], "lower", "fidelity")
                continue
            samples.add(f"theft.{name}", one["fidelity"], "lower", "fidelity")
            share = one["fidelity"] / opens[job.seed, job.budget]
            samples.add(f"theft_share.{name}", share, "lower", "ratio")
            facts.setdefault(name, []).append({key: one[key] for key in ("queries", "accounts")})
    return facts
