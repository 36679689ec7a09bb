"""Experiment `pow-calibration`: what proof of work by leakage costs honest users and thieves.

A victim is sold by the query, and teachers on disjoint shards of its data tell what a query asks
for. Two honest users and six thieves ask what they would, and each makes a copy. Their streams are
priced by the reference's rule (Dziedzic et al., ICLR 2022) and by ours: loss composed per account
and converted once, charged for what is above honest users only, on every input. One thief's stream
is split over accounts as well, since whatever is counted per account is counted from nothing there.

A puzzle is worth what its work takes on the machine it was set for, a single process of Python
here; `time_ratio_openssl` and `time_ratio_gpu` are of thieves who hash faster than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tollkeeper.bench.experiment import Context, Direction, Experiment, Measurement, Metric
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload, shared
from tollkeeper.bench.toll import hashing
from tollkeeper.bench.toll.models import Deployment, accuracy, deploy
from tollkeeper.bench.toll.prices import (
    BATCH,
    Meter,
    Rules,
    calibrate,
    figures,
    ratio,
    split_figures,
)
from tollkeeper.bench.toll.stage import Stage, load_stage, pixels
from tollkeeper.bench.toll.users import HONEST, USERS, World
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.torching import device

BITS = (12, 16, 20, 24, 28, 32)
_RATE_TOLERANCE = 0.3
_SPLIT = "knockoff"
"""Whose stream is split over accounts."""

_KINDS = ("time_ratio", "time_ratio_reference", "cost_per_query", "accuracy")


@dataclass(frozen=True, slots=True)
class Setting:
    """Who asks whom, and how much.

    Attributes:
        datasets: of 28x28 gray images in ten classes.
        users: names of `USERS`; `standard` is always measured.
        budget: queries of each user.
        train: images of victim and teachers.
        teachers: that vote.
        hidden: units of a teacher.
        steps: of the teachers' training.
        sigma: noise of the vote.
        delta: δ of the conversion.
        unit: batches of service that a batch pays without excess, by our rule.
        victim_epochs: of the victim's training.
        epochs: of a copy's training.
        seeds: deployments of each data set, with all users each.
        workers: processes.
        hash_seconds: that each solver hashes.
        hash_processes: of Python that hash at once.
        accounts: over how many Knockoff's stream is split, once each.
    """

    datasets: tuple[str, ...] = ("mnist", "fashion_mnist")
    users: tuple[str, ...] = tuple(USERS)
    budget: int = 6000
    train: int = 48_000
    teachers: int = 250
    hidden: int = 16
    steps: int = 100
    sigma: float = 10.0
    delta: float = 1e-5
    unit: float = 0.1
    victim_epochs: int = 4
    epochs: int = 12
    seeds: int = 3
    workers: int = 2
    hash_seconds: float = 2.0
    hash_processes: int = 2
    accounts: tuple[int, ...] = (5, 20)

    def check(self) -> None:
        """Refuse users that nobody is, and streams that are too short.

        Raises:
            ConfigurationError: names what is expected.
        """
        unknown = set(self.users) - set(USERS)
        if unknown:
            raise ConfigurationError(f"no user {min(unknown)!r}; choose from {', '.join(USERS)}")
        if self.budget < BATCH or self.teachers * BATCH > self.train:
            raise ConfigurationError(
                f"expected a budget of at least {BATCH} and {BATCH} training images a teacher, got "
                f"a budget of {self.budget} and {self.train} images for {self.teachers} teachers"
            )
        most = self.budget // BATCH
        if not all(1 <= accounts <= most for accounts in self.accounts):
            raise ConfigurationError(
                f"expected 1 to {most} accounts, {BATCH} queries each, got {self.accounts}"
            )


@dataclass(frozen=True, slots=True)
class Job:
    """One deployment and everybody who asks it.

    Attributes:
        stage: the images.
        setting: of the experiment.
        dataset: for metric names.
        seed: number of the deployment.
        root: seed of the run.
    """

    stage: Payload[Stage]
    setting: Setting
    dataset: str
    seed: int
    root: int

    @property
    def name(self) -> str:
        """For progress."""
        return f"{self.dataset}, seed {self.seed + 1}"


@dataclass(frozen=True, slots=True)
class Found:
    """What one deployment gave.

    Attributes:
        rows: (metric's beginning, last part, value).
        facts: that only inform.
    """

    rows: list[tuple[str, str, float]] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


def measure(setting: Setting, context: Context) -> Measurement:
    """Measure solvers, then every deployment in worker processes.

    Raises:
        ConfigurationError: an unknown user, or too few images.
        DataError: a data set is missing or damaged.
        BenchError: a deployment or a solver failed.
    """
    setting.check()
    total = len(setting.datasets) * setting.seeds
    context.progress(0, total, "hash rates")
    rates = hashing.rates(seconds=setting.hash_seconds, processes=setting.hash_processes)
    samples, data, facts = Samples(), dict[str, str](), dict[str, object]()
    for number, dataset in enumerate(setting.datasets):
        before = number * setting.seeds
        context.progress(before, total, dataset)
        told = partial(_tell, context, before, total)
        loaded = load_stage(dataset, data, train=setting.train, budget=setting.budget)
        with shared(loaded) as stage:
            jobs = [
                Job(stage, setting, dataset, seed, context.seed) for seed in range(setting.seeds)
            ]
            results = run_jobs(run, jobs, workers=setting.workers, progress=told)
        for found in results:
            _add(samples, found, rates)
        facts[dataset] = [found.facts for found in results]
    metrics = {**samples.metrics(), **_solvers(rates)}
    return Measurement(metrics, diagnostics=facts, data=data)


def _tell(context: Context, before: int, total: int, done: int, _jobs: int, what: str) -> None:
    context.progress(before + done, total, what)


def run(job: Job) -> Found:
    """Deploy once and let every user ask; runs in a worker."""
    stage, setting = job.stage.load(), job.setting
    # By name, so that a data set's numbers do not depend on which others are measured.
    rng = np.random.default_rng([job.root, *job.dataset.encode(), job.seed])
    order = rng.permutation(len(stage.images))
    kept, asked = order[: setting.train], order[setting.train :][: 2 * setting.budget]
    deployment = _deployed(stage, kept, setting, rng)
    pool, test = pixels(stage.images[asked]), pixels(stage.test)
    wanted = torch.from_numpy(stage.test_labels).to(device())
    # The honest users that prices are fitted to ask what the one who is measured does not.
    calibration = deployment.teachers.votes(pool[setting.budget :])
    meter = Meter(setting.sigma, setting.delta)
    rules = calibrate(calibration, meter, unit=setting.unit, rng=rng.spawn(1)[0])
    found = Found(facts=_facts(deployment, rules, pool, test, wanted))
    found.rows.extend((f"deployment.{job.dataset}", *fact) for fact in found.facts.items())
    for name in dict.fromkeys((HONEST[0], *setting.users)):
        world = _world(deployment, pool, stage, setting, rng.spawn(1)[0])
        copied = accuracy(USERS[name](world), test, wanted)
        votes = world.votes()
        _note(found, job.dataset, name, {"accuracy": copied, **figures(votes, rules)})
        for accounts in setting.accounts if name == _SPLIT else ():
            split = split_figures(votes, rules, accounts)
            _note(found, job.dataset, f"{name}_{accounts}_accounts", split)
            pooled = ratio(rules.inputs(votes, accounts=accounts, pooled=True))
            _note(found, job.dataset, f"{name}_{accounts}_pooled", {"time_ratio": pooled})
    return found


def _note(found: Found, dataset: str, name: str, values: dict[str, float]) -> None:
    found.rows.extend((f"{kind}.{dataset}", name, value) for kind, value in values.items())


def _deployed(
    stage: Stage, kept: NDArray[np.int64], setting: Setting, rng: np.random.Generator
) -> Deployment:
    return deploy(
        pixels(stage.images[kept]),
        torch.from_numpy(stage.labels[kept]).to(device()),
        epochs=setting.victim_epochs,
        count=setting.teachers,
        hidden=setting.hidden,
        steps=setting.steps,
        rng=rng,
    )


def _world(
    deployment: Deployment, pool: Tensor, stage: Stage, setting: Setting, rng: np.random.Generator
) -> World:
    return World(
        deployment,
        pool,
        letters=pixels(stage.letters),
        photos=pixels(stage.photos),
        budget=setting.budget,
        epochs=setting.epochs,
        sigma=setting.sigma,
        delta=setting.delta,
        rng=rng,
    )


def _facts(
    deployment: Deployment, rules: Rules, pool: Tensor, test: Tensor, wanted: Tensor
) -> dict[str, float]:
    said = deployment.teachers.votes(test).argmax(axis=1)
    return {
        "victim_accuracy": accuracy(deployment.victim, test, wanted),
        "teachers_accuracy": float((said == wanted.cpu().numpy()).mean()),
        "honest_excess": rules.excess,
        "service_ms": 1000 * deployment.service_s(pool[:BATCH]),
    }


_UNITS = {
    "accuracy": "share",
    "cost_per_query": "epsilon",
    "leakage": "epsilon",
    "queries": "inputs",
    "median_price": "batches",
    "median_price_reference": "batches",
    "at_ceiling": "share",
    "at_ceiling_reference": "share",
    "honest_excess": "epsilon",
    "service_ms": "ms",
}
"""Of kinds of metrics, and of facts about a deployment that are no shares."""


def _add(samples: Samples, found: Found, rates: dict[str, float]) -> None:
    """Add a deployment's figures, and those of thieves who hash faster than Python."""
    faster = {"gpu": hashing.PUBLISHED_GPU}
    faster |= {"openssl": rates["openssl"]} if "openssl" in rates else {}
    for name, user, value in found.rows:
        kind, _, dataset = name.partition(".")
        if kind == "deployment":
            unit = _UNITS.get(user, "share")
            samples.add(f"{name}.{user}", value, "higher" if unit == "share" else "lower", unit)
            continue
        # A price is good where a thief pays it; so is a leak that shows.
        wanted = (user in HONEST) == (kind == "accuracy")
        direction: Direction = "higher" if wanted else "lower"
        samples.add(f"{name}.{user}", value, direction, _UNITS.get(kind, "ratio"))
        if kind == "time_ratio" and user in USERS:
            for solver, rate in faster.items():
                ratio = 1 + (value - 1) * rates["python"] / rate
                samples.add(f"{kind}_{solver}.{dataset}.{user}", ratio, direction, "ratio")


def _solvers(rates: dict[str, float]) -> dict[str, Metric]:
    """Return hash rates, and the mean seconds that puzzles of N bits take."""
    metrics = {
        f"hash_rate.{name}": Metric(rate, "hashes/s", "higher", tolerance=_RATE_TOLERANCE)
        for name, rate in rates.items()
    }
    for name, rate in {**rates, "gpu_published": hashing.PUBLISHED_GPU}.items():
        for bits in BITS:
            seconds = Metric(2.0**bits / rate, "s", "lower", tolerance=_RATE_TOLERANCE)
            metrics[f"puzzle_s.{name}.b{bits}"] = seconds
    return metrics


EXPERIMENT = Experiment(
    id="pow-calibration",
    title="proof of work by leakage: what honest users and thieves pay, and what a puzzle costs",
    scales={
        "smoke": Setting(
            datasets=("mnist",),
            users=("knockoff", "jbda"),
            budget=400,
            train=4000,
            teachers=50,
            steps=30,
            sigma=2.0,
            victim_epochs=1,
            epochs=2,
            seeds=1,
            workers=1,
            accounts=(2, 5),
            hash_seconds=0.1,
        ),
        "cpu": Setting(),
    },
    measure=measure,
    promises=(
        *(f"{kind}.mnist.{user}" for kind in _KINDS for user in USERS),
        "time_ratio.*.knockoff_5_*",
        "time_ratio.*.knockoff_20_*",
        "hash_rate.python",
        "puzzle_s.*",
    ),
)
