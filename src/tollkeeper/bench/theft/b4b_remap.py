"""Experiment `b4b-remap`: how many shared queries undo the transform of another account.

B4B's remapping study (`src/sybil_defense*.py` of its released code): accounts A and B ask the
same n inputs, a mapper learns to carry B's answers to A's, and B's answers to the test inputs,
carried over, are classified by a linear probe that was fitted on A's view. As there, the n inputs
are the first of the task's training part, and in the noised variant both accounts' training
answers carry noise of their own while test answers are clean. Beside the paper's mappers stand
closed forms, and beside its transforms a dense and an orthogonal one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tollkeeper.bench.experiment import Context, Direction, Experiment, Measurement, Metric
from tollkeeper.bench.theft.curve import mean_interval
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload, shared
from tollkeeper.bench.theft.remapping import (
    CLOSED,
    TRAINED,
    TRANSFORMS,
    Answers,
    Remapped,
    Trial,
    remap,
)
from tollkeeper.bench.theft.tasks import load_task
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.calibrations import calibration_for

_BATCH, _NOISED_PASSES = 64, 49
"""Pairs a step, and what the released noised script comes to, whatever n."""

_LADDER_PAIRS = 1000


@dataclass(frozen=True, slots=True)
class Setting:
    """What is mapped.

    Attributes:
        victim: SPEC of the encoder.
        task: labeled task of the probe and of the shared queries.
        transforms: names of `TRANSFORMS`.
        counts: shared queries n, for closed forms.
        trained_counts: the same for trained mappers.
        noised_counts: the same for both with noise.
        trained: trained mappers and their transforms, for example `paper/affine`.
        trained_noised: the same with noise.
        noise: standard deviations of the noised variant, in feature standard deviations.
        steps: most steps of a trained mapper. As coded for SimSiam a mapper makes about 8,000
            from 100 pairs on, for DINO about 40,000; a processor makes 200 to 300 a second.
        ladder: most steps of `paper` on `affine`, to see what more steps bring.
        train: training inputs of the probe.
        test: test inputs.
        seeds: each draws other secrets, inputs and noise.
        workers: processes.
    """

    victim: str = "builtin:image"
    task: str = "cifar10"
    transforms: tuple[str, ...] = tuple(TRANSFORMS)
    counts: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000, 10_000)
    trained_counts: tuple[int, ...] = (10, 100, 1000, 10_000)
    noised_counts: tuple[int, ...] = (100, 1000, 3000)
    trained: tuple[str, ...] = (
        "paper/affine",
        "paper/pad_shuffle",
        "paper/affine_pad_shuffle",
        "paper/binary",
    )
    trained_noised: tuple[str, ...] = ()
    noise: tuple[float, ...] = (0.1, 1.0)
    steps: int = 1000
    ladder: tuple[int, ...] = (4000,)
    train: int = 3000
    test: int = 2000
    seeds: int = 3
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Job:
    """Trials on the same two accounts.

    Attributes:
        transform: name of `TRANSFORMS`.
        std: noise, in feature standard deviations.
        seed: of accounts, inputs and noise.
        trials: what is tried.
        root: seed of the run.
        train: training inputs of the probe.
        answers: of the victim.
    """

    transform: str
    std: float
    seed: int
    trials: tuple[Trial, ...]
    root: int
    train: int
    answers: Payload[Answers]

    @property
    def name(self) -> str:
        """One line."""
        return f"{self.transform}, noise {self.std:g}, {self.trials[0].name}, seed {self.seed}"


def measure(setting: Setting, context: Context) -> Measurement:
    """Embed the task once, then run all trials of every transform, noise and seed.

    Raises:
        ConfigurationError: an unknown transform or mapper, or more pairs than training inputs.
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    check(setting)
    data: dict[str, str] = {}
    context.progress(0, 1, "embedding")
    answers = embedded(setting, data, rng=context.rng(90))
    with shared(answers) as payload:
        jobs = list(plan(setting, payload, dim=answers.test.shape[1], root=context.seed))
        found = run_jobs(work, jobs, workers=setting.workers, progress=context.progress)
    rungs, *rest = found
    return Measurement(
        metrics(jobs[1:], rest, rng=context.rng(99)),
        diagnostics={
            "feature_std": answers.feature_std,
            "ladder": {
                name: {"accuracy": one.accuracy, "cosine_distance": one.distance}
                for name, one in rungs.items()
            },
        },
        hardware={"workers": setting.workers, "threads_per_worker": 1},
        data=data,
    )


def check(setting: Setting) -> None:
    """Refuse names that do not exist, before anything is embedded.

    Raises:
        ConfigurationError: names the first of them, and those there are.
    """
    cells = [cell.partition("/") for cell in (*setting.trained, *setting.trained_noised)]
    for kind, wanted, known in (
        ("transform", [*setting.transforms, *(cell[2] for cell in cells)], TRANSFORMS),
        ("trained mapper", [cell[0] for cell in cells], TRAINED),
    ):
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise ConfigurationError(f"no {kind} {unknown[0]!r}; choose {', '.join(known)}")


def embedded(setting: Setting, data: dict[str, str], *, rng: np.random.Generator) -> Answers:
    """Load the task and ask the clean victim about all of it."""
    most = max(*setting.counts, *setting.trained_counts, *setting.noised_counts, setting.train)
    task = load_task(setting.task, train=most, test=setting.test, rng=rng, data=data)
    if len(task.train_inputs) < most:
        raise ConfigurationError(
            f"expected at most {len(task.train_inputs)} shared queries, the training inputs of "
            f"{setting.task!r}, got {most}"
        )
    encoder = load_encoder(setting.victim)
    calibration = calibration_for(setting.victim, encoder.dim, given=None, required=True)
    return Answers(
        encoder.embed(task.train_inputs),
        task.train_labels,
        encoder.embed(task.test_inputs),
        task.test_labels,
        calibration.feature_std,
    )


# -- what is tried -----------------------------------------------------------------


def plan(setting: Setting, answers: Payload[Answers], *, dim: int, root: int) -> Iterator[Job]:
    """Yield the ladder of steps first, then trained mappers, then closed forms: longest first."""

    def job(transform: str, std: float, seed: int, trials: Sequence[Trial]) -> Job:
        return Job(transform, std, seed, tuple(trials), root, setting.train, answers)

    pairs = min(_LADDER_PAIRS, max(setting.counts))
    yield job(
        "affine",
        0.0,
        0,
        [Trial(f"steps{most}", TRAINED["paper"](dim, most), pairs) for most in setting.ladder],
    )
    for seed in range(setting.seeds):
        for cell in setting.trained:
            name, _, transform = cell.partition("/")
            yield job(transform, 0.0, seed, trained(name, setting.trained_counts, dim, setting))
        for cell in setting.trained_noised:
            name, _, transform = cell.partition("/")
            trials = trained(name, setting.noised_counts, dim, setting, passes=_NOISED_PASSES)
            for std in setting.noise:
                yield job(transform, std, seed, trials)
    for seed in range(setting.seeds):
        for transform in setting.transforms:
            yield job(transform, 0.0, seed, closed(transform, setting.counts))
            for std in setting.noise:
                yield job(transform, std, seed, closed(transform, setting.noised_counts))


def closed(transform: str, counts: Sequence[int]) -> list[Trial]:
    """Return the closed forms that are for a transform, with each number of pairs."""
    return [
        Trial(f"{name}.n{count}", mapper, count)
        for name, (mapper, transforms) in CLOSED.items()
        if transform in transforms
        for count in counts
    ]


def trained(
    name: str, counts: Sequence[int], dim: int, setting: Setting, *, passes: int | None = None
) -> list[Trial]:
    """Return a trained mapper with each number of pairs.

    Args:
        name: of `TRAINED`.
        counts: numbers of pairs.
        dim: the encoder's width d, that of the middle layers.
        setting: caps the steps.
        passes: caps them too, if given.
    """
    caps = [
        setting.steps if passes is None else min(setting.steps, passes * -(-count // _BATCH))
        for count in counts
    ]
    return [
        Trial(f"{name}.n{count}", TRAINED[name](dim, cap), count)
        for count, cap in zip(counts, caps, strict=True)
    ]


def work(job: Job) -> dict[str, Remapped]:
    """Run one job; what worker processes call."""
    return remap(
        job.answers.load(),
        job.transform,
        job.trials,
        std=job.std,
        train=job.train,
        # Jobs that differ in mapper or noise only have the same accounts and inputs.
        rng=np.random.default_rng([job.root, job.seed]),
    )


# -- metrics -----------------------------------------------------------------------


def metrics(
    jobs: Sequence[Job], found: Sequence[Mapping[str, Remapped]], *, rng: np.random.Generator
) -> dict[str, Metric]:
    """Return means over seeds with their intervals.

    A defense is the better the less a map brings; what A's own view is worth to A is another
    matter, and better when high.
    """
    values: dict[tuple[str, str, Direction], dict[int, float]] = {}
    for job, some in zip(jobs, found, strict=True):
        for name, unit, direction, value in _figures(job, some):
            values.setdefault((name, unit, direction), {})[job.seed] = value
    return {
        name: Metric(
            float(np.mean(list(by_seed.values()))),
            unit,
            direction,
            mean_interval(list(by_seed.values()), rng=rng),
        )
        for (name, unit, direction), by_seed in values.items()
    }


def _figures(
    job: Job, found: Mapping[str, Remapped]
) -> Iterator[tuple[str, str, Direction, float]]:
    """Yield metric name, unit, direction and value."""
    noised, level = ("_noised", f".s{job.std:g}") if job.std else ("", "")
    maps = dict(found)
    own = maps.pop("reference")
    yield (
        f"accuracy{noised}.{job.transform}.reference{level}",
        "accuracy",
        "higher",
        own.accuracy,
    )
    for name, one in maps.items():
        row = f"{noised}.{job.transform}.{name}{level}"
        yield f"accuracy{row}", "accuracy", "lower", one.accuracy
        yield f"accuracy_drop{row}", "accuracy", "higher", own.accuracy - one.accuracy
        yield f"cosine_distance{row}", "cosine distance", "higher", one.distance


EXPERIMENT = Experiment(
    id="b4b-remap",
    title="accounts with transforms mapped onto each other from n shared queries",
    scales={
        "smoke": Setting(
            counts=(10, 100),
            trained_counts=(10, 100),
            noised_counts=(100,),
            steps=20,
            ladder=(10, 40),
            train=300,
            test=200,
            seeds=1,
            workers=1,
        ),
        "cpu": Setting(),
        "gpu": Setting(
            noised_counts=Setting().counts,
            trained=tuple(f"{name}/{transform}" for name in TRAINED for transform in TRANSFORMS),
            trained_noised=tuple(f"paper/{transform}" for transform in TRANSFORMS),
            steps=8000,
            ladder=(1000, 2000, 4000, 8000, 16_000, 40_000),
            train=10_000,
            test=10_000,
            workers=1,
        ),
    },
    measure=measure,
    promises=(
        "accuracy.*.reference",
        "accuracy.*.unmapped",
        "accuracy.*.paper.n*",
        "accuracy.*.ridge.n*",
        "accuracy_drop.*",
        "cosine_distance.*.paper.n*",
        "cosine_distance.*.ridge.n*",
        "accuracy_noised.*",
        "cosine_distance_noised.*",
    ),
)
