"""Variants of theft side by side: the part that several experiments share.

All variants ask the same victim the same number of queries and train the same network on as
many examples; with equal seeds they also choose the same inputs and start from the same weights,
so what is left between two of them is the method. Two attacks that ask nothing are the floors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from tollkeeper.attacks.asking import remaining, take
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.networks.convnet import ConvNet
from tollkeeper.attacks.networks.ngram import NGram
from tollkeeper.attacks.networks.resnet import ResNet
from tollkeeper.attacks.surrogate import NetworkFactory
from tollkeeper.bench.experiment import Context, Measurement, Metric
from tollkeeper.bench.theft.curve import Point
from tollkeeper.bench.theft.floors import self_trained, untrained
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.bench.theft.perturb import Perturbation, Perturbed
from tollkeeper.bench.theft.scoring import score
from tollkeeper.bench.theft.stage import Outcome, Scene, Stage, opened, staged, steal
from tollkeeper.encoders.base import Encoder
from tollkeeper.lab.fit import Adam, Schedule
from tollkeeper.lab.progress import Progress
from tollkeeper.types import Batch

NETWORKS: Mapping[str, NetworkFactory] = {
    "convnet": ConvNet(width=8, side=32),
    "convnet16": ConvNet(width=16, side=32),
    "resnet18": ResNet(depth=18),
    "resnet34": ResNet(depth=34),
    "ngram": NGram(),
}
"""Architectures of surrogates by name; `ngram` reads text, the others images. In equal time the
narrow `convnet` sees twice the examples of `convnet16` and copies better, over about 15 seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Scene):
    """A scene and what every variant gets on it; settings of experiments hold these fields.

    Attributes:
        budget: distinct queries.
        seeds: runs of each variant.
        network: the surrogate, a key of `NETWORKS`.
        examples: rows that go through the surrogate in training, counted anew in every epoch;
            0 leaves each attack the schedule of its paper.
        batch: inputs per step.
        rate: learning rate of Adam, for variants that have none of their own.
        workers: processes.
    """

    budget: int = 4000
    seeds: int = 3
    network: Literal["convnet", "convnet16", "resnet18", "resnet34", "ngram"] = "convnet"
    examples: int = 32_000
    batch: int = 64
    rate: float = 3e-3
    workers: int = 2


SMOKE = Trial(
    pool_size=200, tasks=("cifar10",), train=100, test=100, budget=100, seeds=1, examples=100
)
CPU = Trial(tasks=("cifar10", "gtsrb", "fashion_mnist"), train=2000)
GPU = Trial(train=10_000, budget=10_000, seeds=5, network="resnet34", examples=0, workers=1)
"""What experiments start their scales from."""


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """One way to steal.

    Attributes:
        name: as in the metrics.
        attack: with the constants of its paper; network and schedule are the trial's. None is
            an honest user, who keeps asking the victim itself.
        copies: rows that one input becomes in a training step.
        rate: learning rate, where the trial's does not suit the objective.
        perturbation: what the victim does to its answers; None answers cleanly.
    """

    name: str
    attack: Attack | None
    copies: int = 1
    rate: float | None = None
    perturbation: Perturbation | None = None


Make = Callable[[Trial, Stage], Sequence[Variant]]
"""Makes the variants of a trial on a stage; a function that a worker process can import."""


# -- the floors --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Untrained(Attack):
    """Asks nothing and learns nothing.

    Attributes:
        network: architecture.
        schedule: not used.
    """

    network: NetworkFactory = field(default_factory=ResNet)
    schedule: Schedule = field(default_factory=Schedule)

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Return the network with the weights that it starts with."""
        del queries, progress
        return untrained(self.network, victim.dim, rng=rng)


@dataclass(frozen=True, kw_only=True)
class SelfTrained(Attack):
    """Asks nothing and trains on the images that a thief with this budget asks about.

    Attributes:
        network: architecture.
        schedule: of the training.
    """

    network: NetworkFactory = field(default_factory=ResNet)
    schedule: Schedule = field(default_factory=Schedule)

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Return a network that was trained by SimCLR."""
        choosing, training = rng.spawn(2)
        images = take(queries, choosing.permutation(len(queries))[: remaining(victim)])
        return self_trained(
            images,
            self.network,
            victim.dim,
            schedule=self.schedule,
            rng=training,
            progress=progress,
        )


_FLOORS = ("floor_untrained", "floor_ssl")


def defended(
    variants: Sequence[Variant], defenses: Mapping[str, Perturbation]
) -> Iterator[Variant]:
    """Yield variants as they are and behind every defense, and an honest user behind each."""
    yield from variants
    for name, perturbation in defenses.items():
        for one in (Variant("honest", None), *variants):
            yield replace(one, name=f"{one.name}_{name}", perturbation=perturbation)


def lineup(trial: Trial, stage: Stage, make: Make) -> dict[str, Variant]:
    """Return floors and variants by name; text has no views to train itself on."""
    floors = [Variant(_FLOORS[0], Untrained())]
    if isinstance(stage.pool.inputs, np.ndarray):
        floors.append(Variant(_FLOORS[1], SelfTrained()))
    return {variant.name: variant for variant in (*floors, *make(trial, stage))}


# -- one job -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """One variant with one seed.

    Attributes:
        variant: its name.
        seed: equal seeds choose equal inputs and start from equal weights.
        root: seed of the run.
        trial: what every variant gets.
        make: makes the variants.
        stage: victim, pool and tasks.
    """

    variant: str
    seed: int
    root: int
    trial: Trial
    make: Make
    stage: Payload[Stage]

    @property
    def name(self) -> str:
        """One line."""
        return f"{self.variant}, seed {self.seed}"

    def rng(self, part: int) -> np.random.Generator:
        """Return the generator of one part of the job."""
        return np.random.default_rng([self.root, self.seed, part])


def work(job: Job) -> Outcome:
    """Run one job; what worker processes call."""
    stage, encoder = opened(job.stage)
    variant = lineup(job.trial, stage, job.make)[job.variant]
    victim: Encoder = encoder
    if variant.perturbation is not None:
        victim = Perturbed(encoder, variant.perturbation, rng=job.rng(1))
    if variant.attack is None:
        return Outcome(score(victim, stage.references).named())
    attack = ready(variant.attack, variant, job.trial)
    return steal(attack, victim, stage, budget=job.trial.budget, rng=job.rng(0))


def ready(attack: Attack, variant: Variant, trial: Trial) -> Attack:
    """Return a variant's attack with the network and the schedule of a trial."""
    changes: dict[str, object] = {"network": NETWORKS[trial.network]}
    if trial.examples:
        inputs = trial.budget // attack.asks_per_input
        changes["schedule"] = Schedule(
            epochs=max(1, round(trial.examples / (inputs * variant.copies))),
            batch=trial.batch,
            rate=variant.rate or trial.rate,
            optimizer=Adam(),
        )
    return replace(attack, **changes)  # type: ignore[type-var]  # attacks are dataclasses


# -- all of them -------------------------------------------------------------------


def measure_variants(
    trial: Trial, context: Context, make: Make, *, also: Sequence[str] = ()
) -> Measurement:
    """Run every variant and both floors with every seed, in worker processes.

    Metrics are `relative_accuracy.<variant>.<task>`, the surrogate's accuracy over the victim's,
    and for variants that ask, `recall10.<variant>` and `centered_cosine.<variant>`.

    Args:
        trial: what every variant gets.
        context: randomness and progress.
        make: makes the variants.
        also: families of scores by task, such as `agreement`, that become metrics too.

    Raises:
        ConfigurationError: an unknown task, or a budget that does not fit the pool.
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    data: dict[str, str] = {}
    with staged(trial, context, data) as (stage, payload):
        names = lineup(trial, stage, make)
        outcomes = run_variants(trial, context, make, names, payload)
    return Measurement(
        summarize(outcomes, trial, stage.victim.accuracy, also=also, rng=context.rng(99)),
        diagnostics={
            "victim": stage.victim.named(),
            "not_above_floors": not_above_floors(outcomes, trial.tasks),
            "variants": {name: _described(some) for name, some in outcomes.items()},
        },
        hardware={"workers": trial.workers, "threads_per_worker": 1},
        data=data,
    )


Outcomes = Mapping[str, Sequence[Outcome]]
"""The runs of each variant by its name, in the order of seeds."""


def run_variants(
    trial: Trial, context: Context, make: Make, names: Iterable[str], stage: Payload[Stage]
) -> Outcomes:
    """Run the variants of these names with every seed; seeds are the outer loop."""
    jobs = [
        Job(name, seed, context.seed, trial, make, stage)
        for seed in range(trial.seeds)
        for name in names
    ]
    outcomes: dict[str, list[Outcome]] = {}
    found = run_jobs(work, jobs, workers=trial.workers, progress=context.progress)
    for job, one in zip(jobs, found, strict=True):
        outcomes.setdefault(job.variant, []).append(one)
    return outcomes


def summarize(
    outcomes: Outcomes,
    trial: Trial,
    victim: Mapping[str, float],
    *,
    also: Sequence[str] = (),
    rng: np.random.Generator,
) -> dict[str, Metric]:
    """Turn runs into metrics.

    Args:
        outcomes: of every variant and floor.
        trial: what they ran on.
        victim: accuracy of the victim by task.
        also: further families of scores by task.
        rng: draws the bootstrap.
    """
    metrics: dict[str, Metric] = {}

    def add(name: str, unit: str, values: Sequence[float]) -> None:
        point = Point(trial.budget, tuple(values))
        metrics[name] = point.metric(unit, "higher", rng=rng)

    for name, some in outcomes.items():
        for task in trial.tasks:
            gained = [one.scores[f"accuracy.{task}"] / victim[task] for one in some]
            add(f"relative_accuracy.{name}.{task}", "ratio", gained)
            for family in also:
                shares = [one.scores[f"{family}.{task}"] for one in some]
                add(f"{family}.{name}.{task}", "share", shares)
        if name not in _FLOORS:
            for family, unit in (("recall10", "share"), ("centered_cosine", "cosine")):
                add(f"{family}.{name}", unit, [one.scores[family] for one in some])
    return metrics


def not_above_floors(
    outcomes: Outcomes, tasks: Sequence[str], *, floors: Sequence[str] = _FLOORS
) -> dict[str, list[str]]:
    """Return the variants whose mean accuracy is not above every floor's, with the tasks."""
    floors = [name for name in floors if name in outcomes]
    means = {name: mean_scores(some) for name, some in outcomes.items()}
    found: dict[str, list[str]] = {}
    for name, scores in means.items():
        below = [
            task
            for task in (() if name in floors else tasks)
            if scores[f"accuracy.{task}"]
            <= max(means[floor][f"accuracy.{task}"] for floor in floors)
        ]
        if below:
            found[name] = below
    return found


def mean_scores(some: Sequence[Outcome]) -> dict[str, float]:
    """Return the mean over runs of every score."""
    return {name: float(np.mean([one.scores[name] for one in some])) for name in some[0].scores}


def _described(some: Sequence[Outcome]) -> dict[str, object]:
    """Return what the runs of one variant cost, and their mean scores."""
    return {
        "queries": some[0].queries,
        "repeats": some[0].repeats,
        "calls": some[0].calls,
        "seconds": [round(one.seconds, 1) for one in some],
        "asking_s": [round(one.asking_s, 1) for one in some],
        "partial": sorted({one.partial for one in some} - {""}),
        "scores": {name: round(value, 4) for name, value in mean_scores(some).items()},
    }
