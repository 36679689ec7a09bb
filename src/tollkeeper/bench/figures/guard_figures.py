"""Experiment `guard-figures`: what a guard costs thieves, and what it costs honest users.

Every guard profile walks the same accounts: customers of narrow and of wide tasks, and a
thief with a broad pool. Price signals that were tried are compared at one honest ceiling,
plain and under the disguises that a thief has. What the free answers are worth to a thief is
measured by stealing: undefended, behind the guard in the best ways known, and with every attack
of the toolkit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.figures import denoise, signals, theft, thieves, toolkit, walks
from tollkeeper.bench.figures.plan import SCENES, Plan
from tollkeeper.bench.figures.prices import prices
from tollkeeper.bench.figures.traffic import Stage, Traffic, load_stage
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload, shared
from tollkeeper.guard import profiles
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Embeddings


@dataclass(frozen=True, slots=True)
class Setting:
    """What is walked.

    Attributes:
        encoders: names of `encoders.MODALITY`.
        profiles: guard profiles.
        secrets: deployment secrets, each with its own order of inputs.
        limit: inputs of a task or pool at most.
        counts: sizes of the accounts that signals tell apart.
        accounts: narrow and broad accounts of each size.
        stolen: inputs that a thief wants answered, rising; the budgets of the theft curve.
        pool: inputs that a thief who makes a copy can choose from.
        guarded: queries of thieves behind a guard; one of `stolen`.
        attacked: queries of each attack of the toolkit.
        train: inputs that probes on copies are trained on.
        test: inputs that they are tested on.
        epochs: of a copy's training.
        thefts: copies of each kind; 0 makes none.
        workers: processes.
    """

    encoders: tuple[str, ...] = ("builtin:text", "lsa", "builtin:image", "patches")
    profiles: tuple[str, ...] = ("none", "b4b-2023", "recommended")
    secrets: int = 3
    limit: int = 12_000
    counts: tuple[int, ...] = (100, 300, 1000, 3000)
    accounts: int = 30
    stolen: tuple[int, ...] = (1000, 2000, 4000, 8000)
    pool: int = 10_000
    guarded: int = 4000
    attacked: int = 2000
    train: int = 2000
    test: int = 2000
    epochs: int = 20
    thefts: int = 3
    workers: int = 2

    def plan(self) -> Plan:
        """Return what copies are made."""
        return Plan(
            budgets=self.stolen,
            guarded=self.guarded,
            attacked=self.attacked,
            profiles=tuple(name for name in self.profiles if name != "none"),
            pool=self.pool,
            train=self.train,
            test=self.test,
            epochs=self.epochs,
            seeds=self.thefts,
            workers=self.workers,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """All figures of one encoder with one secret.

    Attributes:
        stage: the encoder with its traffic.
        encoder: its name.
        setting: of the experiment.
        seed: root of randomness.
        secret: number of the secret.
    """

    stage: Payload[Stage]
    encoder: str
    setting: Setting
    seed: int
    secret: int

    @property
    def name(self) -> str:
        """For progress."""
        return f"{self.encoder}, secret {self.secret + 1}"

    def rng(self, *path: int) -> np.random.Generator:
        """Return the generator of one part."""
        return np.random.default_rng([self.seed, self.secret, *path])


def work(job: Job) -> dict[str, float]:
    """Measure one encoder with one secret; what worker processes call."""
    stage = job.stage.load()
    clean = {
        (one.name, one_scale): walks.probe(one, one.embeddings, one_scale=one_scale)
        for one in stage.honest
        for one_scale in (False, True)
    }
    secret = job.rng(0).bytes(32)
    found: dict[str, float] = {}
    for number, name in enumerate(job.setting.profiles):
        guard = Guard(profiles.get(name), stage.calibration, secret=secret)
        suffix = f"{stage.encoder}.{name}"
        found |= _honest(guard, stage, suffix, clean, job.rng(1, number))
        found |= _thief(guard, stage, suffix, job)
        if guard.tracks:
            found |= _separation(partial(guard.signal, guard.empty()), stage, suffix, job)
    for name, signal in signals.candidates(stage.calibration, secret).items():
        suffix = f"{stage.encoder}.{name}"
        found |= _separation(signal, stage, suffix, job)
        found |= _free_at_ceiling(signal, stage, suffix, job)
    return found | _denoised(stage, job)


def _denoised(stage: Stage, job: Job) -> dict[str, float]:
    """Let filters learn to undo noise of one feature standard deviation."""
    rows, found = job.rng(2).permutation(stage.pool.embeddings), {}
    for name, noise in denoise.NOISES.items():
        pairs = denoise.draw(
            noise, rows, stage.calibration, scale=1.0, key=job.rng(0).bytes(32), rng=job.rng(6)
        )
        for kind, left in denoise.filters(pairs):
            found[f"noise_left.{stage.encoder}.{name}.{kind}"] = left
    return found


def _honest(
    guard: Guard,
    stage: Stage,
    suffix: str,
    clean: Mapping[tuple[str, bool], float],
    rng: np.random.Generator,
) -> dict[str, float]:
    found = {}
    for traffic in stage.honest:
        user = walks.honest(guard, traffic, rng=rng)
        named = f"{suffix}.{traffic.name}"
        found[f"honest_ceiling.{named}"] = float(user.ceiling)
        found[f"recall10.{named}"] = user.recall10
        found[f"probe_loss.{named}"] = clean[traffic.name, False] - user.accuracy
        loss = clean[traffic.name, True] - user.accuracy_one_scale
        found[f"probe_loss_one_scale.{named}"] = loss
        found[f"requery_equal.{named}"] = user.requery_equal
        found[f"retry_charge.{named}"] = user.retry_charge
    narrow = [traffic.name for traffic in stage.narrow]
    found[f"honest_ceiling.{suffix}"] = min(found[f"honest_ceiling.{suffix}.{n}"] for n in narrow)
    found[f"recall10.{suffix}"] = min(found[f"recall10.{suffix}.{name}"] for name in narrow)
    return found


def _thief(guard: Guard, stage: Stage, suffix: str, job: Job) -> dict[str, float]:
    rows = job.rng(2).permutation(stage.pool.embeddings)
    found = {f"free_broad.{suffix}": float(walks.free_broad(guard, rows, rng=job.rng(3)))}
    if guard.tracks:
        for wanted in job.setting.stolen:
            for order, count in thieves.price(guard, rows[:wanted], seed=job.secret).items():
                found[f"accounts_{order}.{suffix}.n{wanted}"] = count
            worn = stage.merged[:wanted]
            if len(worn) == wanted:
                found[f"accounts_merged.{suffix}.n{wanted}"] = thieves.accounts_needed(guard, worn)
    return found


def _separation(signal: signals.Signal, stage: Stage, suffix: str, job: Job) -> dict[str, float]:
    """Tell narrow accounts from broad ones after so many inputs each."""
    found = {}
    for count in job.setting.counts:
        narrow = [
            value
            for traffic in stage.narrow
            for value in _ends(signal, traffic, count, job, share=len(stage.narrow))
        ]
        broad = _ends(signal, stage.pool, count, job, share=1)
        if narrow and broad:
            found[f"separation{count}.{suffix}"] = thieves.auroc(np.array(narrow), np.array(broad))
    return found


def _ends(
    signal: signals.Signal, traffic: Traffic, count: int, job: Job, *, share: int
) -> list[float]:
    """Return the signals of some accounts after `count` inputs; none of too small a traffic."""
    rng, rows = job.rng(4, count), traffic.embeddings
    if count > len(rows):
        return []
    number = -(-job.setting.accounts // share)
    chosen = (rows[rng.permutation(len(rows))[:count]] for _ in range(number))
    return [float(signal(some)[-1]) for some in chosen]


def _free_at_ceiling(
    signal: signals.Signal, stage: Stage, suffix: str, job: Job
) -> dict[str, float]:
    """Put the ceiling where every narrow task ends, and see what a thief gets below it."""
    ends = {traffic.name: float(signal(traffic.embeddings)[-1]) for traffic in stage.narrow}
    found = {f"signal.{suffix}.{name}.all": value for name, value in ends.items()}
    filler: Embeddings = stage.narrow[0].embeddings
    pool = job.rng(2).permutation(stage.pool.embeddings)[:_DISGUISED]
    for name, asked, wanted in thieves.disguises(pool, filler, rng=job.rng(5)):
        free = thieves.free_at(signal, max(ends.values()), asked, wanted)
        found[f"free_at_ceiling.{suffix}.{name}"] = float(free)
    worn = job.rng(2).permutation(stage.merged[:_DISGUISED])
    free = thieves.free_at(signal, max(ends.values()), worn, np.ones(len(worn), np.bool_))
    found[f"free_at_ceiling.{suffix}.merging"] = float(free)
    return found


_FAMILIES: Mapping[str, tuple[str, str]] = {
    "free_broad": ("inputs", "lower"),
    "free_at_ceiling": ("inputs", "lower"),
    "honest_ceiling": ("inputs", "higher"),
    "recall10": ("share", "higher"),
    "probe_loss": ("accuracy", "lower"),
    "requery_equal": ("share", "higher"),
    "retry_charge": ("ratio", "lower"),
    "separation": ("AUROC", "higher"),
    "accounts": ("accounts", "higher"),
    "signal": ("share", "lower"),
    "noise_left": ("share", "higher"),
}
"""Beginning of a metric's name to its unit and better direction."""


def measure(setting: Setting, context: Context) -> Measurement:
    """Embed the traffic of every encoder, and walk it with every secret.

    Raises:
        ConfigurationError: an unknown encoder or profile.
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    samples = Samples()
    setting.plan().check()
    data: dict[str, str] = {}
    facts: dict[str, object] = {}
    for name in setting.profiles:
        profiles.get(name)
    for number, name in enumerate(setting.encoders):
        context.progress(number, len(setting.encoders), f"embedding for {name}")
        stage = load_stage(name, limit=setting.limit, rng=context.rng(number), data=data)
        facts[stage.encoder] = {
            "dim": stage.calibration.dim,
            "inputs": {one.name: len(one.embeddings) for one in stage.traffics},
        }
        with shared(stage) as payload:
            jobs = [
                Job(payload, stage.encoder, setting, context.seed, secret)
                for secret in range(setting.secrets)
            ]
            for found in run_jobs(work, jobs, workers=setting.workers, progress=context.progress):
                _add(samples, found)
    if setting.thefts:
        facts["thefts"] = theft.measure(setting.plan(), context, samples, data)
    metrics = samples.metrics()
    walked = {name.removeprefix("builtin:") for name in setting.encoders}
    stolen = [name for name in SCENES if name in walked]
    plan = setting.plan()
    metrics |= dict(prices(metrics, stolen, plan.profiles, plan.budgets))
    return Measurement(metrics, diagnostics=facts, data=data)


_DISGUISED = 5000


def _add(samples: Samples, found: Mapping[str, float]) -> None:
    for name, value in found.items():
        family = next(one for one in _FAMILIES if name.startswith(one))
        unit, direction = _FAMILIES[family]
        # An infinite number of accounts is no metric; more than the thief's inputs is as good.
        finite = value if np.isfinite(value) else 1e6
        samples.add(name, finite, "lower" if direction == "lower" else "higher", unit)


EXPERIMENT = Experiment(
    id="guard-figures",
    title="what a guard costs thieves and honest users, and what each price signal would",
    scales={
        "smoke": Setting(
            encoders=("builtin:text",),
            secrets=1,
            limit=1200,
            counts=(100,),
            accounts=4,
            stolen=(300, 600),
            pool=600,
            guarded=600,
            attacked=200,
            train=300,
            test=200,
            epochs=1,
            thefts=1,
            workers=1,
        ),
        "cpu": Setting(),
    },
    measure=measure,
    promises=(
        "free_broad.*",
        "free_at_ceiling.*",
        "honest_ceiling.*",
        "separation300.*",
        "recall10.*",
        "accounts_sharded.*",
        "price_accounts.*",
        "noise_left.*",
        "theft.*",
        "theft_attack.*",
    ),
    covers=("recommended", "b4b-2023", "none"),
    attacks=toolkit.metrics(),
)
