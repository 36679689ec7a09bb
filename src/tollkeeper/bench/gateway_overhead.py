"""Experiment `gateway-overhead`: the same server with the guard on and off.

Two real servers run side by side, each with its own data directory; an idle one costs
nothing. A load generator in a process of its own takes rounds against them in turns,
and each pair of rounds gives one ratio. The hash encoder costs almost nothing, so the
guard has nowhere to hide; a real encoder makes the ratio better.

With 16 connections the server is saturated, so latency there is mostly waiting in
line. The diagnostic `alone` repeats the latency with one connection.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric
from tollkeeper.bench.isolate import ONE_THREAD, run_apart
from tollkeeper.bench.load import Plan, Report
from tollkeeper.bench.server import Server
from tollkeeper.bench.stats import ratio_metric, spread
from tollkeeper.encoders.load import builtin_calibration_path, load_encoder
from tollkeeper.guard.calibration import Calibration

TOLERANCE = 0.10
"""Throughput ratios moved by up to this much between runs on a shared two-core machine."""

_REQUESTS_PER_ROUND = 10**8
"""More than any round can send, so that rounds never share an input."""

_CALIBRATION_TEXTS = 2000


@dataclass(frozen=True, slots=True)
class Setting:
    """How much load, on what.

    Attributes:
        encoder: spec of the cheap encoder that the ratios are measured with.
        real_encoder: spec of the encoder for the diagnostics and the memory metric.
        profile: the guard that is on.
        baseline: the profile that is off.
        inputs: texts per request.
        connections: keep-alive connections.
        rounds: pairs of rounds for each number of inputs.
        warm_s: uncounted seconds at the start of each round.
        seconds: counted seconds of each round.
    """

    encoder: str = "python:tollkeeper.testing.encoders:hash_encoder_768"
    real_encoder: str = "builtin:text"
    profile: str = "recommended"
    baseline: str = "none"
    inputs: tuple[int, ...] = (1, 32)
    connections: int = 16
    rounds: int = 5
    warm_s: float = 0.5
    seconds: float = 4.0


@dataclass(frozen=True, slots=True)
class Pair:
    """One turn of both servers."""

    on: Report
    off: Report


def measure(setting: Setting, context: Context) -> Measurement:
    """Measure the cheap encoder for the ratios, then the real one for memory."""
    steps = _Steps(setting, context)
    with steps.servers(setting.encoder) as cheap:
        pairs = {
            n: cheap.take_turns(n, setting.connections, setting.rounds) for n in setting.inputs
        }
        alone = {n: cheap.take_turns(n, 1, max(1, setting.rounds // 2)) for n in setting.inputs}
    with steps.servers(setting.real_encoder) as real:
        real_pairs = {
            n: real.take_turns(n, setting.connections, max(1, setting.rounds // 2))
            for n in setting.inputs
        }
        memory_mb = real.on.peak_memory_mb()
    found = summarize(pairs, context.rng(1))
    metrics = dict(found.metrics)
    if memory_mb is not None:
        name = setting.real_encoder.replace(":", "_")
        metrics[f"serving_rss_mb.{name}"] = Metric(memory_mb, "MB", "lower", tolerance=0.10)
    diagnostics = {
        **found.diagnostics,
        "alone": _latencies(alone),
        setting.real_encoder: {
            **_latencies(real_pairs),
            **{f"throughput_on_over_off.n{n}": _ratio(p) for n, p in real_pairs.items()},
        },
    }
    return Measurement(metrics, diagnostics)


def summarize(pairs: dict[int, list[Pair]], rng: np.random.Generator) -> Measurement:
    """Turn rounds into throughput ratios and added latencies.

    Args:
        pairs: rounds by number of inputs per request.
        rng: draws the bootstrap.
    """
    metrics = {
        f"throughput_on_over_off.n{n}": ratio_metric(
            [pair.on.per_second for pair in taken],
            [pair.off.per_second for pair in taken],
            direction="higher",
            tolerance=TOLERANCE,
            rng=rng,
        )
        for n, taken in pairs.items()
    }
    rounds = {f"n{n}": [asdict(pair) for pair in taken] for n, taken in pairs.items()}
    return Measurement(metrics, {**_latencies(pairs), "rounds": rounds})


def _latencies(pairs: dict[int, list[Pair]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for n, taken in pairs.items():
        found[f"added_p50_ms.n{n}"] = spread([pair.on.p50_ms - pair.off.p50_ms for pair in taken])
        found[f"added_p99_ms.n{n}"] = spread([pair.on.p99_ms - pair.off.p99_ms for pair in taken])
    return found


def _ratio(pairs: list[Pair]) -> dict[str, float]:
    return spread([pair.on.per_second / pair.off.per_second for pair in pairs])


class _Steps:
    """Counts rounds over the whole experiment, for progress and for distinct inputs."""

    def __init__(self, setting: Setting, context: Context) -> None:
        self.setting = setting
        self.context = context
        self.total = 2 * len(setting.inputs) * (setting.rounds + 2 * max(1, setting.rounds // 2))
        self._numbers = iter(range(self.total))

    def servers(self, encoder: str) -> _Servers:
        return _Servers(self, encoder)

    def round(self, server: Server, *, dim: int, inputs: int, connections: int) -> Report:
        number = next(self._numbers)
        self.context.progress(number, self.total, f"{inputs} inputs, {connections} connections")
        plan = Plan(
            port=server.port,
            key=server.key,
            model=server.model,
            inputs=inputs,
            dim=dim,
            connections=connections,
            warm_s=self.setting.warm_s,
            seconds=self.setting.seconds,
            first=number * _REQUESTS_PER_ROUND,
        )
        return Report(
            **run_apart(
                "tollkeeper.bench.load:generate",
                asdict(plan),
                environment=ONE_THREAD,
                progress=self.context.progress,
            )
        )


class _Servers:
    """The server with the guard on and the one with the guard off, same encoder."""

    def __init__(self, steps: _Steps, encoder: str) -> None:
        self._steps = steps
        self._spec = encoder
        self._encoder = load_encoder(encoder)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            calibration = self._calibrate(folder)
            setting = self._steps.setting
            self.on, self.off = (
                stack.enter_context(
                    Server(
                        folder / name,
                        profile=profile,
                        encoder=self._spec,
                        calibration=calibration,
                    )
                )
                for name, profile in (("on", setting.profile), ("off", setting.baseline))
            )
            self._stack = stack.pop_all()
        return self

    def _calibrate(self, folder: Path) -> Path | None:
        """Write the calibration that an encoder of ours brings along and others do not."""
        if builtin_calibration_path(self._spec) is not None:
            return None
        sample = self._encoder.embed([f"calibration text {i}" for i in range(_CALIBRATION_TEXTS)])
        path = folder / "calibration"
        fitted = Calibration.fit(sample, rng=self._steps.context.rng(2))
        path.write_bytes(fitted.to_bytes())
        return path

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take_turns(self, inputs: int, connections: int, rounds: int) -> list[Pair]:
        """Return `rounds` pairs; every other pair starts with the other server."""
        return list(self._pairs(inputs, connections, rounds))

    def _pairs(self, inputs: int, connections: int, rounds: int) -> Iterator[Pair]:
        def load(server: Server) -> Report:
            return self._steps.round(
                server, dim=self._encoder.dim, inputs=inputs, connections=connections
            )

        for number in range(rounds):
            if number % 2:
                off, on = load(self.off), load(self.on)
            else:
                on, off = load(self.on), load(self.off)
            yield Pair(on, off)


EXPERIMENT = Experiment(
    id="gateway-overhead",
    title="throughput and latency of the server with the guard on and off",
    scales={
        "smoke": Setting(rounds=1, seconds=0.2, warm_s=0.1),
        "cpu": Setting(),
    },
    measure=measure,
    promises=(
        "throughput_on_over_off.n1",
        "throughput_on_over_off.n32",
        "serving_rss_mb.builtin_text",
    ),
    covers=("recommended", "none"),
)
