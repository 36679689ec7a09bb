"""Experiment `b4b-theft`: who gets what from a guarded encoder, the main table of B4B.

Rows are users: a legitimate one on each task, an attacker with one account, attackers with
several. Columns are downstream tasks. The guard is the live one: every account has its own
sketch, each input is charged before its answer leaves, and no attack knows that it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.direct import Direct
from tollkeeper.attacks.fit import Adam, Schedule
from tollkeeper.attacks.networks.convnet import ConvNet
from tollkeeper.attacks.objectives.infonce import InfoNCE
from tollkeeper.attacks.recovery.averages import AverageRepeats
from tollkeeper.attacks.recovery.standardized import Standardized
from tollkeeper.attacks.sybil.alignment import RotationMatcher
from tollkeeper.attacks.sybil.mapped import Mapped
from tollkeeper.attacks.sybil.mappers import RidgeMapper
from tollkeeper.attacks.sybil.matched import Matched
from tollkeeper.attacks.sybil.matching import CoordinateMatcher
from tollkeeper.attacks.sybil.network_mappers import ThreeLayerMapper
from tollkeeper.attacks.sybil.shared_trunk import SharedTrunk
from tollkeeper.bench.experiment import Context, Direction, Experiment, Measurement, Metric
from tollkeeper.bench.theft.curve import Point
from tollkeeper.bench.theft.floors import self_trained, untrained
from tollkeeper.bench.theft.guarded import GuardedVictim, scaled_b4b
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.bench.theft.scoring import score
from tollkeeper.bench.theft.stage import Outcome, Scene, Stage, opened, outcome, staged
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.calibrations import calibration_for
from tollkeeper.guard import profiles
from tollkeeper.guard.profiles import Profile
from tollkeeper.guard.transform import AffinePadShuffle

NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Scene):
    """What is run.

    Attributes:
        cells: user and defense, for example `sybil2/b4b-2023`; users are the keys of `USERS`,
            with a number of accounts for sybils.
        defenses: what legitimate users face.
        budget: queries of every attacker, over all its accounts.
        anchors: inputs that sybils ask through every account.
        seeds: of attacker, guard and secrets alike.
        epochs: passes over the answers.
        rate: learning rate.
        width: channels of the surrogate's first stage.
        side: pixels that the surrogate sees.
        workers: processes.
    """

    cells: tuple[str, ...] = (
        "attack/none",
        "attack/b4b-2023",
        "attack/b4b-scaled",
        "attack/recommended",
        "attack_averaging/b4b-scaled",
        "sybil2/b4b-2023",
        "sybil2/b4b-scaled",
        "sybil2/recommended",
        "sybil5/b4b-scaled",
        "sybil10/b4b-scaled",
        "sybil2_paper/b4b-scaled",
        "sybil2_rotation/recommended",
        "sybil2_matching/b4b-2023-shuffled",
        "sybil10_trunk/b4b-scaled",
    )
    defenses: tuple[str, ...] = (NONE, "b4b-2023", "b4b-scaled", "recommended")
    budget: int = 5000
    anchors: int = 100
    seeds: int = 3
    epochs: int = 10
    rate: float = 3e-3
    width: int = 16
    side: int = 24
    workers: int = 2

    def network(self) -> ConvNet:
        """Return the surrogate's architecture."""
        return ConvNet(width=self.width, side=self.side)

    def schedule(self) -> Schedule:
        """Return the surrogate's training."""
        return Schedule(epochs=self.epochs, batch=64, rate=self.rate, optimizer=Adam())


@dataclass(frozen=True, slots=True)
class Job:
    """One surrogate, floor or round of legitimate users.

    Attributes:
        user: a key of `USERS` with a number of accounts for sybils, `legit`, or a floor.
        defense: a public profile or one of `EXTRA_DEFENSES`.
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


# -- the thieves -------------------------------------------------------------------


def _direct(setting: Setting) -> Direct:
    return Direct(objective=InfoNCE(), network=setting.network(), schedule=setting.schedule())


def _averaging(setting: Setting) -> Attack:
    """Ask everything eight times: fresh noise shrinks, and repeats visit no new bucket."""
    return replace(_direct(setting), recovery=AverageRepeats(8))


def _overlap(setting: Setting) -> Attack:
    return Mapped(inner=_direct(setting), mapper=RidgeMapper(), anchors=setting.anchors)


def _paper(setting: Setting) -> Attack:
    """Spend a fifth of the budget on the map, as the paper does, on the paper's network."""
    return Mapped(inner=_direct(setting), mapper=ThreeLayerMapper(), anchors=setting.budget // 5)


def _rotation(setting: Setting) -> Attack:
    """Share no input: find the rotation between the accounts by the shape of their answers."""
    return Matched(inner=_direct(setting), matcher=RotationMatcher())


def _matching(setting: Setting) -> Attack:
    """Share no input: pair the coordinates of the accounts by their statistics."""
    inner = replace(_direct(setting), recovery=Standardized())
    return Matched(inner=inner, matcher=CoordinateMatcher())


def _trunk(setting: Setting) -> Attack:
    return SharedTrunk(network=setting.network(), schedule=setting.schedule())


USERS = {
    "attack": _direct,
    "attack_averaging": _averaging,
    "sybil": _overlap,
    "sybil_paper": _paper,
    "sybil_rotation": _rotation,
    "sybil_matching": _matching,
    "sybil_trunk": _trunk,
}
"""Thieves by name; a number behind `sybil` is that of its accounts."""


def thief(user: str, setting: Setting) -> tuple[Attack, int]:
    """Return a user's attack and the number of its accounts.

    Raises:
        ConfigurationError: no such user.
    """
    kind = "".join(letter for letter in user if not letter.isdigit())
    count = "".join(letter for letter in user if letter.isdigit())
    if kind not in USERS or (kind.startswith("sybil") != bool(count)):
        known = ", ".join(USERS)
        raise ConfigurationError(f"expected a user of {known} (sybils as sybil2), got {user!r}")
    return USERS[kind](setting), int(count or 1)


# -- one job -----------------------------------------------------------------------


EXTRA_DEFENSES: Mapping[str, Callable[[], Profile]] = {
    "b4b-scaled": scaled_b4b,
    # The transform of the paper's remapping study instead of its dense one.
    "b4b-2023-shuffled": lambda: replace(profiles.B4B_2023, transform=AffinePadShuffle()),
}
"""Defenses that only experiments have."""


def profile(name: str) -> Profile:
    """Return a defense by name: a public profile, or one of `EXTRA_DEFENSES`."""
    return EXTRA_DEFENSES[name]() if name in EXTRA_DEFENSES else profiles.get(name)


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
    """Let one account per task ask for everything of its task, then probe what it got."""
    scores: dict[str, float] = {}
    facts: dict[str, float] = {}
    with guarded(encoder, job) as victim:
        for reference in stage.references:
            found = score(victim.account(reference.name), [reference])
            scores |= found.named() | {f"recall10.{reference.name}": found.recall10}
            facts[f"coverage.{reference.name}"] = victim.coverage(reference.name)
            facts[f"noise_in_feature_std.{reference.name}"] = victim.noise(reference.name)
    return Outcome(scores, facts=facts)


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
            cells=("attack/none", "attack/b4b-scaled", "sybil2/b4b-scaled"),
            defenses=(NONE, "b4b-scaled"),
            budget=400,
            seeds=1,
            epochs=3,
            width=8,
        ),
        "cpu": Setting(),
        "gpu": Setting(seeds=5, epochs=60, width=64, side=32, train=10_000, workers=1),
    },
    measure=measure,
    promises=(
        "legit.none.*",
        "legit.b4b-2023.*",
        "legit.recommended.*",
        "attack.none.*",
        "attack.b4b-2023.*",
        "attack.recommended.*",
        "sybil2.*",
        "sybil10.*",
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
