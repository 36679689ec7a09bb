"""Experiment `guard-figures`: what a guard costs thieves, and what it costs honest users.

Every guard profile walks the same accounts: customers of narrow and of wide tasks, and a
thief with a broad pool. Price signals that were tried are compared at one honest ceiling,
plain and under the disguises that a thief has. What the free answers are worth to a thief is
measured by stealing: undefended, and behind the guard in the best way known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.figures import signals, thieves, walks
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
        stolen: inputs that a thief wants answered.
        workers: processes.
    """

    encoders: tuple[str, ...] = ("builtin:text", "lsa", "builtin:image", "patches")
    profiles: tuple[str, ...] = ("none", "b4b-2023", "recommended")
    secrets: int = 5
    limit: int = 12_000
    counts: tuple[int, ...] = (100, 300, 1000, 3000)
    accounts: int = 30
    stolen: int = 5000
    workers: int = 2


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
    secret = job.rng(0).bytes(32)
    found: dict[str, float] = {}
    for number, name in enumerate(job.setting.profiles):
        guard = Guard(profiles.get(name), stage.calibration, secret=secret)
        suffix = f"{stage.encoder}.{name}"
        found |= _honest(guard, stage, suffix, job.rng(1, number))
        found |= _thief(guard, stage, suffix, job)
        if guard.tracks:
            found |= _separation(partial(guard.signal, guard.empty()), stage, suffix, job)
    for name, signal in signals.candidates(stage.calibration, secret).items():
        suffix = f"{stage.encoder}.{name}"
        found |= _separation(signal, stage, suffix, job)
        found |= _free_at_ceiling(signal, stage, suffix, job)
    return found


def _honest(guard: Guard, stage: Stage, suffix: str, rng: np.random.Generator) -> dict[str, float]:
    found = {}
    for traffic in stage.honest:
        user = walks.honest(guard, traffic, rng=rng)
        named = f"{suffix}.{traffic.name}"
        found[f"honest_ceiling.{named}"] = float(user.ceiling)
        found[f"recall10.{named}"] = user.recall10
        found[f"probe_loss.{named}"] = user.probe_loss
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
        orders = thieves.price(guard, rows[: job.setting.stolen], seed=job.secret)
        found |= {f"accounts_{order}.{suffix}": count for order, count in orders.items()}
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
    pool = job.rng(2).permutation(stage.pool.embeddings)[: job.setting.stolen]
    for name, asked, wanted in thieves.disguises(pool, filler, rng=job.rng(5)):
        free = thieves.free_at(signal, max(ends.values()), asked, wanted)
        found[f"free_at_ceiling.{suffix}.{name}"] = float(free)
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
    return Measurement(samples.metrics(), diagnostics=facts, data=data)


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
            stolen=600,
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
    ),
    covers=("recommended", "b4b-2023", "none"),
)
