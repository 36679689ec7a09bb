"""Experiment `same-ablation`: what of SAME does the work.

Its parts alone and in several mixtures (figure 5 of the paper), epochs (figure 6), the width of
tokens (figure 7), mask ratios in training and in scoring, and what the auxiliary model learns from.
All variants score the same queries, so that differences are paired.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.predict.defenders import Fitting
from tollkeeper.bench.predict.deployment import Deployment, deploy, places
from tollkeeper.bench.predict.figures import balanced, judge
from tollkeeper.bench.predict.jobs import Job, Part, run_parts
from tollkeeper.bench.predict.plan import CPU, GPU, SMOKE, Plan
from tollkeeper.bench.predict.streams import ADAPTIVE, THIEVES
from tollkeeper.detectors.lab.mae import MaskedAutoencoder
from tollkeeper.detectors.lab.mae_fit import restored, train_mae
from tollkeeper.detectors.lab.same import fit_auxiliary, same_x
from tollkeeper.detectors.same import Same
from tollkeeper.lab.progress import silent
from tollkeeper.types import Images, Probabilities, Scores

ATTACKS = ("jbda", "jbda_strokes", "knockoff", "insider")
FIXED = 0.75
"""The only mask ratio of the paper's training."""

_DRAWS = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured.

    Attributes:
        datasets: of `scene.CASTS`.
        plans: sizes of each data set's part.
        epochs: of every autoencoder.
        snapshots: epochs after which the first one scores too.
        widths: of tokens, beside the plan's.
        alphas: weights of the reconstruction, in percent; 100 is SAME-X, 0 SAME-Y.
        scoring: mask ratios of scoring, in percent.
        workers: processes, of one thread each.
    """

    datasets: tuple[str, ...] = ("mnist", "cifar10")
    plans: dict[str, Plan] = field(
        default_factory=lambda: {
            "mnist": CPU["mnist"],
            "cifar10": replace(
                CPU["cifar10"],
                sizes=replace(CPU["cifar10"].sizes, train=7000),
                budgets=(2000,),
            ),
        }
    )
    epochs: int = 12
    snapshots: tuple[int, ...] = (1, 2, 4, 8)
    widths: tuple[int, ...] = (16, 32, 96)
    alphas: tuple[int, ...] = (0, 50, 90, 99, 100)
    scoring: tuple[int, ...] = (50, 75)
    workers: int = 2


Queries = tuple[Images, Probabilities]


@dataclass(slots=True)
class _Variants:
    """Scores of all variants.

    Attributes:
        asked: name to queries; `honest` among them.
        scores: of those, variant to scores.
        seconds: that a variant's networks took.
    """

    asked: Mapping[str, Queries]
    scores: dict[str, dict[str, Scores]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, variant: str, same: Same) -> None:
        """Let a detector score everything."""
        for name, queries in self.asked.items():
            self.scores.setdefault(name, {})[variant] = same.score(*queries)

    def add_masked(
        self, variant: str, network: MaskedAutoencoder, ratio: float, rng: np.random.Generator
    ) -> None:
        """Let an autoencoder score with a part masked, by the mean of four draws."""
        for name, (images, _) in self.asked.items():
            drawn = [restored(network, images, ratio=ratio, rng=rng) for _ in range(_DRAWS)]
            gaps = [4 * np.square(made - images).mean(axis=(1, 2, 3)) for made in drawn]
            self.scores.setdefault(name, {})[variant] = np.mean(gaps, axis=0, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """What every step needs.

    Attributes:
        made: the deployment.
        fitting: sizes of networks.
        setting: of the experiment.
        variants: get the scores.
        tell: told what is done next.
    """

    made: Deployment
    fitting: Fitting
    setting: Setting
    variants: _Variants
    tell: Callable[[str], None]

    def alone(self, network: MaskedAutoencoder) -> Same:
        """Return SAME-X of an autoencoder."""
        return same_x(network, classes=len(self.made.scene.classes))


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
    fitting = replace(job.plan.fitting, mae_epochs=setting.epochs)
    made = deploy(
        job.dataset,
        replace(job.plan, fitting=fitting),
        rng=rng,
        clock=time.perf_counter,
        tell=part.tell,
        data=part.data,
        names=(),
    )
    part.tell("thieves")
    variants = _Variants(_asked(made, min(job.plan.budgets)))
    bench = _Bench(made, fitting, setting, variants, part.tell)
    for step, draws in zip((_parts, _widths, _masks), rng.spawn(3), strict=True):
        step(bench, draws)
    part.tell("figures")
    part.facts["autoencoder_s"] = {name: round(one, 1) for name, one in variants.seconds.items()}
    drawing = rng.spawn(1)[0]
    honest = variants.scores.pop("honest")
    path = f"{job.dataset}.{min(job.plan.budgets)}"
    for attack, malicious in variants.scores.items():
        judged = judge(
            balanced(honest, malicious), malicious, resamples=job.plan.resamples, rng=drawing
        )
        part.metrics |= judged.metrics(path, attack)
        for one, other in _pairs(list(judged.values)):
            part.metrics[f"above.{path}.{one}_over_{other}.{attack}"] = judged.above(one, other)
    return part.done()


def _asked(made: Deployment, budget: int) -> dict[str, Queries]:
    """Return what honest users and thieves ask, the thieves' seeds left out."""
    found = {"honest": (made.scene.honest[:budget], made.answers[:budget])}
    there = {*made.present(THIEVES), *made.present(ADAPTIVE)}
    for name in (one for one in ATTACKS if one in there):
        stream = made.stream(name, budget)
        chosen = places(stream, budget)
        found[name] = stream.images[chosen], stream.answers[chosen]
    return found


def _train(
    bench: _Bench,
    fitting: Fitting,
    name: str,
    rng: np.random.Generator,
    *,
    snapshots: tuple[int, ...] = (),
) -> MaskedAutoencoder:
    """Train an autoencoder on the victim's images, and let it score at `snapshots` already."""

    def told(epoch: int, network: MaskedAutoencoder) -> None:
        if epoch in snapshots:
            bench.variants.add(f"epoch{epoch}", bench.alone(network))

    made = bench.made
    began = made.clock()
    network = train_mae(
        made.scene.train,
        recipe=fitting.recipe(made.plan.training).mae,
        rng=rng,
        progress=silent,
        after_epoch=told,
    )
    bench.variants.seconds[name] = made.clock() - began
    return network


def _parts(bench: _Bench, rng: np.random.Generator) -> None:
    """Score with each weight of the parts, and with auxiliary models that learned otherwise."""
    bench.tell("autoencoder")
    scene, setting, (training, learning) = bench.made.scene, bench.setting, rng.spawn(2)
    network = _train(bench, bench.fitting, "parts", training, snapshots=setting.snapshots)
    bench.tell("auxiliary models")
    plan, answers = bench.made.plan, bench.made.victim.embed(scene.train)
    recipe = bench.fitting.recipe(plan.training)
    ways = {
        "": recipe,
        "_of_answers": replace(recipe, aim="answers"),
        "_of_masked": replace(recipe, ratio=FIXED),
    }
    for way, draws in zip(ways, learning.spawn(len(ways)), strict=True):
        same = fit_auxiliary(
            network,
            scene.train,
            scene.train_labels,
            answers,
            classes=len(scene.classes),
            make_network=lambda one: plan.training.build(scene, one),
            recipe=ways[way],
            rng=draws,
            progress=silent,
        )
        for alpha in setting.alphas if not way else (0,):
            bench.variants.add(f"alpha{alpha}{way}", same.weighted(alpha / 100))
    bench.tell("masked scoring")
    for percent in setting.scoring:
        bench.variants.add_masked(f"mixed_scored{percent}", network, percent / 100, learning)


def _widths(bench: _Bench, rng: np.random.Generator) -> None:
    """Score with tokens of other widths; only the reconstruction counts."""
    widths = bench.setting.widths
    for width, draws in zip(widths, rng.spawn(len(widths)), strict=True):
        name = f"width{width}"
        bench.tell(name)
        network = _train(bench, replace(bench.fitting, mae_width=width), name, draws)
        bench.variants.add(name, bench.alone(network))


def _masks(bench: _Bench, rng: np.random.Generator) -> None:
    """Score with an autoencoder that never saw more than a quarter, whole and masked."""
    bench.tell("fixed mask")
    network = _train(bench, replace(bench.fitting, mae_ratios=(FIXED,)), "fixed", rng)
    bench.variants.add("fixed_scored0", bench.alone(network))
    for percent in bench.setting.scoring:
        bench.variants.add_masked(f"fixed_scored{percent}", network, percent / 100, rng)


def _pairs(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what is compared: all with the reconstruction alone."""
    for name in names:
        if name != "alpha100":
            yield name, "alpha100"


EXPERIMENT = Experiment(
    id="same-ablation",
    title="what of SAME does the work: parts, epochs, width, mask ratios",
    scales={
        "smoke": Setting(
            datasets=("mnist",),
            plans=dict(SMOKE),
            epochs=2,
            snapshots=(1,),
            widths=(8,),
            alphas=(0, 99, 100),
            scoring=(50,),
            workers=1,
        ),
        "cpu": Setting(),
        "gpu": Setting(
            plans=dict(GPU),
            epochs=500,
            snapshots=(10, 50, 100, 200),
            widths=(48, 96, 384),
            workers=1,
        ),
    },
    measure=measure,
    promises=tuple(
        f"auroc.{dataset}.*.{variant}.{attack}"
        for dataset in ("mnist", "cifar10")
        for variant in ("alpha*", "epoch*", "width*", "fixed_scored*", "mixed_scored*")
        for attack in ("jbda", "knockoff", "insider")
    ),
)
