"""Experiment `guard-speed`: what `Guard.admit` costs beside the matrix product it needs.

All contestants of one cell (width x batch) take turns in one process with BLAS pinned
to one thread, so that a busy machine slows all of them alike; each repetition gives one
ratio, and the metric is the median ratio. The clock counts the thread's own processor
seconds: none of the contestants waits for anything, and time in which another process
had the core belongs to nobody here. The child process only takes times; the parent
turns them into metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np

from tollkeeper.bench import b4b_reference
from tollkeeper.bench.experiment import (
    BenchError,
    Context,
    Experiment,
    Measurement,
    Metric,
    Progress,
)
from tollkeeper.bench.isolate import ONE_THREAD, run_apart
from tollkeeper.bench.stats import ratio_metric, spread
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Embeddings, Sketch, Verdict

REFERENCE_BATCH = 32
TOLERANCE = 0.25
"""Two runs on a loaded two-core machine differed by up to 25% in their median ratios."""

_SLOW = frozenset({"reference", "reference_per_input", "admit_b4b_2023"})
_VARIETY = 8
_ROWS_PER_SAMPLE = 128
_SECRET = bytes(range(32))
_KNEE_STEPS = 400

Times = dict[str, list[float]]
"""Seconds per call by contestant, one entry per repetition."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is timed.

    Attributes:
        dims: embedding widths.
        batches: inputs per call.
        repetitions: turns that every contestant takes.
        references: turns of what takes milliseconds: B4B's own routine and `b4b-2023`.
    """

    dims: tuple[int, ...] = (384, 768, 1536)
    batches: tuple[int, ...] = (1, 32, 256)
    repetitions: int = 200
    references: int = 40


def measure(setting: Setting, context: Context) -> Measurement:
    """Take all times in a process with one BLAS thread and summarize them."""
    payload = {"setting": asdict(setting), "seed": context.seed}
    found = run_apart(
        "tollkeeper.bench.guard_speed:take_times",
        payload,
        environment=ONE_THREAD,
        progress=context.progress,
    )
    return summarize(found["times"], found["state_bytes"], rng=context.rng(1))


def summarize(
    cells: Mapping[str, Times], state_bytes: Mapping[str, int], *, rng: np.random.Generator
) -> Measurement:
    """Turn times into ratios.

    Args:
        cells: times by cell name, for example `d768.b32`.
        state_bytes: bytes of state per tenant by width name, for example `d768`.
        rng: draws the bootstrap.
    """
    metrics: dict[str, Metric] = {}
    micros: dict[str, Any] = {}
    informative: dict[str, Any] = {}
    for cell, times in cells.items():
        for metric, top, bottom, direction in _GATING:
            if top in times:
                name = cell.partition(".")[0] if top == "reference" else cell
                metrics[f"{metric}.{name}"] = ratio_metric(
                    times[top],
                    times[bottom][: len(times[top])],
                    direction=direction,
                    tolerance=TOLERANCE,
                    rng=rng,
                )
        micros[cell] = {
            name: {key: 1e6 * value for key, value in spread(taken).items()}
            for name, taken in times.items()
        }
        for metric, top, bottom in _INFORMATIVE:
            if top in times:
                taken = np.divide(times[top], times[bottom][: len(times[top])])
                informative[f"{metric}.{cell}"] = spread(taken)
    for width, size in state_bytes.items():
        metrics[f"state_bytes.{width}"] = Metric(float(size), "bytes", "lower")
    return Measurement(
        metrics,
        diagnostics={"microseconds": micros, "ratios": informative},
        hardware={"blas_threads": 1},
    )


_GATING: tuple[tuple[str, str, str, Any], ...] = (
    ("admit_over_projection", "admit", "projection", "lower"),
    ("admit_noisy_over_projection", "admit_noisy", "projection", "lower"),
    ("reference_over_admit", "reference", "admit", "higher"),
)
_INFORMATIVE = (
    ("new_tenant_over_projection", "admit_new_tenant", "projection"),
    ("reference_per_input_over_admit", "reference_per_input", "admit"),
    ("b4b_2023_over_projection", "admit_b4b_2023", "projection"),
)


# -- the child process -----------------------------------------------------------


def take_times(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Take all times; runs in the child with the thread's processor clock."""
    setting = msgspec.convert(payload["setting"], Setting)
    return time_cells(setting, Context(payload["seed"], time.thread_time, progress))


def time_cells(setting: Setting, context: Context) -> dict[str, Any]:
    """Time every width and batch.

    Returns:
        `times`: cell to contestant to seconds per call; `state_bytes`: width to bytes.
    """
    times: dict[str, Times] = {}
    state_bytes: dict[str, int] = {}
    total = len(setting.dims) * len(setting.batches)
    for dim in setting.dims:
        stage = _Stage(dim, rng=context.rng(0, dim))
        state_bytes[f"d{dim}"] = stage.guard.sketch_bytes
        for batch in setting.batches:
            context.progress(len(times), total, f"d={dim}, batch {batch}")
            times[f"d{dim}.b{batch}"] = _take_turns(
                stage.contestants(batch), setting, batch=batch, clock=context.clock
            )
    return {"times": times, "state_bytes": state_bytes}


Call = Callable[[int], Any]


def _take_turns(
    contestants: Mapping[str, Call], setting: Setting, *, batch: int, clock: Callable[[], float]
) -> Times:
    calls = max(1, _ROWS_PER_SAMPLE // batch)
    names = list(contestants)
    times: Times = {name: [] for name in names}
    for contestant in contestants.values():
        for index in range(_VARIETY):
            contestant(index)
    for repetition in range(setting.repetitions):
        # The order turns round each time, so that nobody always runs on warm caches.
        for name in names if repetition % 2 else names[::-1]:
            if name not in _SLOW:
                times[name].append(_per_call(contestants[name], calls, clock))
            elif repetition < setting.references:
                times[name].append(_per_call(contestants[name], 1, clock))
    return times


def _per_call(contestant: Call, calls: int, clock: Callable[[], float]) -> float:
    started = clock()
    for index in range(calls):
        contestant(index)
    return (clock() - started) / calls


class _Stage:
    """Everything of one width that is ready before the clock starts."""

    def __init__(self, dim: int, *, rng: np.random.Generator) -> None:
        self._dim = dim
        self._rng = rng
        self._centers = rng.standard_normal((64, dim))
        calibration = Calibration.fit(self._embeddings(2048), rng=rng)
        self.guard = Guard(profiles.get("recommended"), calibration, secret=_SECRET)
        self._b4b = Guard(profiles.get("b4b-2023"), calibration, secret=_SECRET)
        self._low = self._ask(self.guard, self.guard.empty(), 64)
        self._high = self._past_knee(self.guard)
        self._b4b_low = self._ask(self._b4b, self._b4b.empty(), 64)
        self._projections = b4b_reference.draw_projections(dim, rng=rng)
        self._planes = np.concatenate(self._projections, axis=1).astype(np.float32)

    def contestants(self, batch: int) -> dict[str, Call]:
        """Return what takes turns at one batch size; each is called with a running index."""
        batches = [self._embeddings(batch) for _ in range(_VARIETY)]
        planes = self._planes
        found: dict[str, Call] = {
            "projection": lambda i: batches[i % _VARIETY] @ planes,
            "admit": self._admit(self.guard, self._low, batches),
            "admit_noisy": self._admit(self.guard, self._high, batches),
            "admit_new_tenant": self._admit_strangers(batches),
            "admit_b4b_2023": self._admit(self._b4b, self._b4b_low, batches),
        }
        if batch == REFERENCE_BATCH:
            visited: list[set[str]] = [set() for _ in self._projections]

            def refer(embeddings: Embeddings) -> float:
                return b4b_reference.update_coverage(visited, embeddings, self._projections)

            found["reference"] = lambda i: refer(batches[i % _VARIETY])
            # As a live service would call it: every input is charged on its own.
            found["reference_per_input"] = lambda i: [
                refer(row[None]) for row in batches[i % _VARIETY]
            ]
        return found

    def _admit(self, guard: Guard, sketch: Sketch, batches: Sequence[Embeddings]) -> Call:
        key, rng = guard.tenant_key("bench"), self._rng
        identities = [self._identities(len(batch)) for batch in batches]

        def admit(i: int) -> Verdict:
            i %= _VARIETY
            return guard.admit(sketch, batches[i], key=key, rng=rng, identities=identities[i])

        return admit

    def _admit_strangers(self, batches: Sequence[Embeddings]) -> Call:
        """Like `_admit`, but every call is another tenant's first: no cached transform helps."""
        guard, sketch, rng = self.guard, self._low, self._rng
        identities = [self._identities(len(batch)) for batch in batches]
        seen = iter(range(2**62))

        def admit(i: int) -> Verdict:
            i %= _VARIETY
            key = next(seen).to_bytes(32, "big")
            return guard.admit(sketch, batches[i], key=key, rng=rng, identities=identities[i])

        return admit

    def _identities(self, n: int) -> list[bytes]:
        return [self._rng.bytes(16) for _ in range(n)]

    def _embeddings(self, n: int) -> Embeddings:
        """Return (n, d) unit vectors around 64 Gaussian centers."""
        centers = self._centers[self._rng.integers(0, len(self._centers), n)]
        rows = centers + self._rng.standard_normal((n, self._dim))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows.astype(np.float32)

    def _ask(self, guard: Guard, sketch: Sketch, n: int) -> Sketch:
        key = guard.tenant_key("bench")
        return guard.admit(sketch, self._embeddings(n), key=key, rng=self._rng).sketch

    def _past_knee(self, guard: Guard) -> Sketch:
        """Return a sketch after so many queries that every answer carries noise."""
        key, sketch = guard.tenant_key("bench"), guard.empty()
        for _ in range(_KNEE_STEPS):
            verdict = guard.admit(sketch, self._embeddings(256), key=key, rng=self._rng)
            sketch = verdict.sketch
            if verdict.noise_scale.min() > 0:
                return sketch
        raise BenchError(f"{guard.version}: no noise after {256 * _KNEE_STEPS} queries")


EXPERIMENT = Experiment(
    id="guard-speed",
    title="cost of admitting embeddings over the bare projection product",
    scales={
        "smoke": Setting(dims=(64,), batches=(1, 32), repetitions=3, references=2),
        "cpu": Setting(),
    },
    measure=measure,
    promises=("admit_over_projection.d*.b*", "reference_over_admit.d*", "state_bytes.d*"),
    covers=("recommended", "b4b-2023"),
)
