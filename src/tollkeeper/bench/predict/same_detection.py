"""Experiment `same-detection`: tables 1, 2 and 3 of the SAME paper, and the thieves it left out.

Each data set has one victim, honest users, and thieves whose queries every detector scores. As many
honest queries stand against the malicious ones, as in the paper. JBDA and T-RND begin with honest
seeds: `jbda` leaves them out, as the published figures must have, `jbda_all` counts them.
Intervals are over queries: one victim, one run of each thief.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric
from tollkeeper.bench.predict.accounts import HONEST, WATCHERS, Asked, judged, watchers
from tollkeeper.bench.predict.beside import beside
from tollkeeper.bench.predict.defenders import FLOORS
from tollkeeper.bench.predict.deployment import Deployment, deploy, places
from tollkeeper.bench.predict.figures import AT_ONE_PERCENT, Judged, balanced, curve, judge
from tollkeeper.bench.predict.jobs import Job, Part, run_parts
from tollkeeper.bench.predict.metrics import accuracy
from tollkeeper.bench.predict.plan import CPU, GPU, SMOKE, Plan
from tollkeeper.bench.predict.speed import speeds
from tollkeeper.bench.predict.streams import ADAPTIVE, EVERYONE, OTHERS, THIEVES, Stream
from tollkeeper.types import Scores

LEARNED = ("same", "same-x", "same-y", "oe", "edm", "fdinet", "fused")
FUSED = "fused"
PUBLISHED = ("auroc", "aupr", "fpr95")
BRIEF = (*PUBLISHED, "tpr_at_1pct")
FULL = (*PUBLISHED, "average_precision", "tpr_at_1pct", "tpr_at_01pct")
"""Which of `metrics.FIGURES` are kept: of seeds that count, of thieves who adapt, of the others."""

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
    part.facts |= {"roc_at": CURVE, "roc": {}}
    users = {HONEST: Asked(made.scene.honest, made.answers, honest)}
    for name, budgets in _budgets(made).items():
        part.tell(f"thief {name}")
        stream = made.stream(name, max(budgets))
        part.tell("scores")
        scored = _Scored(stream, honest, made.scores(stream.images, stream.answers))
        part.tell("figures")
        part.metrics |= _judged(made, scored, budgets, drawing)
        part.metrics |= _copied(job.dataset, stream)
        part.facts["roc"][name] = scored.curves()
        users[name] = Asked(stream.images, stream.answers, scored.malicious)[stream.malicious]
    part.tell("accounts")
    part.metrics |= judged(made, watchers(made, drawing), users, rng=drawing)
    part.tell("speed")
    part.metrics |= speeds(made)
    part.metrics |= defended(made)
    return part.done()


def _budgets(made: Deployment) -> dict[str, tuple[int, ...]]:
    """Return at which budgets each thief is judged."""
    plan = made.plan
    found = dict.fromkeys(made.present(THIEVES), plan.budgets)
    for name in made.present({**ADAPTIVE, **OTHERS}):
        found[name] = (max(plan.budgets) if EVERYONE[name].whole else plan.adaptive,)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """One thief's queries with everybody's scores.

    Attributes:
        stream: what was asked.
        honest: detector to scores of honest queries.
        malicious: detector to scores of the thief's.
    """

    stream: Stream
    honest: Mapping[str, Scores]
    malicious: Mapping[str, Scores]

    def at(self, budget: int, *, seeds: bool) -> tuple[dict[str, Scores], dict[str, Scores]]:
        """Return the scores of the thief's queries, after those of as many honest ones."""
        chosen = places(self.stream, budget, seeds=seeds)
        malicious = {name: scores[chosen] for name, scores in self.malicious.items()}
        return balanced(self.honest, malicious), malicious

    def curves(self) -> dict[str, list[float]]:
        """Return the ROC curve of each detector, of all queries, the seeds left out."""
        honest, malicious = self.at(len(self.stream.images), seeds=False)
        return {name: curve(honest[name], malicious[name], CURVE) for name in malicious}


def _judged(
    made: Deployment, scored: _Scored, budgets: Sequence[int], rng: np.random.Generator
) -> dict[str, Metric]:
    """Return the figures of one thief at each budget, with and without its seeds."""
    found: dict[str, Metric] = {}
    name = scored.stream.name
    for budget in budgets:
        path = f"{made.scene.dataset}.{budget}"
        honest, malicious = scored.at(budget, seeds=False)
        seen = judge(honest, malicious, resamples=made.plan.resamples, rng=rng)
        found |= seen.metrics(path, name, only=FULL if name in THIEVES else BRIEF)
        found |= _orders(seen, path, name)
        if scored.stream.seeds and name in THIEVES:
            honest, malicious = scored.at(budget, seeds=True)
            seen = judge(honest, malicious, resamples=made.plan.resamples, rng=rng)
            found |= seen.metrics(path, f"{name}_all", only=PUBLISHED)
    return found


def _orders(seen: Judged, path: str, attack: str) -> dict[str, Metric]:
    """Return by how much which detector is above which, in AUROC, and the fused one at 1%."""
    learned, floors = ([one for one in names if one in seen.values] for names in (LEARNED, FLOORS))
    found = {
        f"above_floors.{path}.{name}.{attack}": seen.above_best(name, floors) for name in learned
    }
    pairs = [("same", "same-x"), (FUSED, "same")]
    if attack in THIEVES:
        pairs += [("same", "oe"), ("same", "edm"), ("oe", "edm")]
        pairs += [(FUSED, rival) for rival in (*learned, *floors) if rival not in {"same", FUSED}]
    for one, other in pairs:
        pair = f"{path}.{one}_over_{other}.{attack}"
        found[f"above.{pair}"] = seen.above(one, other)
        if one == FUSED:
            found[f"tpr_at_fpr1_above.{pair}"] = seen.above(one, other, figure=AT_ONE_PERCENT)
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
            # FDINet reads the layers of the small network; the large scale has another one there.
            # Digits are gray.
            if (dataset, detector) not in {("cifar10", "fdinet"), ("mnist", "color-detail")}
        ),
        "above_floors.*",
        "copy_accuracy.*",
        "cost_over_victim.*",
        *(f"alarmed.*.{watcher}.*" for watcher in WATCHERS),
    ),
    attacks={
        name: f"copy_accuracy.mnist.*.{thief}"
        for name, thief in {
            "jbda": "jbda",
            "jbda-half": "jbda_half_step",
            "jbda-strokes": "jbda_strokes",
            "jbda-papernot": "jbda_papernot",
            "t-random": "t_rnd",
            "t-random-iterated": "t_rnd_iterated",
            "knockoff": "knockoff",
            "knockoff-adaptive": "knockoff_adaptive",
            "copycat": "copycat",
            "dfme": "dfme_untrained",
            "maze": "maze_untrained",
            "active-thief": "active_thief",
            "active-thief-center": "active_thief_center",
            "active-thief-dfal": "active_thief_dfal",
            "active-thief-both": "active_thief_both",
        }.items()
    }
    | {"jbda-gray": "copy_accuracy.cifar10.*.jbda_gray"},
    report=beside,
)
