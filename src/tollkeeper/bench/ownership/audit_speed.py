"""Experiment `audit-speed`: what a test of ownership costs beside its bare numerical core.

The core of the consistency test is making views and embedding them, of mode white its whitening
product too; the encoder is one layer, the cheapest there is, so any real one makes the ratio
smaller. The core of a mixture test is the fit of its densities; checking, preparing and scoring
count against the test. Test and core take turns in one process with one thread, and the clock
counts that thread's processor seconds. Each family has a process of its own, whose peak memory is
read after the first test, before any core has run.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import mixture
from tollkeeper.audit.consistency import Frame, Mode
from tollkeeper.audit.dataset_inference import Residuals, judge
from tollkeeper.audit.split import Split, measure
from tollkeeper.audit.two_sample import two_sample
from tollkeeper.audit.views import Views
from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric, Progress
from tollkeeper.bench.isolate import ONE_THREAD, run_apart
from tollkeeper.bench.stats import ratio_metric, spread
from tollkeeper.encoders.base import Modality
from tollkeeper.types import Batch, Embeddings

TOLERANCE = 0.25
"""As for `guard-speed`."""

_SHAPE = (16, 16, 3)
_REFERENCES = 8
_LATENT = 64
_BATCH = 64
_TEST, _CORE = "test", "core"

Times = dict[str, dict[str, list[float]]]
"""Seconds by contest and by `test` or `core`, one entry per repetition."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is timed.

    Attributes:
        rows: images or representations of one kind.
        width: of embeddings.
        views: per image.
        public: images in which frames are fitted.
        seeds: fits of the corrected mixture.
        iterations: of EM at most.
        repetitions: turns that test and core take.
    """

    rows: int = 50_000
    width: int = 2048
    views: int = 3
    public: int = 4096
    seeds: int = 5
    iterations: int = 20
    repetitions: int = 3


@dataclass(frozen=True, slots=True)
class Contest:
    """A test and its core.

    Attributes:
        test: timed; does the same work each time.
        ready: not timed; what the core starts from.
        core: timed; takes that.
    """

    test: Callable[[], Any]
    ready: Callable[[], Any]
    core: Callable[[Any], Any]


class OneLayer:
    """Embeds images by one random layer: the cheapest encoder of its width."""

    name = "one-layer"
    accepts: frozenset[Modality] = frozenset({"image"})

    def __init__(self, width: int, rng: np.random.Generator) -> None:
        """Draw the layer."""
        self.dim = width
        self._layer = rng.standard_normal((int(np.prod(_SHAPE)), width), dtype=np.float32)

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n images; see `Encoder.embed`."""
        pixels = np.asarray(inputs).reshape(len(inputs), -1).astype(np.float32)
        found: Embeddings = pixels @ self._layer
        return np.maximum(found, 0, out=found)


def measure_speed(setting: Setting, context: Context) -> Measurement:
    """Take the times of each family in a process of its own and summarize them."""
    metrics: dict[str, Metric] = {}
    diagnostics: dict[str, Any] = {"seconds": {}, "ratios": {}}
    for family in FAMILIES:
        found = run_apart(
            "tollkeeper.bench.ownership.audit_speed:take_times",
            {"family": family, "setting": asdict(setting), "seed": context.seed},
            environment=ONE_THREAD,
            progress=context.progress,
        )
        metrics[f"peak_mb.{family}"] = Metric(found["peak_mb"], "MB", "lower", tolerance=TOLERANCE)
        for name, taken in found["times"].items():
            metrics[f"test_over_core.{name}"] = ratio_metric(
                taken[_TEST],
                taken[_CORE],
                direction="lower",
                tolerance=TOLERANCE,
                rng=context.rng(1),
            )
            diagnostics["seconds"][name] = {who: spread(one) for who, one in taken.items()}
            diagnostics["ratios"][name] = spread(np.divide(taken[_TEST], taken[_CORE]))
    return Measurement(metrics, diagnostics=diagnostics, hardware={"blas_threads": 1})


# -- the child process -----------------------------------------------------------


def take_times(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Take the times of one family; runs in the child with the thread's processor clock."""
    setting = msgspec.convert(payload["setting"], Setting)
    context = Context(payload["seed"], time.thread_time, progress)
    return time_family(payload["family"], setting, context)


def time_family(family: str, setting: Setting, context: Context) -> dict[str, Any]:
    """Let tests and cores of a family take turns.

    Returns:
        `times`: seconds by contest; `peak_mb`: of the process after the first tests.
    """
    contests = FAMILIES[family](setting, context.rng(0))
    times: Times = {name: {_TEST: [], _CORE: []} for name in contests}
    peak = 0.0
    for repetition in range(setting.repetitions):
        for name, contest in contests.items():
            context.progress(repetition, setting.repetitions, f"{family}: {name}")
            times[name][_TEST].append(_timed(contest.test, context.clock))
        peak = peak or _peak_mb()
        for name, contest in contests.items():
            start = contest.ready()
            times[name][_CORE].append(_timed(partial(contest.core, start), context.clock))
            del start
    return {"times": times, "peak_mb": peak}


def _timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    started = clock()
    call()
    return clock() - started


def _peak_mb() -> float:
    """Return the most memory that this process had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def consistency_contests(setting: Setting, rng: np.random.Generator) -> dict[str, Contest]:
    """Return the consistency test in modes std and white, with references measured before."""
    images = rng.integers(0, 256, (setting.rows + setting.public, *_SHAPE), dtype=np.uint8)
    half = setting.rows // 2
    split = Split(
        images[:half],
        images[half : setting.rows],
        images[setting.rows :],
        Views(int(rng.integers(2**32)), k=setting.views),
        randomized=True,
    )
    encoder = OneLayer(setting.width, rng)
    references = rng.standard_normal((_REFERENCES, setting.rows))
    modes: dict[str, Mode] = {"consistency_std": "std", "consistency_white": "white"}
    return {
        name: _consistency(mode, split, encoder, references, rng) for name, mode in modes.items()
    }


def _consistency(
    mode: Mode,
    split: Split,
    encoder: OneLayer,
    references: NDArray[np.float64],
    rng: np.random.Generator,
) -> Contest:
    pool = split.pool()
    trained = np.arange(len(pool)) < len(split.trained)

    def test() -> None:
        scores = measure(encoder, split, modes=(mode,), rng=rng)[mode]
        judge(Residuals.of(scores, references), trained, rng=rng)

    def ready() -> Frame:
        # In mode raw a frame does nothing: that of std is no part of the core.
        return Frame.fit(encoder.embed(split.public), "white" if mode == "white" else "raw")

    def core(frame: Frame) -> None:
        for at in range(0, len(pool), _BATCH):
            ids = np.arange(at, min(at + _BATCH, len(pool)))
            for view in range(split.views.k):
                frame.apply(encoder.embed(split.views.make(pool[ids], view, ids)))

    return Contest(test, ready, core)


def mixture_contests(setting: Setting, rng: np.random.Generator) -> dict[str, Contest]:
    """Return the corrected mixture test and the one with the released script's settings."""
    mixing = rng.standard_normal((_LATENT, setting.width), dtype=np.float32)
    centers = rng.standard_normal((2 * _LATENT, _LATENT), dtype=np.float32)

    def draw() -> Embeddings:
        latent = rng.standard_normal((setting.rows, _LATENT), dtype=np.float32)
        latent += centers[rng.integers(0, len(centers), setting.rows)]
        found: Embeddings = latent @ mixing
        return np.tanh(found, out=found)

    parts = draw(), draw(), draw()
    recipes = {
        "mixture": replace(mixture.CORRECTED, seeds=setting.seeds, iterations=setting.iterations),
        "mixture_released": replace(mixture.RELEASED, iterations=setting.iterations),
    }
    return {name: _mixture(recipe, parts, rng) for name, recipe in recipes.items()}


def _mixture(
    recipe: mixture.MixtureRecipe,
    parts: tuple[Embeddings, Embeddings, Embeddings],
    rng: np.random.Generator,
) -> Contest:
    seed = int(rng.integers(2**32))

    def test() -> None:
        scores = mixture.gmm_scores(*parts, recipe=recipe, rng=np.random.default_rng(seed))
        two_sample(*scores, rng=rng)

    def ready() -> NDArray[np.floating]:
        return mixture.Preparation.fit(parts[0], recipe).rows(parts[0], recipe)

    def core(prepared: NDArray[np.floating]) -> None:
        mixture.densities(prepared, recipe, rng=np.random.default_rng(seed))

    return Contest(test, ready, core)


FAMILIES: Mapping[str, Callable[[Setting, np.random.Generator], dict[str, Contest]]] = {
    "consistency": consistency_contests,
    "mixture": mixture_contests,
}
"""Tests that share a process and its data."""

EXPERIMENT = Experiment(
    id="audit-speed",
    title="cost of ownership tests over their bare numerical cores",
    scales={
        "smoke": Setting(
            rows=400, width=32, views=2, public=128, seeds=1, iterations=2, repetitions=2
        ),
        "cpu": Setting(),
    },
    measure=measure_speed,
    promises=("test_over_core.consistency_*", "test_over_core.mixture*", "peak_mb.*"),
)
