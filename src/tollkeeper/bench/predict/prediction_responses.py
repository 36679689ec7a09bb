"""Experiment `prediction-responses`: what changing answers costs thieves, and what honest users.

A digit classifier answers through each response. Honest users ask digits; what they get is
compared with the plain answers. Knockoff asks letters and trains a copy on what it gets: as it is,
and by each countermeasure that fits the response. Adaptive misinformation is measured before the
plain victim too, though its paper trains the victim with outlier exposure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from tollkeeper.attacks.classifier.copies import Conv3Copy, probabilities
from tollkeeper.attacks.classifier.knockoff import Knockoff
from tollkeeper.bench.experiment import Context, Direction, Experiment, Measurement
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.predict.countermeasures import COUNTERMEASURES, Thief, Trainer
from tollkeeper.bench.predict.metrics import accuracy, agreement
from tollkeeper.bench.predict.responding import Responding
from tollkeeper.bench.predict.scene import Scene, Sizes, load_scene
from tollkeeper.bench.predict.victims import Training, train_victim
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload, shared
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.errors import ConfigurationError
from tollkeeper.graphs import Graph
from tollkeeper.lab.conv3 import Conv3, conv3
from tollkeeper.lab.fit import SGD, Schedule
from tollkeeper.lab.torching import device
from tollkeeper.responses.base import Perturbation
from tollkeeper.responses.chain import Chain
from tollkeeper.responses.lab.mad import random_surrogate
from tollkeeper.responses.lab.misinformation import fit_exposed, fit_misinformer
from tollkeeper.responses.mad import MaximizingAngularDeviation
from tollkeeper.responses.misinformation import AdaptiveMisinformation
from tollkeeper.responses.outputs import KeyedLogitNoise, KeyedNoise, ReverseSigmoid, Rounded, TopK
from tollkeeper.types import Probabilities

_GUESSES = 8
"""Surrogates that a thief of MAD draws for itself."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Who is asked how much, and how far answers move.

    Attributes:
        dataset: of the victim.
        train: images of the victim.
        honest: images that honest users ask; copies are scored on them.
        pool: the thief's images.
        outside: images against which misinformation is fitted.
        budget: queries of each thief.
        width: of victims' and copies' first layer.
        victim_epochs: of a victim's training.
        copy_epochs: of a copy's.
        noise: standard deviation of keyed noise.
        logit_noise: radius of keyed noise in logits.
        mad: distance of MAD with any label.
        mad_argmax: distance of MAD that keeps the label.
        unsure: share of honest answers that misinformation may touch.
        seeds: victims, with everybody who asks each.
        workers: processes.
    """

    dataset: str = "mnist"
    train: int = 7000
    honest: int = 2000
    pool: int = 6000
    outside: int = 4000
    budget: int = 2000
    width: int = 16
    victim_epochs: int = 8
    copy_epochs: int = 20
    noise: float = 0.2
    logit_noise: float = 2.0
    mad: float = 0.8
    mad_argmax: float = 1.0
    unsure: float = 0.02
    seeds: int = 2
    workers: int = 2

    def check(self) -> None:
        """Refuse budgets above the pool.

        Raises:
            ConfigurationError: names what is expected.
        """
        if not 100 <= self.budget <= self.pool:
            raise ConfigurationError(
                f"expected a budget of 100 to {self.pool} pool images, got {self.budget}"
            )

    @property
    def sizes(self) -> Sizes:
        """Images of each part; honest ones held out are as many as those asked."""
        return Sizes(self.train, self.honest, self.honest, 0, 0, self.pool, self.outside)


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """A victim behind a response, and what thieves do about it.

    Attributes:
        name: for metrics.
        victim: whose answers change.
        response: what changes them.
        guesses: what a thief takes it for.
        ways: names of countermeasures beside believing.
    """

    name: str
    victim: Classifier
    response: Perturbation
    guesses: tuple[Perturbation, ...]
    ways: tuple[str, ...] = ("labels",)


@dataclass(frozen=True, slots=True)
class Job:
    """One victim and everybody who asks it.

    Attributes:
        scene: the images.
        setting: of the experiment.
        seed: number of the victim.
        root: seed of the run.
    """

    scene: Payload[Scene]
    setting: Setting
    seed: int
    root: int

    @property
    def name(self) -> str:
        """For progress."""
        return f"victim {self.seed + 1}"


@dataclass(frozen=True, slots=True)
class Found:
    """What one victim's users gave.

    Attributes:
        rows: (metric, value).
        facts: that only inform.
    """

    rows: list[tuple[str, float]] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


def measure(setting: Setting, context: Context) -> Measurement:
    """Measure each victim in a worker process.

    Raises:
        ConfigurationError: a budget above the pool, or too few images.
        DataError: a data set is missing or damaged.
        BenchError: a victim's job failed.
    """
    setting.check()
    context.progress(0, setting.seeds, "images")
    data: dict[str, str] = {}
    scene = load_scene(setting.dataset, setting.sizes, rng=context.rng(0), data=data)
    with shared(scene) as payload:
        jobs = [Job(payload, setting, seed, context.seed) for seed in range(setting.seeds)]
        results = run_jobs(run, jobs, workers=setting.workers, progress=context.progress)
    samples = Samples()
    for found in results:
        for name, value in found.rows:
            samples.add(name, value, *_kind(name))
    facts = {"victims": [found.facts for found in results]}
    return Measurement(samples.metrics(), diagnostics=facts, data=data)


def _kind(name: str) -> tuple[Direction, str]:
    """Return which way a metric gets better, and its unit."""
    if name.endswith("l1_distance"):
        return "lower", "distance"
    return ("higher" if name.startswith("honest") else "lower"), "share"


def run(job: Job) -> Found:
    """Deploy one victim behind each response in turn; runs in a worker."""
    scene, setting = job.scene.load(), job.setting
    rng = np.random.default_rng([job.root, 1, job.seed])
    attack = Knockoff(
        network=Conv3Copy(setting.width),
        schedule=Schedule(epochs=setting.copy_epochs, batch=64, rate=0.05, optimizer=SGD()),
    )
    trainer = Trainer(attack, setting.budget, int(rng.integers(2**63)))
    asking, key = int(rng.integers(2**63)), rng.bytes(32)
    found = Found()
    for deployed in _deployments(scene, setting, found.facts, rng):
        door = Responding(deployed.victim, deployed.response, key=key)
        plain, seen = deployed.victim.embed(scene.honest), door.embed(scene.honest)
        name = deployed.name
        found.rows.extend(_honest(name, plain, seen, scene))
        thief = Thief(scene.pool, setting.budget, trainer, deployed.guesses)
        for way in ("believed", *deployed.ways):
            # The same draws for all, so that they ask the same pictures in the same order.
            loot = COUNTERMEASURES[way](door, thief, rng=np.random.default_rng(asking))
            copied = probabilities(trainer(loot), scene.honest)
            right, same = accuracy(copied, scene.honest_labels), agreement(copied, plain)
            found.rows.append((f"copy_accuracy.{name}.{way}", right))
            found.rows.append((f"copy_agreement.{name}.{way}", same))
    return found


def _honest(
    name: str, plain: Probabilities, seen: Probabilities, scene: Scene
) -> Iterator[tuple[str, float]]:
    """Yield what honest users lose."""
    yield f"honest.{name}.accuracy", accuracy(seen, scene.honest_labels)
    yield f"honest.{name}.label_kept", agreement(seen, plain)
    yield f"honest.{name}.l1_distance", float(np.abs(seen - plain).sum(axis=1).mean())


def _deployments(
    scene: Scene, setting: Setting, facts: dict[str, float], rng: np.random.Generator
) -> Iterator[Deployment]:
    """Yield each response before its victim."""
    training = Training(width=setting.width, epochs=setting.victim_epochs)
    victim = train_victim(scene, training, rng=rng)
    exposed = _exposed(scene, setting, rng)
    surrogates = [_surrogate(scene, setting, rng) for _ in range(1 + _GUESSES)]
    alike = partial(_alike, victim)
    misinforming = partial(_misinforming, scene=scene, setting=setting, facts=facts, rng=rng)
    yield alike("none", Chain(), ways=("labels", "averaged"))
    yield alike("top-1", Rounded(0), ways=())
    yield alike("top-3", TopK(3), ways=("labels", "inverted"))
    yield alike("rounded-1", Rounded(1), ways=("labels", "inverted"))
    averaging = ("labels", "averaged", "inverted")
    yield alike("noise", KeyedNoise(setting.noise), ways=averaging)
    yield alike("logit-noise", KeyedLogitNoise(setting.logit_noise), ways=averaging)
    yield alike("reverse-sigmoid", ReverseSigmoid(), ways=("labels", "inverted"))
    for name, distance in (("mad", setting.mad), ("mad-argmax", setting.mad_argmax)):
        mine, *thiefs = (
            MaximizingAngularDeviation(one, distance=distance, keep_label=name == "mad-argmax")
            for one in surrogates
        )
        yield Deployment(name, victim, mine, tuple(thiefs), ways=("labels", "inverted"))
    yield misinforming("misinformation", victim=victim)
    yield _alike(exposed, "exposed", Chain())
    yield misinforming("misinformation-exposed", victim=exposed)


def _alike(
    victim: Classifier, name: str, response: Perturbation, *, ways: tuple[str, ...] = ("labels",)
) -> Deployment:
    """Return a deployment whose thief knows all of the response but its key."""
    return Deployment(name, victim, response, (response,), ways)


def _surrogate(scene: Scene, setting: Setting, rng: np.random.Generator) -> Graph:
    made = random_surrogate(scene.shape, len(scene.classes), rng, width=setting.width)
    return Graph(made, name="surrogate")


def _misinforming(
    name: str,
    *,
    victim: Classifier,
    scene: Scene,
    setting: Setting,
    facts: dict[str, float],
    rng: np.random.Generator,
) -> Deployment:
    """Return adaptive misinformation that honest users meet as often as the setting says."""
    made = fit_misinformer(
        _network(scene, setting, rng),
        scene.train,
        scene.train_labels,
        outliers=scene.outside,
        answers=victim.embed(scene.outside),
        rng=rng,
    )
    surest = victim.embed(scene.calibration).max(axis=1)
    threshold = float(np.quantile(surest, setting.unsure))
    facts[f"threshold.{name}"] = threshold
    response = AdaptiveMisinformation(Graph(made, name="misinformer"), threshold=threshold)
    return Deployment(name, victim, response, (response,), ways=("labels", "discarded"))


def _exposed(scene: Scene, setting: Setting, rng: np.random.Generator) -> Classifier:
    """Return a victim trained to be unsure of what its users do not ask."""
    network = _network(scene, setting, rng)
    schedule = Schedule(
        epochs=setting.victim_epochs, batch=128, rate=0.05, optimizer=SGD(weight_decay=5e-4)
    )
    fit_exposed(network, scene.train, scene.train_labels, scene.outside, schedule=schedule, rng=rng)
    return TorchClassifier(network, input_shape=scene.shape, classes=scene.classes, name="exposed")


def _network(scene: Scene, setting: Setting, rng: np.random.Generator) -> Conv3:
    made = conv3(scene.shape, len(scene.classes), rng, width=setting.width)
    made.to(device())
    return made


_CPU = Setting()

EXPERIMENT = Experiment(
    id="prediction-responses",
    title="responses that change answers: what copies and honest users are left with",
    scales={
        "smoke": replace(
            _CPU,
            train=600,
            honest=200,
            pool=300,
            outside=200,
            budget=200,
            width=4,
            victim_epochs=2,
            copy_epochs=2,
            seeds=1,
            workers=1,
        ),
        "cpu": _CPU,
    },
    measure=measure,
    promises=(
        "copy_accuracy.*.believed",
        "copy_accuracy.*.labels",
        "copy_accuracy.noise.averaged",
        "copy_accuracy.*.inverted",
        "copy_accuracy.*.discarded",
        "honest.*.accuracy",
        "honest.*.label_kept",
        "honest.*.l1_distance",
    ),
    attacks={"knockoff": "copy_accuracy.none.believed"},
)
