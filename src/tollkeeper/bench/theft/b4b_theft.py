"""Experiment `b4b-theft`: who gets what from a guarded encoder, the main table of B4B.

Rows are users: a legitimate one on each task, an attacker with one account, attackers with
several. Columns are downstream tasks. The guard is the live one: every account has its own
sketch, each input is charged before its answer leaves, and no attack knows that it is there.

A legitimate user asks for the training inputs of its task first and then for the test inputs,
each once, and is scored on those answers: what a search or a probe meets is an account that has
been charged for the training part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.bench.experiment import Context, Direction, Experiment, Measurement, Metric
from tollkeeper.bench.theft.b4b_users import NONE, Setting, profile, thief
from tollkeeper.bench.theft.curve import Point
from tollkeeper.bench.theft.floors import self_trained, untrained
from tollkeeper.bench.theft.guarded import GuardedVictim
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.bench.theft.scoring import score
from tollkeeper.bench.theft.stage import Outcome, Stage, opened, outcome, staged
from tollkeeper.bench.theft.tasks import Task
from tollkeeper.bench.theft.variants import not_above_floors
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.cached import CachedEncoder, MemoryStore
from tollkeeper.gateway.calibrations import calibration_for


@dataclass(frozen=True, slots=True)
class Job:
    """One surrogate, floor or round of legitimate users.

    Attributes:
        user: a key of `b4b_users.USERS` with a number of accounts for sybils, `legit`, or a floor.
        defense: a public profile or one of `b4b_users.EXTRA_DEFENSES`.
        seed: of everything.
        root: seed of the run.
        setting: of the experiment.
        stage: victim, pool and tasks.
    """

    user: str
    defense: str
    seed: int
    root: int
    setting: Setting
    stage: Payload[Stage]

    @property
    def name(self) -> str:
        """One line."""
        return f"{self.user}, {self.defense}, seed {self.seed}"

    def rng(self, *path: int) -> np.random.Generator:
        """Return the job's generator; the same seed is the same thief behind every defense."""
        return np.random.default_rng([self.root, self.seed, *path])


# -- one job -----------------------------------------------------------------------


def guarded(encoder: Encoder, job: Job) -> GuardedVictim:
    """Return the victim behind the job's defense, with no account yet."""
    spec = job.setting.victim
    return GuardedVictim(
        encoder,
        profile(job.defense),
        calibration_for(spec, encoder.dim, given=None, required=True),
        secret=job.rng(1).bytes(32),
        clock=perf_counter,
        rng=job.rng(2),
    )


def work(job: Job) -> Outcome:
    """Run one job; what worker processes call."""
    stage, encoder = opened(job.stage)
    if job.user == "legit":
        return _legitimate(job, stage, encoder)
    if job.user in _FLOORS:
        return Outcome(score(_FLOORS[job.user](job, stage), stage.references).named())
    attack, count = thief(job.user, job.setting)
    with guarded(encoder, job) as victim:
        accounts = [victim.account(f"thief{number}") for number in range(count)]
        theft = attack(
            Accounts(accounts) if count > 1 else accounts[0],
            stage.pool.inputs,
            budget=job.setting.budget,
            rng=job.rng(3),
            clock=perf_counter,
        )
        worst = max(range(count), key=lambda number: victim.coverage(f"thief{number}"))
        facts = {
            "coverage": victim.coverage(f"thief{worst}"),
            "noise_in_feature_std": victim.noise(f"thief{worst}"),
        }
    return outcome(theft, stage, facts)


def _legitimate(job: Job, stage: Stage, encoder: Encoder) -> Outcome:
    """Let one account per task ask for everything of its task, and score what it got."""
    scores: dict[str, float] = {}
    facts: dict[str, float] = {}
    with guarded(encoder, job) as victim:
        for reference in stage.references:
            assert reference.task is not None
            answers = answered(victim.account(reference.name), reference.task)
            found = score(answers, [reference])
            scores |= found.named() | {f"recall10.{reference.name}": found.recall10}
            facts[f"coverage.{reference.name}"] = victim.coverage(reference.name)
            facts[f"noise_in_feature_std.{reference.name}"] = victim.noise(reference.name)
    return Outcome(scores, facts=facts)


def answered(account: Encoder, task: Task) -> CachedEncoder:
    """Ask for the training inputs of a task, then for its test inputs; return the answers kept."""
    kept = CachedEncoder(account, MemoryStore(), identity=bytes(32))
    for inputs in (task.train_inputs, task.test_inputs):
        kept.embed(inputs)
    return kept


def _untrained(job: Job, stage: Stage) -> Encoder:
    return untrained(job.setting.network(), stage.answers.shape[1], rng=job.rng(4))


def _self_trained(job: Job, stage: Stage) -> Encoder:
    """Give the network the attacker's images and as many of its steps, but no answers."""
    chosen = job.rng(5).permutation(len(stage.pool.inputs))[: job.setting.budget]
    return self_trained(
        np.asarray(stage.pool.inputs)[chosen],
        job.setting.network(),
        stage.answers.shape[1],
        schedule=job.setting.schedule(),
        rng=job.rng(6),
    )


_FLOORS = {"floor.untrained": _untrained, "floor.ssl": _self_trained}


# -- the experiment ----------------------------------------------------------------


def measure(setting: Setting, context: Context) -> Measurement:
    """Run every cell, floor and legitimate user with every seed.

    Raises:
        ConfigurationError: an unknown user, defense or task.
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    cells = [
        *(("legit", defense) for defense in setting.defenses),
        *((floor, NONE) for floor in _FLOORS),
        *(tuple(cell.split("/", 1)) for cell in setting.cells),
    ]
    for user, defense in cells:
        profile(defense)
        if user != "legit" and user not in _FLOORS:
            thief(user, setting)
    data: dict[str, str] = {}
    with staged(setting, context, data) as (stage, payload):
        jobs = [
            Job(user, defense, seed, context.seed, setting, payload)
            for seed in range(setting.seeds)
            for user, defense in cells
        ]
        found = run_jobs(work, jobs, workers=setting.workers, progress=context.progress)
    outcomes: dict[str, list[Outcome]] = {}
    for job, one in zip(jobs, found, strict=True):
        outcomes.setdefault(_row(job), []).append(one)
    metrics = dict(_metrics(outcomes, setting, rng=context.rng(99)))
    diagnostics = {
        "victim": stage.victim.named(),
        "not_above_floors": not_above_floors(outcomes, setting.tasks, floors=tuple(_FLOORS)),
        "rows": {row: _summary(some) for row, some in outcomes.items()},
    }
    hardware = {"workers": setting.workers, "threads_per_worker": 1}
    return Measurement(metrics, diagnostics=diagnostics, hardware=hardware, data=data)


def _row(job: Job) -> str:
    return job.user if job.user in _FLOORS else f"{job.user}.{job.defense}"


def _metrics(
    outcomes: Mapping[str, list[Outcome]], setting: Setting, *, rng: np.random.Generator
) -> Iterator[tuple[str, Metric]]:
    """Yield accuracy by row and task, and recall@10 by row."""
    for row, some in outcomes.items():
        honest = row.startswith(("legit", "floor"))
        direction: Direction = "higher" if honest else "lower"
        for task in setting.tasks:
            values = tuple(one.scores[f"accuracy.{task}"] for one in some)
            point = Point(setting.budget, values)
            yield f"{row}.{task}", point.metric("accuracy", direction, rng=rng)
        names = [f"recall10.{task}" for task in setting.tasks] if row.startswith("legit") else []
        for name in names or ["recall10"]:
            point = Point(setting.budget, tuple(one.scores[name] for one in some))
            suffix = name.replace("recall10", f"recall10.{row}", 1)
            yield suffix, point.metric("share", direction, rng=rng)


def _summary(some: list[Outcome]) -> dict[str, object]:
    """Return what the runs of one row cost, and what the operator saw."""
    facts = {key: [one.facts[key] for one in some] for key in some[0].facts}
    return {
        "queries": some[0].queries,
        "repeats": some[0].repeats,
        "calls": some[0].calls,
        "seconds": [round(one.seconds, 1) for one in some],
        "partial": sorted({one.partial for one in some} - {""}),
        "scores": [dict(one.scores) for one in some],
        **facts,
    }


EXPERIMENT = Experiment(
    id="b4b-theft",
    title="legitimate users, attackers and sybils behind the live guard (B4B's main table)",
    scales={
        "smoke": Setting(
            pool_size=400,
            tasks=("cifar10",),
            train=300,
            test=200,
            cells=("attack/none", "attack/b4b-scaled", "sybil2/b4b-scaled", "sybil2_paper/none"),
            defenses=(NONE, "b4b-scaled"),
            budget=300,
            mapper_steps=50,
            seeds=1,
            epochs=3,
            width=8,
        ),
        "cpu": Setting(),
        "gpu": Setting(
            mapper_steps=40_000, seeds=5, epochs=60, width=64, side=32, train=10_000, workers=1
        ),
    },
    measure=measure,
    promises=(
        "legit.none.*",
        "legit.b4b-2023.*",
        "legit.recommended.*",
        "attack.none.*",
        "attack_standardized.none.*",
        "attack.b4b-2023.*",
        "attack.recommended.*",
        "sybil2.none.*",
        "sybil2.b4b-2023.*",
        "sybil10.none.*",
        "sybil10.b4b-scaled.*",
        "floor.untrained.*",
        "floor.ssl.*",
    ),
    covers=("b4b-2023", "recommended", "none"),
    attacks={
        "direct-infonce": "attack.none.*",
        "sybil-overlap": "sybil2.recommended.*",
        "sybil-matching": "sybil2_matching.b4b-2023-shuffled.*",
        "sybil-rotation": "sybil2_rotation.recommended.*",
        "sybil-trunk": "sybil10_trunk.b4b-scaled.*",
    },
)
