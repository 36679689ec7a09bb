"""Experiment `pow-calibration`: what proof of work by leakage costs honest users and thieves.

A victim is sold by the query, and teachers on disjoint shards of its data tell what a query asks
for. Two honest users and six thieves ask what they would, and each makes a copy. Their streams are
priced by the reference's rule (Dziedzic et al., ICLR 2022) and by ours: loss composed per account
and converted once, charged for what is above honest users only, on every input.

A puzzle is worth what its work takes on the machine it was set for, a single process of Python
here; `time_ratio_openssl` and `time_ratio_gpu` are of thieves who hash faster than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tollkeeper.attacks.torching import device
from tollkeeper.bench.experiment import Context, Direction, Experiment, Measurement, Metric
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.inputs import noted
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload, shared
from tollkeeper.bench.toll import hashing, reference_logs
from tollkeeper.bench.toll.models import SIDE, Deployment, accuracy, deploy
from tollkeeper.bench.toll.prices import BATCH, ROW, Meter, Rules, calibrate
from tollkeeper.bench.toll.users import HONEST, USERS, World
from tollkeeper.data import load_images
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch

BITS = (12, 16, 20, 24, 28, 32)
_RATE_TOLERANCE = 0.3
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
        reference_logs: folder of the reference's logs, to compute the published table again;
            empty for none.
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
    reference_logs: str = ""

    def check(self) -> None:
        """Refuse users that nobody is.

        Raises:
            ConfigurationError: names those there are.
        """
        unknown = set(self.users) - set(USERS)
        if unknown:
            raise ConfigurationError(f"no user {min(unknown)!r}; choose from {', '.join(USERS)}")
        if self.budget < BATCH or self.teachers * BATCH > self.train:
            raise ConfigurationError(
                f"expected a budget of at least {BATCH} and {BATCH} training images a teacher, got "
                f"a budget of {self.budget} and {self.train} images for {self.teachers} teachers"
            )


Images = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The images of one data set's users; all (n, 28, 28) uint8.

    Attributes:
        images: of the victim, its teachers and its honest users.
        labels: (n,) of these.
        test: what copies are scored on.
        test_labels: (n,) of these.
        letters: other characters.
        photos: natural images in gray.
    """

    images: Images
    labels: NDArray[np.int64]
    test: Images
    test_labels: NDArray[np.int64]
    letters: Images
    photos: Images


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
        DataError: a data set or the reference's log is missing or damaged.
        BenchError: a deployment or a solver failed.
    """
    setting.check()
    total = len(setting.datasets) * setting.seeds
    context.progress(0, total, "hash rates")
    rates = hashing.rates(seconds=setting.hash_seconds, processes=setting.hash_processes)
    logs = Path(setting.reference_logs)
    logged = reference_logs.recomputed(logs) if setting.reference_logs else {}
    samples, data, facts = Samples(), dict[str, str](), dict[str, object]()
    for number, dataset in enumerate(setting.datasets):
        before = number * setting.seeds
        context.progress(before, total, dataset)
        told = partial(_tell, context, before, total)
        with shared(load_stage(dataset, setting, data)) as stage:
            jobs = [
                Job(stage, setting, dataset, seed, context.seed) for seed in range(setting.seeds)
            ]
            results = run_jobs(run, jobs, workers=setting.workers, progress=told)
        for found in results:
            _add(samples, found, rates)
        facts[dataset] = [found.facts for found in results]
    metrics = {**samples.metrics(), **_solvers(rates), **logged}
    return Measurement(metrics, diagnostics=facts, data=data)


def _tell(context: Context, before: int, total: int, done: int, _jobs: int, what: str) -> None:
    context.progress(before + done, total, what)


def load_stage(dataset: str, setting: Setting, data: dict[str, str]) -> Stage:
    """Load a data set and what thieves ask instead of it.

    Raises:
        ConfigurationError: fewer images than victim and users need.
        DataError: missing or damaged.
    """
    mine, test = noted(load_images, data, dataset, "train", "test")
    (letters,) = noted(load_images, data, "emnist_letters", "train")
    (photos,) = noted(load_images, data, "cifar10", "train")
    needed = setting.train + 2 * setting.budget
    if mine.labels is None or test.labels is None or len(mine.classes) != 10:
        raise ConfigurationError(f"expected labels of ten classes, {dataset} has none such")
    if len(mine) < needed or min(len(letters), len(photos)) < setting.budget:
        raise ConfigurationError(
            f"expected {needed:,} images of {dataset} and {setting.budget:,} of others, got "
            f"{len(mine):,}, {len(letters):,} letters and {len(photos):,} photos; lower the budget"
        )
    edge = (32 - SIDE) // 2
    gray = np.asarray(photos.inputs)[:, edge : edge + SIDE, edge : edge + SIDE].mean(axis=3)
    return Stage(
        _one_channel(mine.inputs),
        mine.labels,
        _one_channel(test.inputs),
        test.labels,
        _one_channel(letters.inputs),
        gray.astype(np.uint8),
    )


def _one_channel(images: Batch) -> Images:
    found: Images = np.ascontiguousarray(np.asarray(images)[..., 0])
    return found


def _tensor(images: Images) -> Tensor:
    """Return (n, 1, 28, 28) float32 in [0, 1]."""
    return torch.from_numpy(images[:, np.newaxis].astype(np.float32) / 255).to(device())


def run(job: Job) -> Found:
    """Deploy once and let every user ask; runs in a worker."""
    stage, setting = job.stage.load(), job.setting
    # By name, so that a data set's numbers do not depend on which others are measured.
    rng = np.random.default_rng([job.root, *job.dataset.encode(), job.seed])
    order = rng.permutation(len(stage.images))
    kept, asked = order[: setting.train], order[setting.train :][: 2 * setting.budget]
    deployment = _deployed(stage, kept, setting, rng)
    pool, test = _tensor(stage.images[asked]), _tensor(stage.test)
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
        figures = {"accuracy": copied, **_paid(world.votes(), rules)}
        found.rows.extend((f"{kind}.{job.dataset}", name, figures[kind]) for kind in figures)
    return found


def _deployed(
    stage: Stage, kept: NDArray[np.int64], setting: Setting, rng: np.random.Generator
) -> Deployment:
    return deploy(
        _tensor(stage.images[kept]),
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
        letters=_tensor(stage.letters),
        photos=_tensor(stage.photos),
        budget=setting.budget,
        epochs=setting.epochs,
        sigma=setting.sigma,
        delta=setting.delta,
        rng=rng,
    )


def _paid(votes: NDArray[np.int64], rules: Rules) -> dict[str, float]:
    """Return what a stream leaked and how much longer it took."""
    return {
        "cost_per_query": float(rules.meter.each(votes).mean()),
        "leakage": float(rules.meter.composed(votes)[-1]),
        "time_ratio": rules.ratio(votes),
        "time_ratio_reference": rules.reference_ratio(votes, unit=BATCH),
        "time_ratio_reference_row": rules.reference_ratio(votes, unit=min(ROW, len(votes))),
    }


def _facts(
    deployment: Deployment, rules: Rules, pool: Tensor, test: Tensor, wanted: Tensor
) -> dict[str, float]:
    said = deployment.teachers.votes(test).argmax(axis=1)
    return {
        "victim_accuracy": accuracy(deployment.victim, test, wanted),
        "teachers_accuracy": float((said == wanted.cpu().numpy()).mean()),
        "fit_r2": rules.ours.fit.r2,
        "fit_r2_reference": rules.reference.fit.r2,
        "honest_excess": rules.honest_excess,
        "service_ms": 1000 * deployment.service_s(pool[:BATCH]),
    }


_UNITS = {
    "accuracy": "share",
    "cost_per_query": "epsilon",
    "leakage": "epsilon",
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
        if kind == "time_ratio":
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
            hash_seconds=0.1,
        ),
        "cpu": Setting(),
    },
    measure=measure,
    promises=(
        *(f"{kind}.mnist.{user}" for kind in _KINDS for user in USERS),
        "hash_rate.python",
        "puzzle_s.*",
    ),
)
