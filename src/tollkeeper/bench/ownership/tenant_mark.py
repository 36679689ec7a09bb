"""Experiment `tenant-mark`: which tenant leaked, told from a copy, and what the mark costs.

Every tenant of a guarded encoder is marked. Some leak: copies are made of their answers, by
several attacks and budgets, alone or averaged by several tenants together, and changed before
they are looked at. Every copy is traced among all tenants; so are encoders that never met the
service. Naming a tenant who had no part in a copy is a false attribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from tollkeeper.audit.attribution import Attribution, TenantEvidence, trace_all
from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.ownership.keyed_views import tenant_evidence
from tollkeeper.bench.ownership.leaking import (
    DEFENSES,
    QUIET,
    Deployment,
    Truncation,
    copy_of,
)
from tollkeeper.bench.ownership.obfuscations import OUTPUTS, Fit, Obfuscated
from tollkeeper.bench.ownership.rates import clustered, share
from tollkeeper.bench.ownership.scene import Sizes, load_scene
from tollkeeper.bench.ownership.simclr import Recipe, train_simclr
from tollkeeper.bench.ownership.thieves import Means
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload, shared
from tollkeeper.bench.theft.probes import linear_probe
from tollkeeper.bench.theft.scoring import agreement, recall_at_10
from tollkeeper.bench.theft.tasks import Task, load_task
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.load import load_encoder
from tollkeeper.gateway.calibrations import calibration_for
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard

TASKS: Final[Mapping[str, tuple[str, str]]] = {
    "image": ("builtin:image", "cifar10"),
    "text": ("builtin:text", "ag_news"),
}
"""Encoders beside the scene's own that the mark's cost is measured on, with a task of each."""

CHANGES: Final[Mapping[str, Fit]] = {
    **{name: OUTPUTS[name] for name in ("none", "shuffle", "affine", "noise_0.1", "drop_half")},
    "truncated_0.99": Truncation(0.99),
}
"""What is done to a copy's answers before it is looked at."""

_CUSTOMERS = 3
_CALIBRATED = 512


@dataclass(frozen=True, slots=True)
class Setting:
    """Who leaks, and how.

    Attributes:
        sizes: images of each part.
        recipe: of the victim and of strangers.
        tenants: of the service, all marked.
        leaks: tenants of whose answers each kind of copy is made, one after the other.
        attacks: of thieves, below the knee at the middle budget.
        budgets: of copies by the first attack, below the knee.
        above: of copies by the first attack, above the knee.
        together: how many tenants average their answers; by the first attack, middle budget.
        epochs: of copies.
        strangers: encoders of the same distribution that never met the service.
        decoys: keys that were never issued.
        alpha: chance of naming an innocent tenant that the trace allows.
        encoders: of `TASKS`, whose customers' costs are measured too.
        rows: inputs of each task to fit a probe on, and to test and to search.
        workers: processes.
    """

    sizes: Sizes = field(default_factory=lambda: Sizes(claims=1, references=1, other=16))
    recipe: Recipe = field(default_factory=Recipe)
    tenants: int = 8
    leaks: int = 3
    attacks: tuple[str, ...] = ("mse", "infonce", "cont_steal")
    budgets: tuple[int, ...] = (500, 2000, 8000)
    above: tuple[int, ...] = (2000, 8000)
    together: tuple[int, ...] = (2, 4)
    epochs: int = 50
    strangers: int = 8
    decoys: int = 2399
    alpha: float = 0.01
    encoders: tuple[str, ...] = ("image", "text")
    rows: int = 2000
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One suspect.

    Attributes:
        stage: the service and its images.
        setting: of the experiment.
        group: what kind it is, for metrics; empty for a stranger.
        defense: of `DEFENSES`.
        attack: of a copy.
        tenants: whose answers it is made of; none of a stranger's.
        budget: queries of each.
        number: tells draws apart.
        root: seed of the run.
        probed: whether to say what changes cost the thief downstream.
    """

    stage: Payload[Deployment]
    setting: Setting
    group: str
    defense: str
    attack: str
    tenants: tuple[str, ...]
    budget: int
    number: int
    root: int
    probed: bool = False

    @property
    def name(self) -> str:
        """For progress."""
        return self.group or f"stranger {self.number}"


@dataclass(frozen=True, slots=True, eq=False)
class Suspect:
    """What a job made, and what it shows.

    Attributes:
        traces: change to what a trace finds.
        accuracy: change to the thief's accuracy downstream.
    """

    traces: Mapping[str, Attribution]
    accuracy: Mapping[str, float]


def measure(setting: Setting, context: Context) -> Measurement:
    """Make every suspect, trace it, and look at what the mark costs.

    Raises:
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    data: dict[str, str] = {}
    context.progress(0, 1, "victim")
    deployment = _deployed(setting, context, data)
    with shared(deployment) as stage:
        jobs = list(_jobs(stage, setting, context.seed))
        made = run_jobs(run, jobs, workers=setting.workers, progress=context.progress)
    samples = Samples()
    for job, one in zip(jobs, made, strict=True):
        for change, value in one.accuracy.items():
            samples.add(f"thief_accuracy.{change}", value, "lower")
        for name, z in _clear(job, one.traces["affine"]).items():
            samples.add(f"{name}_z.{job.group}", z, "higher", "deviations")
    for name, guard, task in _customers(deployment, setting, context, data):
        _add_costs(samples, name, guard, task)
    found = [one.traces for one in made]
    return Measurement({**_rates(jobs, found), **samples.metrics()}, data=data)


def _deployed(setting: Setting, context: Context, data: dict[str, str]) -> Deployment:
    scene = load_scene(setting.sizes, rng=context.rng(0), data=data)
    images = scene.claims[0].private.images
    victim = train_simclr(images, setting.recipe, rng=context.rng(1))
    sample = victim.embed(scene.references[0].images[:_CALIBRATED])
    rng = context.rng(2)
    return Deployment(scene, victim, Calibration.fit(sample, rng=rng), rng.bytes(32))


def _jobs(stage: Payload[Deployment], setting: Setting, root: int) -> Iterator[Job]:
    """Yield the jobs, those that take longest first."""
    first, middle = setting.attacks[0], setting.budgets[len(setting.budgets) // 2]
    kinds = [("below", first, 1, budget) for budget in setting.budgets]
    kinds += [("above", first, 1, budget) for budget in setting.above]
    kinds += [("below", attack, 1, middle) for attack in setting.attacks[1:]]
    kinds += [(way, first, count, middle) for count in setting.together for way in DEFENSES]
    for defense, attack, count, budget in sorted(kinds, key=lambda kind: -kind[3]):
        group = f"{defense}.{attack}{f'_of_{count}' if count > 1 else ''}.b{budget}"
        for leak in range(setting.leaks):
            tenants = tuple(_tenant((leak + i) % setting.tenants) for i in range(count))
            probed = (defense, attack, count, budget, leak) == ("below", first, 1, middle, 0)
            yield Job(stage, setting, group, defense, attack, tenants, budget, leak, root, probed)
    for number in range(setting.strangers):
        yield Job(stage, setting, "", "", "", (), 0, number, root)


def _tenant(number: int) -> str:
    return f"tenant-{number}"


def run(job: Job) -> Suspect:
    """Make one suspect; in a worker."""
    deployment, setting = job.stage.load(), job.setting
    scene = deployment.scene
    path = [3, job.budget, len(job.tenants), len(job.defense), len(job.attack), job.number]
    rng = np.random.default_rng([job.root, *path])
    suspect = _made(job, deployment, rng)
    seen = suspect.embed(scene.pool.images[: setting.rows])
    suspects, accuracy = [], {}
    for name, fit in CHANGES.items():
        change = fit(seen, rng)
        changed = Obfuscated(suspect, change, change(seen[:2]).shape[1])
        suspects.append(changed)
        if job.probed:
            accuracy[name] = _probe(changed, deployment)
    found = trace_all(suspects, _evidence(deployment, setting))
    return Suspect(dict(zip(CHANGES, found, strict=True)), accuracy)


def _made(job: Job, deployment: Deployment, rng: np.random.Generator) -> Encoder:
    """Return a copy of what its tenants were answered, or a stranger."""
    if not job.tenants:
        images = deployment.scene.world_block(job.number).images
        return train_simclr(images, job.setting.recipe, rng=rng)
    return copy_of(
        deployment,
        job.tenants,
        job.attack,
        defense=job.defense,
        budget=job.budget,
        means=Means(epochs=job.setting.epochs),
        rng=rng,
    )


def _probe(encoder: Encoder, deployment: Deployment) -> float:
    train, test = deployment.scene.probe_train, deployment.scene.probe_test
    predicted = linear_probe(encoder.embed(train.images), train.labels, encoder.embed(test.images))
    return agreement(predicted, test.labels)


def _evidence(deployment: Deployment, setting: Setting) -> TenantEvidence:
    names = [_tenant(number) for number in range(setting.tenants)]
    images = deployment.scene.public.images
    return tenant_evidence(
        deployment.guard(),
        names,
        images,
        deployment.victim.embed(images),
        marked=names,
        decoys=setting.decoys,
        alpha=setting.alpha,
    )


def _rates(jobs: Sequence[Job], found: Sequence[Mapping[str, Attribution]]) -> dict[str, Metric]:
    """Return how often tenants are named, rightly, wrongly, and without the mark."""
    right: dict[str, list[bool]] = {}
    wrong: dict[str, list[int]] = {"copies": [], "strangers": []}
    for job, traces in zip(jobs, found, strict=True):
        for change, one in traces.items():
            if job.tenants:
                name = f"{job.group}.{change}"
                named, bare = set(one.named), _by_coordinates(one)
                innocent = named - set(job.tenants)
                right.setdefault(f"attributed.{name}", []).append(bool(named) and not innocent)
                right.setdefault(f"unmarked.{name}", []).append(
                    bool(bare) and bare <= set(job.tenants)
                )
        hits = sum(bool(set(one.named) - set(job.tenants)) for one in traces.values())
        wrong["copies" if job.tenants else "strangers"].append(hits)
    rates = {name: share(flags, "higher") for name, flags in right.items()}
    for name, counts in wrong.items():
        if counts:
            rates[f"false_attribution_rate.{name}"] = clustered(counts, len(found[0]), "lower")
    return rates


def _by_coordinates(found: Attribution) -> set[str]:
    """Return whom a trace names that knows of no mark."""
    some = [one for one in found.findings if one.statistic == "coordinates"]
    return {one.tenant for one in some if one.p_value * len(some) <= found.alpha}


def _clear(job: Job, found: Attribution) -> dict[str, float]:
    """Return how far the marks of a copy's own tenants stand out, the least of them."""
    own = [one for one in found.findings if one.tenant in job.tenants]
    names = dict.fromkeys(one.statistic for one in own if one.statistic != "coordinates")
    return {name: min(one.z for one in own if one.statistic == name) for name in names}


def _customers(
    deployment: Deployment, setting: Setting, context: Context, data: dict[str, str]
) -> Iterator[tuple[str, Guard, tuple[Encoder, Task]]]:
    """Yield encoders whose customers have a task, by name."""
    scene = deployment.scene
    own = Task(
        "scene",
        scene.probe_train.images,
        scene.probe_train.labels,
        scene.probe_test.images,
        scene.probe_test.labels,
    )
    yield "scene", deployment.guard(), (deployment.victim, own)
    for number, name in enumerate(setting.encoders):
        spec, task = TASKS[name]
        encoder, rng = load_encoder(spec), context.rng(4, number)
        loaded = load_task(task, train=setting.rows, test=setting.rows, rng=rng, data=data)
        calibration = calibration_for(spec, encoder.dim, given=None, required=True)
        yield name, Guard(QUIET, calibration, secret=deployment.secret), (encoder, loaded)


def _add_costs(samples: Samples, name: str, guard: Guard, of: tuple[Encoder, Task]) -> None:
    """Compare marked with unmarked answers of a few tenants, as a customer does."""
    encoder, task = of
    train, test = encoder.embed(task.train_inputs), encoder.embed(task.test_inputs)
    for number in range(_CUSTOMERS):
        key = guard.tenant_key(_tenant(number))
        scores = []
        for marked in (False, True):
            fit = guard.view(train, key=key, marked=marked)
            held = guard.view(test, key=key, marked=marked)
            scores.append(agreement(linear_probe(fit, task.train_labels, held), task.test_labels))
        samples.add(f"recall10.{name}", recall_at_10(test, held), "higher")
        samples.add(f"probe_loss.{name}", scores[0] - scores[1], "lower")


SMOKE = Setting(
    sizes=Sizes(
        block=300,
        claims=1,
        references=1,
        public=300,
        probe_train=200,
        probe_test=100,
        pool=600,
        other=16,
    ),
    recipe=replace(Recipe(), dim=32, epochs=4),
    tenants=3,
    leaks=1,
    attacks=("mse",),
    budgets=(600,),
    above=(600,),
    together=(2,),
    epochs=4,
    strangers=1,
    decoys=179,
    alpha=0.05,
    encoders=(),
    rows=200,
    workers=1,
)

EXPERIMENT = Experiment(
    id="tenant-mark",
    title="which tenant leaked: marks in copies, colluders, changed copies, and what marks cost",
    scales={"smoke": SMOKE, "cpu": Setting()},
    measure=measure,
    promises=(
        "attributed.*",
        "unmarked.*",
        "mark_z.*",
        "paid_mark_z.*",
        "false_attribution_rate.*",
        "recall10.*",
        "probe_loss.*",
        "thief_accuracy.*",
    ),
)
