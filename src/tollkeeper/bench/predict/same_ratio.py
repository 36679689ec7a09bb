"""Experiment `same-ratio`: table 4 of the SAME paper, figures by how rare malicious queries are.

Honest queries stay as many as they are; a ratio is of malicious queries to honest ones. The paper
names neither its attack nor what its ratio is of; beside single thieves stands `mixed`, a third
each of JBDA, Knockoff and the untrained DFME generator, as its low precision at 1% suggests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.predict.deployment import Deployment, deploy, places
from tollkeeper.bench.predict.figures import judge
from tollkeeper.bench.predict.jobs import Job, Part, run_parts
from tollkeeper.bench.predict.plan import CPU, GPU, SMOKE, Plan
from tollkeeper.bench.predict.ratios import ratios
from tollkeeper.types import Scores

MIXED = ("jbda", "knockoff", "dfme_untrained")
FITTED = ("floors", "same", "fused")


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured.

    Attributes:
        datasets: of `scene.CASTS`.
        plans: sizes of each data set's part.
        honest: honest queries.
        percent: malicious queries for 100 honest ones.
        workers: processes, of one thread each.
    """

    datasets: tuple[str, ...] = ("mnist", "cifar10")
    plans: dict[str, Plan] = field(default_factory=lambda: dict(CPU))
    honest: int = 4000
    percent: tuple[int, ...] = (1, 5, 10, 30, 50, 90)
    workers: int = 2


def measure(setting: Setting, context: Context) -> Measurement:
    """Measure each data set in a process of its own.

    Raises:
        ConfigurationError: an unknown data set, or too few images.
        BenchError: a part failed.
    """
    return run_parts(run, setting, context, workers=setting.workers)


def run(job: Job) -> Part:
    """Measure one data set; runs in a worker."""
    part, rng, setting = Part(), job.rng(), job.setting
    made = deploy(
        job.dataset,
        job.plan,
        rng=rng,
        clock=time.perf_counter,
        tell=part.tell,
        data=part.data,
        names=FITTED,
    )
    part.tell("honest scores")
    scores = made.honest_scores()
    honest = {name: found[: setting.honest] for name, found in scores.items()}
    part.tell("thieves")
    attacks = _attacks(made, setting.honest)
    part.tell("figures")
    drawing = rng.spawn(1)[0]
    for attack, malicious in attacks.items():
        count = len(next(iter(malicious.values())))
        for percent in setting.percent:
            chosen = drawing.permutation(count)[: max(2, percent * setting.honest // 100)]
            judged = judge(
                honest,
                {name: found[chosen] for name, found in malicious.items()},
                resamples=job.plan.resamples,
                rng=drawing,
            )
            part.metrics |= judged.metrics(f"{job.dataset}.r{percent}", attack)
    return part.done()


def _attacks(made: Deployment, budget: int) -> dict[str, Mapping[str, Scores]]:
    """Return every detector's scores of each thief's queries, seeds left out, and of the mixture."""
    found: dict[str, Mapping[str, Scores]] = {}
    for name in MIXED:
        stream = made.stream(name, budget)
        chosen = places(stream, budget)
        found[name] = made.scores(stream.images[chosen], stream.answers[chosen])
    least = min(len(next(iter(scores.values()))) for scores in found.values())
    return found | {
        "mixed": {
            name: np.concatenate([found[thief][name][:least] for thief in MIXED])
            for name in found[MIXED[0]]
        }
    }


EXPERIMENT = Experiment(
    id="same-ratio",
    title="table 4 of SAME: detection by how rare malicious queries are",
    scales={
        "smoke": Setting(
            datasets=("mnist",), plans=dict(SMOKE), honest=80, percent=(10, 90), workers=1
        ),
        "cpu": Setting(),
        "gpu": Setting(plans=dict(GPU), workers=1),
    },
    measure=measure,
    promises=tuple(
        f"{figure}.{dataset}.r*.same.{attack}"
        for figure in ("auroc", "aupr", "fpr95", "fpr90")
        for dataset in ("mnist", "cifar10")
        for attack in (*MIXED, "mixed")
    ),
    report=ratios,
)
