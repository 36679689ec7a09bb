"""Experiment `ssl-losses`: every objective of direct extraction at one price.

One network, one budget and one number of training examples for all; what differs is the
objective, and for three more variants the choice of queries. Losses of two views ask for two
views of half as many images. Text has its own scene, and the cost of an epoch its own process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from tollkeeper.attacks import presets
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.selection.base import Selection
from tollkeeper.attacks.selection.class_sorted import ClassSorted
from tollkeeper.attacks.selection.coverage_greedy import CoverageGreedy
from tollkeeper.attacks.selection.k_center import KCenter
from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.isolate import ONE_THREAD, run_apart
from tollkeeper.bench.theft.epoch_time import Timing, epoch_metrics
from tollkeeper.bench.theft.stage import Stage
from tollkeeper.bench.theft.tasks import TEXT_TASKS
from tollkeeper.bench.theft.variants import Trial, Variant, measure_variants
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Trial):
    """The trial of image objectives, the one of text, and what is timed.

    Attributes:
        text_victim: SPEC of the text encoder.
        text_pool: its attacker's texts.
        text_pool_size: how many of them.
        text_tasks: its tasks.
        text_budget: distinct texts that are asked.
        text_examples: as `examples`.
        timed_network: as `network`.
        timed_images: images in a timed epoch.
        timed_batch: inputs per step there; 256 is the published one of InfoNCE.
        turns: timed epochs of each scheme.
    """

    text_victim: str = "builtin:text"
    text_pool: str = "broad_text"
    text_pool_size: int = 10_000
    text_tasks: tuple[str, ...] = TEXT_TASKS
    text_budget: int = 8000
    text_examples: int = 80_000
    timed_network: str = "convnet16"
    timed_images: int = 1024
    timed_batch: int = 256
    turns: int = 9

    def text(self) -> Trial:
        """Return the trial of text encoder theft."""
        return Trial(
            victim=self.text_victim,
            pool=self.text_pool,
            pool_size=self.text_pool_size,
            tasks=self.text_tasks,
            train=self.train,
            test=self.test,
            budget=self.text_budget,
            seeds=self.seeds,
            network="ngram",
            examples=self.text_examples,
            batch=self.batch,
            rate=self.rate,
            workers=self.workers,
        )

    def timing(self) -> Timing:
        """Return what is timed."""
        return Timing(self.timed_network, self.timed_images, self.timed_batch, self.turns)


def objectives(trial: Trial, stage: Stage) -> list[Variant]:
    """Return all objectives on random queries, and InfoNCE on chosen ones."""
    labels = stage.pool.labels
    if labels is None:
        raise ConfigurationError("expected a pool with labels, which supervised contrast needs")
    head = presets.head_recreation()
    if trial.examples:
        # The head alone is two small layers, but not free beside a small surrogate.
        head = replace(head, head_schedule=Schedule(epochs=_HEAD_EPOCHS))
    return [
        Variant("mse", presets.mse()),
        Variant("cosine", presets.cosine()),
        Variant("bce", presets.bce()),
        Variant("wasserstein", presets.wasserstein()),
        Variant("softnn", presets.softnn()),
        Variant("infonce", presets.infonce()),
        Variant("supcon", replace(presets.supcon(), labels=labels)),
        Variant("barlow", presets.barlow(), copies=2),
        Variant("barlow_cross", presets.barlow_cross()),
        Variant("symmetrized", presets.symmetrized(), copies=2),
        Variant("head_recreation", head),
        Variant("infonce_k_center", _chosen_by(KCenter())),
        Variant("infonce_class_sorted", _chosen_by(ClassSorted(labels))),
        Variant("infonce_coverage", _chosen_by(CoverageGreedy())),
    ]


_HEAD_EPOCHS = 30


def _chosen_by(selection: Selection) -> Attack:
    return replace(presets.infonce(), selection=selection)


def text_theft(trial: Trial, stage: Stage) -> Sequence[Variant]:
    """Return the theft of a text encoder."""
    del trial, stage
    return [Variant("text_distillation", presets.text_distillation())]


def measure(setting: Setting, context: Context) -> Measurement:
    """Time an epoch on a quiet machine, then run images and text.

    Raises:
        ConfigurationError: an unknown task, or a budget that does not fit its pool.
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    times = run_apart(
        "tollkeeper.bench.theft.epoch_time:take_times",
        {"timing": asdict(setting.timing()), "seed": context.seed},
        environment=ONE_THREAD,
        progress=context.progress,
    )
    images = measure_variants(setting, context, objectives)
    text = measure_variants(setting.text(), context, text_theft)
    return Measurement(
        {**images.metrics, **text.metrics, **epoch_metrics(times, rng=context.rng(98))},
        diagnostics={"images": images.diagnostics, "text": text.diagnostics, "epoch": times},
        hardware={**images.hardware, "bfloat16": times["bfloat16"]},
        data={**images.data, **text.data},
    )


EXPERIMENT = Experiment(
    id="ssl-losses",
    title="objectives of direct extraction and choices of queries at an equal budget",
    scales={
        "smoke": Setting(
            pool_size=300,
            tasks=("cifar10",),
            train=200,
            test=100,
            budget=128,
            seeds=1,
            examples=256,
            text_pool_size=300,
            text_tasks=("sst2",),
            text_budget=200,
            text_examples=400,
            timed_images=256,
            turns=2,
        ),
        "cpu": Setting(tasks=("cifar10", "gtsrb", "fashion_mnist"), train=2000),
        "gpu": Setting(
            train=10_000,
            budget=9000,
            seeds=5,
            network="resnet34",
            examples=0,
            text_pool_size=27_000,
            text_budget=20_000,
            text_examples=0,
            timed_network="resnet34",
            timed_images=9000,
            turns=5,
            workers=1,
        ),
    },
    measure=measure,
    promises=(
        "relative_accuracy.infonce.*",
        "relative_accuracy.text_distillation.*",
        "relative_accuracy.floor_untrained.*",
        "relative_accuracy.floor_ssl.*",
        "epoch_over_reference",
        "epoch_over_reference.same_precision",
        "peak_rss_mb",
    ),
    attacks={
        "direct-mse": "relative_accuracy.mse.*",
        "direct-cosine": "relative_accuracy.cosine.*",
        "direct-infonce": "relative_accuracy.infonce.*",
        "direct-softnn": "relative_accuracy.softnn.*",
        "direct-supcon": "relative_accuracy.supcon.*",
        "direct-wasserstein": "relative_accuracy.wasserstein.*",
        "direct-bce": "relative_accuracy.bce.*",
        "direct-barlow": "relative_accuracy.barlow.*",
        "direct-barlow-cross": "relative_accuracy.barlow_cross.*",
        "direct-symmetrized": "relative_accuracy.symmetrized.*",
        "head-recreation": "relative_accuracy.head_recreation.*",
        "text-distillation": "relative_accuracy.text_distillation.*",
    },
)
