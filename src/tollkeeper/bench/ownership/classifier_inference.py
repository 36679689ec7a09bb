"""Experiment `classifier-inference`: dataset inference of classifiers, corrected and as published.

One victim that knows its private pictures by heart, those who copied it or its data, and classifiers
that never met it: references, which calibrate, and independents, which are judged. Every suspect is
walked from the same pictures in the same directions. Which pictures are private was drawn before
training, so a re-split of the tested pictures is as good a split for whoever never met them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.classifiers.inference import MarginInference, joined, scored
from tollkeeper.audit.classifiers.margins import BlindWalk, Margins
from tollkeeper.audit.lab.mingd import MinGD
from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.ownership.classifier_judging import Judge, figures
from tollkeeper.bench.ownership.classifier_reporting import report
from tollkeeper.bench.ownership.classifier_scene import Recipe, Stage, load_stage
from tollkeeper.bench.ownership.classifier_suspects import HONEST, THIEVES, Making, maker
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload, shared

WHITE = ("victim", "distilled", "other_seed", "knockoff.full", "on_public", "independent.0")
"""Suspects whose weights are read too."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Sizes.

    Attributes:
        size: pictures of each side that the victim and the owner hold, and of each independent.
        exam: pictures that accuracy is measured on.
        tested: pictures of each side that suspects are walked from.
        recipe: of the victim.
        copying: epochs of thieves.
        budget: queries of Knockoff.
        jbda: queries of JBDA.
        references: classifiers that calibrate.
        independents: classifiers that are judged.
        resplits: of the tested pictures, for the rate of false accusations.
        white: pictures of each side that gradients are followed from; 0 for none.
        white_steps: along gradients at most.
        starts: walks of each kind of noise.
        steps: of a walk.
        workers: processes.
    """

    size: int = 2000
    exam: int = 2000
    tested: int = 500
    recipe: Recipe = field(default_factory=Recipe)
    copying: int = 30
    budget: int = 12_000
    jbda: int = 4000
    references: int = 10
    independents: int = 20
    resplits: int = 1000
    white: int = 40
    white_steps: int = 500
    starts: int = 10
    steps: int = 50
    workers: int = 2

    @property
    def suspects(self) -> tuple[str, ...]:
        """Return the names of all suspects and references."""
        independents = (f"independent.{number}" for number in range(self.independents))
        references = (f"reference.{number}" for number in range(self.references))
        return (*THIEVES, *HONEST, *independents, *references)

    @property
    def making(self) -> Making:
        """Return what suspects are made with."""
        return Making(self.recipe, self.copying, self.budget, self.jbda)

    def test(self, seed: int) -> MarginInference:
        """Return the corrected test."""
        return MarginInference(seed, BlindWalk(starts=self.starts, steps=self.steps))


@dataclass(frozen=True, slots=True)
class Job:
    """One suspect.

    Attributes:
        stage: pictures and victim.
        setting: of the experiment.
        suspect: its name.
        number: its place, which seeds it.
        root: seed of the experiment.
    """

    stage: Payload[Stage]
    setting: Setting
    suspect: str
    number: int
    root: int

    @property
    def name(self) -> str:
        """For progress."""
        return self.suspect


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What was measured of one suspect.

    Attributes:
        train: accuracy on private pictures.
        exam: accuracy on others.
        margins: of the tested pictures, private ones first.
        right: (n,) 1 where the true class is named of the picture as it is, else 0.
        white: margins by gradients; None where they were not followed.
    """

    train: float
    exam: float
    margins: Margins
    right: NDArray[np.float64]
    white: Margins | None


def measure(setting: Setting, context: Context) -> Measurement:
    """Train, walk and judge.

    Raises:
        ConfigurationError: sizes that the data cannot serve.
        DataError: a data set is missing or damaged.
        BenchError: a suspect failed.
        AuditRefused: the victim itself is not found; nothing can be said of others.
    """
    data: dict[str, str] = {}
    context.progress(0, 1, "victim")
    stage = load_stage(setting.size, setting.exam, setting.recipe, rng=context.rng(0), data=data)
    with shared(stage) as payload:
        jobs = [
            Job(payload, setting, name, number, context.seed)
            for number, name in enumerate(setting.suspects)
        ]
        found = run_jobs(run, jobs, workers=setting.workers, progress=context.progress)
    by_name = dict(zip(setting.suspects, found, strict=True))
    metrics = figures(by_name, _judge(by_name, stage, setting), setting.resplits, context)
    facts = {name: {"queries": one.margins.queries} for name, one in by_name.items()}
    unflipped = {name: 1 - float(one.margins.flipped.mean()) for name, one in by_name.items()}
    return Measurement(metrics, diagnostics={"suspects": facts, "unflipped": unflipped}, data=data)


def _judge(found: dict[str, Found], stage: Stage, setting: Setting) -> Judge:
    references = [one for name, one in found.items() if name.startswith("reference.")]
    split = stage.split(setting.tested)
    return Judge(
        trained=split.trained,
        references=np.stack([scored(None, one.margins) for one in references]),
        right=np.stack([one.right for one in references]),
        test=setting.test(0),
    )


def run(job: Job) -> Found:
    """Make one suspect and measure it; in a worker."""
    stage, setting = job.stage.load(), job.setting
    suspect = maker(job.suspect)(
        stage, setting.making, np.random.default_rng([job.root, 1, job.number])
    )
    split = stage.split(setting.tested)
    pool = split.pool()
    white = None
    if setting.white and job.suspect in WHITE:
        few = stage.split(setting.white)
        white = MinGD(steps=setting.white_steps).measure(
            suspect, few.pool(), rng=np.random.default_rng(0)
        )
    whole = joined(stage.private, stage.exam)
    said = suspect.embed(whole.images).argmax(axis=1) == whole.labels
    return Found(
        train=float(said[: len(stage.private)].mean()),
        exam=float(said[len(stage.private) :].mean()),
        margins=setting.test(job.root).margins(suspect, split),
        right=(suspect.embed(pool.images).argmax(axis=1) == pool.labels).astype(np.float64),
        white=white,
    )


_SMOKE = Setting(
    size=120,
    exam=100,
    tested=60,
    recipe=Recipe(width=8, epochs=60, batch=16),
    copying=3,
    budget=160,
    jbda=60,
    references=3,
    independents=3,
    resplits=20,
    white=4,
    white_steps=40,
    starts=2,
    steps=10,
    workers=1,
)

EXPERIMENT = Experiment(
    id="classifier-inference",
    title="dataset inference of classifiers: copies and honest ones, corrected and as published",
    scales={
        "smoke": _SMOKE,
        "cpu": Setting(),
        "gpu": Setting(tested=1000, references=20, independents=40, white=200),
    },
    measure=measure,
    promises=(
        "false_accusation_rate",
        "false_accusation_rate.*",
        "power",
        "effect.*",
        "t.*",
        "p.*",
        "published_effect.*",
        "published_p.*",
        "accuracy.*",
    ),
    report=report,
)
