"""Experiment `same-speed`: what a detector's score costs beside the victim's own answer.

Victim and detectors are ONNX graphs on one thread. In each cell (width of the victim, queries per
call) all take turns in one process, so that a busy machine slows all of them alike; each repetition
gives one ratio. Time does not depend on what networks learned, so theirs are untrained. The clock
counts the thread's own processor seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric, Progress
from tollkeeper.bench.isolate import ONE_THREAD, run_apart
from tollkeeper.bench.stats import ratio_metric, spread
from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.edm import Edm
from tollkeeper.detectors.floors import Energy, MaxSoftmax, PixelShare
from tollkeeper.detectors.fused import Fused
from tollkeeper.detectors.lab.bundling import recipe_for
from tollkeeper.detectors.lab.mae import PUBLISHED, MaeLayout
from tollkeeper.detectors.lab.same import same_x
from tollkeeper.detectors.outlier_exposure import OutlierExposure
from tollkeeper.detectors.same import LOGITS, Same
from tollkeeper.graphs import Graph
from tollkeeper.lab.conv3 import Conv3, conv3
from tollkeeper.lab.exporting import export_graph

SHAPE, CLASSES = (1, 28, 28), 10
TOLERANCE = 0.25
"""As for `guard-speed`."""

EDM_MEMBERS = 5
"""As published."""

VICTIM = "victim"
SLOW = frozenset({"same-published"})
"""What takes a hundred times the victim gets one call in a turn, and fewer turns."""

_ROWS_PER_SAMPLE = 64
_FITTED = 800
"""Honest queries that the fused score is fitted on; its cost does not depend on them."""

Times = dict[str, list[float]]
"""Seconds per query by contestant, one entry per repetition."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is timed.

    Attributes:
        widths: of the victim's first convolution; 32 is the paper's.
        batches: queries per call.
        repetitions: turns that every contestant takes.
        slow: turns of those in `SLOW`.
    """

    widths: tuple[int, ...] = (32, 16)
    batches: tuple[int, ...] = (1, 32)
    repetitions: int = 100
    slow: int = 5


class Stand:
    """A victim, and what detectors of it are made of."""

    def __init__(self, width: int, rng: np.random.Generator) -> None:
        """Make an untrained victim of this width."""
        self.rng, self.width = rng, width
        self.network = conv3(SHAPE, CLASSES, rng, width=width)
        self.victim = Graph(export_graph(self.network, SHAPE, outputs=(LOGITS,)), name=VICTIM)
        self.images = rng.random((_ROWS_PER_SAMPLE, *SHAPE), dtype=np.float32)
        self.answers = rng.dirichlet(np.ones(CLASSES), _ROWS_PER_SAMPLE).astype(np.float32)

    def same(self, layout: MaeLayout, *, auxiliary: bool = True) -> Contestant:
        """Return SAME of these sizes, its auxiliary model as large as the victim."""
        alone = same_x(layout.build(SHAPE, self.rng), classes=CLASSES)
        if not auxiliary:
            return Contestant(alone, layout.flops(SHAPE))
        flops = layout.flops(SHAPE) + conv_flops(self.network, SHAPE)
        return Contestant(Same(alone.reconstruction, self.victim, classes=CLASSES), flops)

    def fused(self, layout: MaeLayout) -> Contestant:
        """Return the fused score over an autoencoder of these sizes, fitted on noise."""
        alone = same_x(layout.build(SHAPE, self.rng), classes=CLASSES)
        images = self.rng.random((_FITTED, *SHAPE), dtype=np.float32)
        answers = self.rng.dirichlet(np.ones(CLASSES), _FITTED).astype(np.float32)
        half = _FITTED // 2
        made = Fused.fitted(
            alone,
            images[:half],
            answers[:half],
            calibration_images=images[half:],
            calibration_answers=answers[half:],
        )
        # Beside the networks it takes distances in a few hundred coordinates.
        return Contestant(made, layout.flops(SHAPE))


@dataclass(frozen=True, slots=True)
class Contestant:
    """A detector, and the floating-point operations of its networks for one query."""

    detector: Detector
    flops: float


DETECTORS: Mapping[str, Callable[[Stand], Contestant]] = {
    "max-softmax": lambda _: Contestant(MaxSoftmax(SHAPE, CLASSES), 0),
    "pixel-share": lambda _: Contestant(PixelShare(SHAPE, CLASSES, 0.1, 0.2), 0),
    "energy": lambda stand: Contestant(
        Energy(stand.victim, classes=CLASSES), conv_flops(stand.network, SHAPE)
    ),
    # A victim trained otherwise answers; here it is asked beside the victim, as in the experiments.
    "oe": lambda stand: Contestant(
        OutlierExposure(stand.victim.to_bytes(), classes=CLASSES),
        conv_flops(stand.network, SHAPE),
    ),
    "edm": lambda stand: Contestant(
        Edm([stand.victim.to_bytes()] * EDM_MEMBERS, classes=CLASSES),
        EDM_MEMBERS * conv_flops(stand.network, SHAPE),
    ),
    "same-x": lambda stand: stand.same(MaeLayout(), auxiliary=False),
    "same-x-width32": lambda stand: stand.same(MaeLayout(width=32), auxiliary=False),
    "same": lambda stand: stand.same(MaeLayout()),
    "fused": lambda stand: stand.fused(recipe_for(SHAPE, labels=True).fused.layout),
    "same-published": lambda stand: stand.same(PUBLISHED),
}
"""Everything that is timed: anything that scores can be added."""


def conv_flops(network: Conv3, shape: tuple[int, int, int]) -> float:
    """Return what the convolutions and layers of one forward pass take, a multiply-add being 2."""
    found: list[float] = []

    def count(layer: Any, _: object, output: Tensor) -> None:
        found.append(2.0 * layer.weight[0].numel() * output[0].numel())

    layers = [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    hooks = [one.register_forward_hook(count) for one in layers]
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return sum(found)


def measure(setting: Setting, context: Context) -> Measurement:
    """Take all times in a process with one thread and summarize them."""
    payload = {"setting": asdict(setting), "seed": context.seed}
    found = run_apart(
        "tollkeeper.bench.predict.scoring_speed:take_times",
        payload,
        environment=ONE_THREAD,
        progress=context.progress,
    )
    return summarize(found["times"], found["flops"], rng=context.rng(1))


def summarize(
    cells: Mapping[str, Times],
    flops: Mapping[str, Mapping[str, float]],
    *,
    rng: np.random.Generator,
) -> Measurement:
    """Turn times into ratios.

    Args:
        cells: times by cell name, for example `w32.b1`.
        flops: by width name, for example `w32`, and contestant.
        rng: draws the bootstrap.
    """
    metrics: dict[str, Metric] = {}
    ratios: dict[str, Any] = {}
    for cell, times in cells.items():
        for name, taken in times.items():
            if name == VICTIM:
                continue
            victim = times[VICTIM][: len(taken)]
            metrics[f"score_over_victim.{name}.{cell}"] = ratio_metric(
                taken, victim, direction="lower", tolerance=TOLERANCE, rng=rng
            )
            ratios[f"{name}.{cell}"] = spread(np.divide(taken, victim))
    micros = {
        cell: {
            name: {key: 1e6 * value for key, value in spread(taken).items()}
            for name, taken in times.items()
        }
        for cell, times in cells.items()
    }
    operations = {
        width: {
            name: {"mflop": count / 1e6, "over_victim": count / counts[VICTIM]}
            for name, count in counts.items()
        }
        for width, counts in flops.items()
    }
    return Measurement(
        metrics,
        diagnostics={
            "microseconds_per_query": micros,
            "ratios": ratios,
            "operations_per_query": operations,
        },
        hardware={"blas_threads": 1},
    )


# -- the child process -----------------------------------------------------------


def take_times(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Take all times; runs in the child with the thread's processor clock."""
    setting = msgspec.convert(payload["setting"], Setting)
    return time_cells(setting, Context(payload["seed"], time.thread_time, progress))


def time_cells(
    setting: Setting,
    context: Context,
    detectors: Mapping[str, Callable[[Stand], Contestant]] = DETECTORS,
) -> dict[str, Any]:
    """Time every width and batch.

    Returns:
        `times`: cell to contestant to seconds per query; `flops`: width to contestant to
        operations per query.
    """
    times: dict[str, Times] = {}
    flops: dict[str, dict[str, float]] = {}
    total = len(setting.widths) * len(setting.batches)
    for width in setting.widths:
        stand = Stand(width, context.rng(0, width))
        made = {name: make(stand) for name, make in detectors.items()}
        flops[f"w{width}"] = {
            VICTIM: conv_flops(stand.network, SHAPE),
            **{name: one.flops for name, one in made.items()},
        }
        for batch in setting.batches:
            context.progress(len(times), total, f"width {width}, {batch} queries per call")
            calls = _calls(stand, made, batch)
            times[f"w{width}.b{batch}"] = _take_turns(calls, setting, batch, context.clock)
    return {"times": times, "flops": flops}


Call = Callable[[int], Any]
"""Answers or scores the queries from a place on."""


def _calls(stand: Stand, made: Mapping[str, Contestant], batch: int) -> dict[str, Call]:
    def scoring(detector: Detector) -> Call:
        return lambda at: detector.score(
            stand.images[at : at + batch], stand.answers[at : at + batch]
        )

    return {
        VICTIM: lambda at: stand.victim.run(stand.images[at : at + batch]),
        **{name: scoring(one.detector) for name, one in made.items()},
    }


def _take_turns(
    calls: Mapping[str, Call], setting: Setting, batch: int, clock: Callable[[], float]
) -> Times:
    names = list(calls)
    times: Times = {name: [] for name in names}
    for call in calls.values():
        call(0)
    for repetition in range(setting.repetitions):
        # The order turns round each time, so that nobody always runs on warm caches.
        for name in names if repetition % 2 else names[::-1]:
            rows = batch if name in SLOW else max(batch, _ROWS_PER_SAMPLE)
            if name not in SLOW or repetition < setting.slow:
                times[name].append(_per_query(calls[name], rows, batch, clock))
    return times


def _per_query(call: Call, rows: int, batch: int, clock: Callable[[], float]) -> float:
    started = clock()
    for at in range(0, rows, batch):
        call(at)
    return (clock() - started) / rows


EXPERIMENT = Experiment(
    id="same-speed",
    title="cost of a detector's score over the victim's own forward pass",
    scales={
        "smoke": Setting(widths=(16,), repetitions=3, slow=1),
        "cpu": Setting(),
    },
    measure=measure,
    promises=(
        "score_over_victim.same.w*.b*",
        "score_over_victim.same-x.w*.b*",
        "score_over_victim.same-published.w*.b*",
    ),
)
