"""Experiment `same-detection`: tables 1, 2 and 3 of the SAME paper, and the thieves it left out.

Each data set has one victim, honest users, and thieves whose queries every detector scores. As many
honest queries stand against a budget's malicious ones, as in the paper. JBDA and T-RND begin with
honest seeds: `jbda` leaves them out, as the published figures must have, `jbda_all` counts them.
Intervals are over queries: one victim, one run of each thief.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric
from tollkeeper.bench.predict.accounts import HONEST, judged, watchers
from tollkeeper.bench.predict.beside import beside
from tollkeeper.bench.predict.defenders import FLOORS
from tollkeeper.bench.predict.deployment import Deployment, deploy, places
from tollkeeper.bench.predict.figures import AT_ONE_PERCENT, Judged, judge
from tollkeeper.bench.predict.jobs import Job, Part, run_parts
from tollkeeper.bench.predict.metrics import accuracy
from tollkeeper.bench.predict.plan import CPU, GPU, SMOKE, Plan
from tollkeeper.bench.predict.speed import speeds
from tollkeeper.bench.predict.streams import ADAPTIVE, THIEVES, Stream
from tollkeeper.types import Scores

LEARNED = ("same", "same-x", "same-y", "oe", "edm", "fdinet", "fused")
RIVALS = ("oe", "edm")
FUSED = "fused"
CURVE = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""False alarms at which ROC curves are read."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured.

    Attributes:
        datasets: of `scene.CASTS`.
        plans: sizes of each data set's part.
        workers: processes, of one thread each.
    """

    datasets: tuple[str, ...] = ("mnist", "cifar10")
    plans: dict[str, Plan] = field(default_factory=lambda: dict(CPU))
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
    part, rng = Part(), job.rng()
    made = deploy(
        job.dataset, job.plan, rng=rng, clock=time.perf_counter, tell=part.tell, data=part.data
    )
    part.tell("honest scores")
    honest, drawing = made.honest_scores(), rng.spawn(1)[0]
    users = {HONEST: (made.scene.honest, made.answers)}
    asked = dict.fromkeys(made.present(THIEVES), job.plan.budgets)
    asked |= dict.fromkeys(made.present(ADAPTIVE), (job.plan.adaptive,))
    for name, budgets in asked.items():
        part.tell(f"thief {name}")
        stream = made.stream(name, max(budgets))
        part.tell("figures")
        part.metrics |= _judged(made, stream, honest, budgets, drawing)
        part.metrics |= _copied(job.dataset, stream)
        users[name] = stream.images, stream.answers
    part.tell("accounts")
    watching = watchers(made, drawing)
    part.metrics |= judged(made, watching, users, rng=drawing)
    part.tell("speed")
    part.metrics |= speeds(made)
    part.metrics |= defended(made)
    return part.done()


def _judged(
    made: Deployment,
    stream: Stream,
    honest: Mapping[str, Scores],
    budgets: Sequence[int],
    rng: np.random.Generator,
) -> dict[str, Metric]:
    """Return the figures of one thief at each budget, with and without its seeds."""
    malicious = made.scores(stream.images, stream.answers)
    found: dict[str, Metric] = {}
    for budget, counted in product(budgets, (False, True) if stream.seeds else (False,)):
        attack = stream.name + ("_all" if counted else "")
        chosen = places(stream, budget, seeds=counted)
        seen = judge(
            {name: scores[:budget] for name, scores in honest.items()},
            {name: scores[chosen] for name, scores in malicious.items()},
            resamples=made.plan.resamples,
            rng=rng,
        )
        path = f"{made.scene.dataset}.{budget}"
        found |= {**seen.metrics(path, attack), **_orders(seen, path, attack)}
    return found


def _orders(seen: Judged, path: str, attack: str) -> dict[str, Metric]:
    """Return by how much which detector is above which, in AUROC."""
    learned = [name for name in LEARNED if name in seen.values]
    found = {
        f"above_floors.{path}.{name}.{attack}": seen.above_best(name, FLOORS) for name in learned
    }
    for rival in RIVALS:
        found[f"above.{path}.same_over_{rival}.{attack}"] = seen.above("same", rival)
    for rival in (name for name in learned if name != FUSED):
        pair = f"{path}.{FUSED}_over_{rival}.{attack}"
        found[f"above.{pair}"] = seen.above(FUSED, rival)
        found[f"tpr_at_fpr1_above.{pair}"] = seen.above(FUSED, rival, figure=AT_ONE_PERCENT)
    found[f"above.{path}.oe_over_edm.{attack}"] = seen.above("oe", "edm")
    found[f"above.{path}.same_over_same-x.{attack}"] = seen.above("same", "same-x")
    return found


def _copied(dataset: str, stream: Stream) -> dict[str, Metric]:
    """Return what the thief's copy is worth."""
    name = f"{dataset}.{len(stream.images)}.{stream.name}"
    return {
        f"copy_accuracy.{name}": Metric(stream.copied, "share", "lower"),
        f"copy_agreement.{name}": Metric(stream.agreed, "share", "lower"),
    }


def defended(made: Deployment) -> dict[str, Metric]:
    """Return table 3: the accuracy that honest users get, and the seconds of training.

    OE answers with its own victim, EDM with the member that the query's hash chooses; all others
    leave the victim as it is, whose training is not in their seconds.
    """
    scene, found = made.scene, dict[str, Metric]()
    plain = accuracy(made.answers, scene.honest_labels)
    found[f"accuracy.{scene.dataset}.none"] = Metric(plain, "share", "higher")
    found[f"train_s.{scene.dataset}.victim"] = Metric(made.victim_s, "s", "lower", tolerance=0.5)
    for name, took in made.defense.seconds.items():
        if name in FLOORS:
            continue
        own = made.defense.own.get(name)
        kept = accuracy(own(scene.honest), scene.honest_labels) if own else plain
        found[f"accuracy.{scene.dataset}.{name}"] = Metric(kept, "share", "higher")
        found[f"train_s.{scene.dataset}.{name}"] = Metric(took, "s", "lower", tolerance=0.5)
    return found


_FIGURES = ("auroc", "aupr", "ap", "fpr95", "tpr_at_fpr1", "tpr_at_fpr01")

EXPERIMENT = Experiment(
    id="same-detection",
    title="detecting theft of classifiers: tables 1 to 3 of SAME, floors, and thieves who adapt",
    scales={
        "smoke": Setting(datasets=("mnist",), plans=dict(SMOKE), workers=1),
        "cpu": Setting(),
        "gpu": Setting(plans=dict(GPU), workers=1),
    },
    measure=measure,
    promises=(
        *(
            f"{figure}.{dataset}.*.{detector}.{attack}"
            for figure in _FIGURES
            for dataset in ("mnist", "cifar10")
            for detector in (*LEARNED, *FLOORS)
            for attack in THIEVES
        ),
        "above_floors.*",
        "copy_accuracy.*",
        "cost_over_victim.*",
        "alarmed.*.prada.*",
        "alarmed.*.seat.*",
    ),
    report=beside,
)
