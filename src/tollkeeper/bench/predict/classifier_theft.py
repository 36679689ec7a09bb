"""Experiment `classifier-theft`: every attack on classifiers, by probabilities and by labels.

One victim without a defense. Attacks with a public pool ask letters (EMNIST), those that start
from seeds get honest images, data-free ones get nothing and a budget of their own. All copies are
small networks with one schedule, so columns compare what was asked and not how it was learned.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from tollkeeper.attacks import names
from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.classifier.copies import Conv3Copy
from tollkeeper.attacks.classifier.data_free import DataFree
from tollkeeper.attacks.classifier.jbda import Augmenting
from tollkeeper.attacks.classifier.knockoff import AdaptiveKnockoff
from tollkeeper.attacks.classifier.presets import for_two_cores
from tollkeeper.attacks.classifier.sybils import Rotating
from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.predict.metrics import accuracy, agreement, divergence
from tollkeeper.bench.predict.scene import Scene, Sizes, load_scene
from tollkeeper.bench.predict.victims import Training, train_victim
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload, shared
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier

OUTPUTS: Mapping[str, bool] = {"probabilities": False, "labels": True}
"""What the victim tells, to whether the copy learns labels only."""

DATA_FREE = ("dfme", "maze")
ALWAYS_LABELS = ("copycat",)
_ACCOUNTS = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """Who is asked how much.

    Attributes:
        dataset: of the victim.
        sizes: images of each part.
        training: of the victim.
        budgets: queries of each thief with pictures.
        data_free: queries of each thief without.
        width: of copies' first layer.
        epochs: of a copy's training.
        filters: of generators' first layer.
        seeds: runs of each thief against one victim.
        workers: processes.
    """

    dataset: str = "mnist"
    sizes: Sizes = field(default_factory=lambda: Sizes(7000, 4000, 0, 200, 0, 12_000, 0))
    training: Training = field(default_factory=Training)
    budgets: tuple[int, ...] = (1000,)
    data_free: int = 20_000
    width: int = 16
    epochs: int = 20
    filters: int = 32
    seeds: int = 2
    workers: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """What all jobs share.

    Attributes:
        scene: the images.
        victim: trained.
    """

    scene: Scene
    victim: TorchClassifier


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one attack.

    Attributes:
        stage: images and victim.
        setting: of the experiment.
        attack: as `attack list` calls it.
        output: of `OUTPUTS`.
        budget: queries.
        seed: number of the run.
        root: seed of the experiment.
    """

    stage: Payload[Stage]
    setting: Setting
    attack: str
    output: str
    budget: int
    seed: int
    root: int

    @property
    def name(self) -> str:
        """For progress, and of metrics."""
        return f"{self.setting.dataset}.{self.budget}.{self.output}.{self.attack}"


def measure(setting: Setting, context: Context) -> Measurement:
    """Train a victim, and run every attack in worker processes.

    Raises:
        ConfigurationError: a budget above the pool, or too few images.
        DataError: a data set is missing or damaged.
        BenchError: an attack failed.
    """
    data: dict[str, str] = {}
    context.progress(0, 1, "victim")
    rng = context.rng(0)
    scene = load_scene(setting.dataset, setting.sizes, rng=rng, data=data)
    victim = train_victim(scene, setting.training, rng=rng)
    samples = Samples()
    said = victim.embed(scene.honest)
    samples.add("accuracy.victim", accuracy(said, scene.honest_labels), "higher", "share")
    with shared(Stage(scene, victim)) as payload:
        jobs = _jobs(payload, setting, context.seed)
        results = run_jobs(run, jobs, workers=setting.workers, progress=context.progress)
    for job, found in zip(jobs, results, strict=True):
        for name, value in found.items():
            far = name == "copy_divergence"
            samples.add(
                f"{name}.{job.name}",
                value,
                "higher" if far else "lower",
                "nats" if far else "share",
            )
    return Measurement(samples.metrics(), data=data)


def _jobs(payload: Payload[Stage], setting: Setting, root: int) -> list[Job]:
    """Return the jobs, those that take longest first."""
    every = [
        Job(payload, setting, attack, output, budget, seed, root)
        for attack, output, seed in product(names.of("classifier"), OUTPUTS, range(setting.seeds))
        if not (attack in ALWAYS_LABELS and output != "labels")
        for budget in ((setting.data_free,) if attack in DATA_FREE else setting.budgets)
    ]
    return sorted(every, key=lambda job: -job.budget)


def run(job: Job) -> dict[str, float]:
    """Run one attack; in a worker."""
    stage = job.stage.load()
    scene, attack = stage.scene, _prepared(names.load(job.attack), job, stage.scene)
    inner = attack.inner if isinstance(attack, Rotating) else attack
    pool = scene.seeds if isinstance(inner, Augmenting) else scene.pool
    victim = Accounts([stage.victim] * _ACCOUNTS) if attack is not inner else stage.victim
    # The same draws for all attacks and outputs, so that random policies ask the same pictures.
    rng = np.random.default_rng([job.root, 1, job.seed])
    stolen = attack(victim, pool, budget=job.budget, rng=rng, clock=time.perf_counter)
    said, wanted = stolen.surrogate.embed(scene.honest), stage.victim.embed(scene.honest)
    return {
        "copy_accuracy": accuracy(said, scene.honest_labels),
        "copy_agreement": agreement(said, wanted),
        "copy_divergence": divergence(wanted, said),
    }


def _prepared(attack: Any, job: Job, scene: Scene) -> Any:
    """Return an attack with a small copy, one schedule and what it may read of answers."""
    if isinstance(attack, Rotating):
        return replace(attack, inner=_prepared(attack.inner, job, scene))
    setting = job.setting
    small = for_two_cores(attack, epochs=setting.epochs, network=Conv3Copy(setting.width))
    changes: dict[str, Any] = {"labels_only": OUTPUTS[job.output]}
    if isinstance(attack, AdaptiveKnockoff):
        changes["labels"] = scene.pool_labels
    if isinstance(attack, Augmenting):
        changes["seeds"] = min(attack.seeds, len(scene.seeds))
    if isinstance(attack, DataFree):
        changes["filters"] = setting.filters
    return replace(small, **changes)


EXPERIMENT = Experiment(
    id="classifier-theft",
    title="what copies of a classifier are worth: every attack, by probabilities and by labels",
    scales={
        "smoke": Setting(
            sizes=Sizes(300, 100, 0, 20, 0, 200, 0),
            training=Training(width=4, epochs=2),
            budgets=(60,),
            data_free=4000,
            width=4,
            epochs=2,
            filters=4,
            workers=1,
        ),
        "cpu": Setting(),
    },
    measure=measure,
    promises=("accuracy.victim", "copy_accuracy.*", "copy_agreement.*", "copy_divergence.*"),
    attacks={name: f"copy_accuracy.mnist.*.labels.{name}" for name in names.of("classifier")},
)
