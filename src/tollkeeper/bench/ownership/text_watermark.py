"""Experiment `text-watermark`: marks of text services, who removes them, and who is accused.

Real texts, the built-in text encoder as the service, copies that are trained on its answers. Each
copy is judged by tests with an exact null and by those of the papers; the same tests judge suspects
that never met a mark, under keys that were never planted.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.base import OwnershipResult, OwnershipTest
from tollkeeper.audit.watermarks.served import MarkedEncoder, unit
from tollkeeper.audit.watermarks.trigger_tests import (
    DecoySetTest,
    GroupTest,
    MutualTest,
    PublishedTest,
)
from tollkeeper.audit.watermarks.wet import WetKey, WetTest
from tollkeeper.bench.experiment import Context, Direction, Experiment, Measurement, Metric
from tollkeeper.bench.ownership.text_report import report
from tollkeeper.bench.ownership.text_scene import (
    MARKS,
    Scene,
    Setting,
    innocents,
    load_scene,
    thieves,
)
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused, ConfigurationError
from tollkeeper.types import Embeddings

LEVEL = 0.01
"""At which innocent suspects are counted as accused."""

INNOCENT = "innocent"

_FEW = 300
"""Texts of one test of WET on an innocent suspect, of which there are hundreds."""

E = TypeVar("E")

Question = Callable[[Encoder, np.random.Generator], OwnershipResult]


@dataclass(frozen=True, slots=True)
class Job:
    """One mark of one seed, or the innocent suspects, on one data set.

    Attributes:
        dataset: of the scene.
        mark: of `MARKS`, or `INNOCENT`.
        seed: which of the owner's.
        root: seed of the run.
        setting: of the experiment.
    """

    dataset: str
    mark: str
    seed: int
    root: int
    setting: Setting

    @property
    def name(self) -> str:
        """For progress."""
        return f"{self.dataset} {self.mark} {self.seed}"

    def rng(self, *path: int) -> np.random.Generator:
        """Return a generator that other jobs of the data set do not change."""
        return np.random.default_rng([self.root, *self.dataset.encode(), *path])

    def secret(self, index: int) -> bytes:
        """Return an owner's seed of this run."""
        told = f"{self.root} {self.dataset} {self.mark} {index}".encode()
        return hashlib.sha256(told).digest()


@dataclass(frozen=True, slots=True)
class Found:
    """What a job measured.

    Attributes:
        values: by name, without a seed in it.
        facts: that only inform.
        data: checksums.
    """

    values: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)


def measure(setting: Setting, context: Context) -> Measurement:
    """Measure every mark under every seed, and the innocent.

    Raises:
        ConfigurationError: an unknown data set, or too few texts.
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    if setting.seeds < 1 or setting.keys < 1:
        raise ConfigurationError("expected at least one seed and one key that was never planted")
    jobs = [
        Job(dataset, mark, seed, context.seed, setting)
        for dataset in setting.datasets
        for mark in (INNOCENT, *MARKS)
        for seed in range(1 if mark == INNOCENT else setting.seeds)
    ]
    context.progress(0, len(jobs), jobs[0].name)
    found = run_jobs(run, jobs, workers=setting.workers, progress=context.progress)
    gathered: dict[str, list[float]] = defaultdict(list)
    for one in found:
        for name, value in one.values.items():
            gathered[name].append(value)
    return Measurement(
        {name: _metric(name, values, setting) for name, values in gathered.items()},
        diagnostics={job.name: one.facts for job, one in zip(jobs, found, strict=True)},
        data={name: digest for one in found for name, digest in one.data.items()},
    )


def run(job: Job) -> Found:
    """Measure one job; runs in a worker."""
    found = Found()
    scene = load_scene(job.dataset, job.setting, rng=job.rng(), data=found.data)
    found.facts.update(texts=len(scene.pool), band=len(scene.words))
    if job.mark == INNOCENT:
        _accuse(job, scene, found)
    else:
        _catch(job, scene, found)
    return found


def _catch(job: Job, scene: Scene, found: Found) -> None:
    """Let thieves copy a marked service and test their copies."""
    service = MarkedEncoder(scene.service, scene.mark(job.mark, job.secret(job.seed)))
    path = f"{job.dataset}.{job.mark}"
    clean, marked = (unit(one.embed(scene.pool)) for one in (scene.service, service))
    kept = (clean * marked).sum(axis=1)
    found.values[f"marked.{path}"] = float((kept < 1 - 1e-6).mean())
    found.values[f"change.{path}"] = float(1 - kept.mean())
    found.values[f"accuracy.{path}.service"] = scene.accuracy(service)
    questions = dict(_questions(job, scene))
    rng = job.rng(1 + job.seed, *job.mark.encode())
    suspects = [("service", service), *thieves(scene, service, rng)]
    for name, suspect in suspects:
        for test, ask in questions.items():
            _judge(f"{path}.{name}.{test}", ask, suspect, found, rng)
    for name, suspect in suspects[1:]:
        if name in _TRAINED:
            found.values[f"accuracy.{path}.{name}"] = scene.accuracy(suspect)


_TRAINED = ("none", "cse", "paraphrase")


def _judge(
    path: str, ask: Question, suspect: Encoder, found: Found, rng: np.random.Generator
) -> None:
    """Note the p-value and the effect of one test; a refused one has p = 1 and no effect."""
    try:
        result = ask(suspect, rng)
    except AuditRefused as refusal:
        found.facts[f"refused.{path}"] = str(refusal)
        found.values[f"log10_p.{path}"] = 0.0
        return
    found.values[f"log10_p.{path}"] = -math.log10(result.p_value)
    found.values[f"delta_cos.{path}"] = 100 * result.effect_size
    if "auc" in result.details:
        found.values[f"auc.{path}"] = result.details["auc"]


def _questions(job: Job, scene: Scene) -> Iterator[tuple[str, Question]]:
    """Yield the tests of a mark, by name."""
    setting, secret = job.setting, job.secret(job.seed)
    if job.mark == "wet":
        evidence = scene.mapped(WetKey(secret, scene.service.dim))
        yield "back", _question(WetTest(setting.maps), evidence)
        yield "forward", _question(WetTest(setting.maps, "forward"), evidence)
        return
    key = scene.key(secret, several=job.mark == "warden")
    asked, held = scene.asked(key), scene.held(key)
    yield "groups", _question(GroupTest(setting.draws), asked)
    yield "groups_vector", _question(GroupTest(setting.draws), held)
    yield "mutual", _question(MutualTest(setting.draws), asked)
    yield "decoys", _question(DecoySetTest(setting.decoys, setting.set_texts), asked)
    yield "ks", _question(PublishedTest(), asked)
    yield "ks_vector", _question(PublishedTest(), held)


def _question(test: OwnershipTest[E], evidence: E) -> Question:
    """Return a test with its evidence."""
    return lambda suspect, rng: test.run(suspect, evidence, rng=rng)


def _accuse(job: Job, scene: Scene, found: Found) -> None:
    """Test suspects that never met a mark under keys that were never planted."""
    path = f"{job.dataset}.none"
    for name, suspect in innocents(scene, job.rng(0)):
        found.values[f"accuracy.{path}.{name}"] = scene.accuracy(suspect)
        known = _Known(suspect)
        p_values: dict[str, list[float]] = defaultdict(list)
        for at in range(job.setting.keys):
            for test, ask in _accusations(job, scene, job.secret(at), suspect.dim):
                p_values[test].append(_p_value(ask, known, job.rng(at)))
        for test, found_here in p_values.items():
            share = float(np.mean(np.array(found_here) <= LEVEL))
            found.values[f"false_accusation.{job.dataset}.{name}.{test}"] = share


def _p_value(ask: Question, suspect: Encoder, rng: np.random.Generator) -> float:
    """Return a test's p-value; a refused one accuses nobody."""
    try:
        return ask(suspect, rng).p_value
    except AuditRefused:
        return 1.0


def _accusations(job: Job, scene: Scene, secret: bytes, dim: int) -> Iterator[tuple[str, Question]]:
    """Yield tests of one key that nobody planted; those by vector where widths agree."""
    one, five = (scene.asked(scene.key(secret, several=several)) for several in (False, True))
    draws = min(job.setting.draws, 999)
    yield "groups", _question(GroupTest(draws), one)
    yield "groups_warden", _question(GroupTest(draws), five)
    yield "mutual", _question(MutualTest(draws), one)
    yield "ks", _question(PublishedTest(), one)
    yield "ks_warden", _question(PublishedTest(), five)
    if dim == scene.service.dim:
        wet = WetTest(min(job.setting.maps, 199))
        yield "wet", _question(wet, scene.mapped(WetKey(secret, dim), texts=_FEW))


class _Known:
    """A suspect that is asked each text once; hundreds of keys share words."""

    def __init__(self, suspect: Encoder) -> None:
        self.name, self.dim, self.accepts = suspect.name, suspect.dim, suspect.accepts
        self._suspect = suspect
        self._rows: dict[str, NDArray[np.float32]] = {}

    def embed(self, inputs: Any) -> Embeddings:
        new = [text for text in dict.fromkeys(inputs) if text not in self._rows]
        if new:
            self._rows.update(zip(new, self._suspect.embed(new), strict=True))
        return np.stack([self._rows[text] for text in inputs])


_FAMILIES: Mapping[str, tuple[str, Direction]] = {
    "log10_p": ("-log10 p", "higher"),
    "delta_cos": ("percent", "higher"),
    "auc": ("ratio", "higher"),
    "accuracy": ("ratio", "higher"),
    "marked": ("ratio", "lower"),
    "change": ("1 - cosine", "lower"),
    "false_accusation": ("ratio", "lower"),
}


def _metric(name: str, values: list[float], setting: Setting) -> Metric:
    """Return a mean with the range over seeds, or a share with its 95% interval."""
    unit_name, direction = _FAMILIES[name.partition(".")[0]]
    mean = float(np.mean(values))
    interval = (min(values), max(values)) if len(values) > 1 else None
    if name.startswith("false_accusation"):
        interval = _shares(mean, setting.keys)
    if interval is not None:  # a mean of equal numbers may differ in its last bits
        interval = (min(interval[0], mean), max(interval[1], mean))
    return Metric(mean, unit_name, direction, interval)


def _shares(share: float, count: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest

    found = binomtest(round(share * count), count).proportion_ci(0.95)
    return float(found.low), float(found.high)


EXPERIMENT = Experiment(
    id="text-watermark",
    title="marks of text services: EmbMarker, WARDEN, ESpeW and WET against thieves who adapt",
    scales={
        "smoke": Setting(
            datasets=("sst2",),
            pool=300,
            probe=200,
            test=200,
            epochs=1,
            seeds=1,
            directions=8,
            rewrites=2,
            decoys=99,
            maps=99,
            draws=999,
            keys=20,
            workers=1,
        ),
        "cpu": Setting(),
    },
    measure=measure,
    promises=tuple(
        pattern
        for dataset in ("ag_news", "sst2")
        for pattern in (
            *(f"log10_p.{dataset}.{mark}.none.groups" for mark in MARKS[:3]),
            f"log10_p.{dataset}.wet.none.back",
            f"log10_p.{dataset}.*.cse.*",
            f"accuracy.{dataset}.*.paraphrase",
            f"false_accusation.{dataset}.*.groups",
            f"false_accusation.{dataset}.*.ks",
        )
    ),
    report=report,
)
