"""Experiment `noise-sweep`: what noise of one size costs an honest user, and at what.

B4B's utility check (`fuzzying.py` of its released code) adds Gaussian noise to all training and
test embeddings and trains a linear classifier. Its standard deviations, 0 to 10, are absolute.
Here they are in units of the encoder's feature standard deviation, so that they mean the same
for every encoder, and three smaller ones are added. The classifier is not the only judge either:
nearest neighbors, vector search and the same question asked twice notice noise much earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric
from tollkeeper.bench.theft.curve import mean_interval
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.probes import knn200, linear_probe, unit
from tollkeeper.bench.theft.scoring import agreement, recall_at_10
from tollkeeper.bench.theft.tasks import IMAGE_TASKS, STANDS_IN_FOR, TEXT_TASKS, Task, load_task
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.calibrations import calibration_for
from tollkeeper.types import Embeddings

ENCODERS: Mapping[str, str] = {
    **dict.fromkeys(IMAGE_TASKS, "builtin:image"),
    **dict.fromkeys(TEXT_TASKS, "builtin:text"),
}
"""Task to the encoder that embeds it."""

_UNITS = {"accuracy": "accuracy", "knn": "accuracy", "recall10": "share", "cosine": "cosine"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is swept.

    Attributes:
        tasks: labeled tasks, of images and of texts.
        stds: standard deviations of the noise, in feature standard deviations.
        train: inputs that classifiers are fitted on.
        test: inputs that they are tested on, and that are searched.
        seeds: each chooses other inputs and other noise.
        workers: processes.
    """

    tasks: tuple[str, ...] = ("cifar10", "gtsrb", "fashion_mnist", "banking77", "ag_news")
    stds: tuple[float, ...] = (0, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 10)
    train: int = 3000
    test: int = 2000
    seeds: int = 3
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One task with one seed.

    Attributes:
        task: its name.
        seed: of inputs and noise.
        root: seed of the run.
        setting: of the experiment.
    """

    task: str
    seed: int
    root: int
    setting: Setting

    @property
    def name(self) -> str:
        """One line."""
        return f"{self.task}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a job found.

    Attributes:
        figures: metric name to value.
        feature_std: noise of 1, in the encoder's own units.
        data: checksums of the data sets.
    """

    figures: Mapping[str, float]
    feature_std: float
    data: Mapping[str, str]


def measure(setting: Setting, context: Context) -> Measurement:
    """Sweep every task with every seed.

    Raises:
        ConfigurationError: an unknown task.
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    unknown = sorted(set(setting.tasks) - set(ENCODERS))
    if unknown:
        raise ConfigurationError(f"no task {unknown[0]!r}; choose {', '.join(ENCODERS)}")
    jobs = [
        Job(task, seed, context.seed, setting)
        for task in setting.tasks
        for seed in range(setting.seeds)
    ]
    found = run_jobs(work, jobs, workers=setting.workers, progress=context.progress)
    stds = {ENCODERS[job.task]: one.feature_std for job, one in zip(jobs, found, strict=True)}
    return Measurement(
        metrics(found, rng=context.rng(99)),
        diagnostics={
            "feature_std": stds,
            "stands_in_for": {
                task: STANDS_IN_FOR[task] for task in setting.tasks if task in STANDS_IN_FOR
            },
        },
        hardware={"workers": setting.workers, "threads_per_worker": 1},
        data={name: digest for one in found for name, digest in one.data.items()},
    )


def metrics(found: Iterable[Sweep], *, rng: np.random.Generator) -> dict[str, Metric]:
    """Return means over seeds with their intervals; all are better the higher they are."""
    values: dict[str, list[float]] = {}
    for one in found:
        for name, value in one.figures.items():
            values.setdefault(name, []).append(value)
    return {
        name: Metric(
            float(np.mean(some)),
            _UNITS[name.partition(".")[0]],
            "higher",
            mean_interval(some, rng=rng),
        )
        for name, some in values.items()
    }


def work(job: Job) -> Sweep:
    """Run one job; what worker processes call."""
    setting, data = job.setting, dict[str, str]()
    rng = np.random.default_rng([job.root, job.seed, list(ENCODERS).index(job.task)])
    task = load_task(job.task, train=setting.train, test=setting.test, rng=rng, data=data)
    spec = ENCODERS[job.task]
    encoder = load_encoder(spec)
    calibration = calibration_for(spec, encoder.dim, given=None, required=True)
    unit_std = calibration.feature_std
    figures = sweep(task, encoder, setting.stds, feature_std=unit_std, rng=rng)
    return Sweep(figures, unit_std, data)


def sweep(
    task: Task,
    encoder: Encoder,
    stds: Sequence[float],
    *,
    feature_std: float,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Measure one task at each noise, which is drawn anew for every embedding.

    Args:
        task: train and test inputs.
        encoder: answers both, without noise.
        stds: in units of `feature_std`.
        feature_std: of the encoder.
        rng: the noise.

    Returns:
        `<figure>.<task>.s<std>` to value: `accuracy` of the linear probe, `knn` of the 200
        nearest training embeddings, `recall10` of a search among the test embeddings against
        the same search without noise, and `cosine` of two answers to one test input.
    """
    train, test = encoder.embed(task.train_inputs), encoder.embed(task.test_inputs)
    labels, found = task.train_labels, dict[str, float]()
    for std in stds:
        fit, held, again = (noisy(rows, std * feature_std, rng=rng) for rows in (train, test, test))
        figures = {
            "accuracy": agreement(linear_probe(fit, labels, held), task.test_labels),
            "knn": agreement(knn200(fit, labels, held), task.test_labels),
            "recall10": recall_at_10(test, held),
            "cosine": float(np.einsum("ij,ij->i", unit(held), unit(again)).mean()),
        }
        found |= {f"{name}.{task.name}.s{std:g}": value for name, value in figures.items()}
    return found


def noisy(rows: Embeddings, std: float, *, rng: np.random.Generator) -> Embeddings:
    """Return (n, d) rows plus fresh Gaussian noise of an absolute standard deviation."""
    noise = rng.standard_normal(rows.shape, dtype=np.float32)
    return rows + np.float32(std) * noise


EXPERIMENT = Experiment(
    id="noise-sweep",
    title="noise of 0 to 10 feature std: linear probe, neighbors, search, the same input twice",
    scales={
        "smoke": Setting(
            tasks=("cifar10", "banking77"),
            stds=(0, 0.5, 10),
            train=400,
            test=200,
            seeds=1,
            workers=1,
        ),
        "cpu": Setting(),
        "gpu": Setting(train=10_000, test=10_000, seeds=10, workers=8),
    },
    measure=measure,
    promises=("accuracy.*", "knn.*", "recall10.*", "cosine.*"),
)
