"""Experiment `gateway-overhead`: the same server with the guard on and off.

Two real servers run side by side, each with its own data directory; an idle one costs
nothing. A load generator in a process of its own takes rounds against them in turns,
and each pair of rounds gives one ratio. The hash encoder costs almost nothing, so the
guard has nowhere to hide; a real encoder makes the ratio better.

Every input is new, so the one tenant passes the knee within the first seconds and its
answers carry noise: the guard's most expensive state. The `quiet` turns ask so few
different inputs that the tenant stays below the knee, and the last ones use a real
encoder. With 16 connections the server is saturated, so latency is mostly waiting in
line; the diagnostic `alone` has one connection.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric
from tollkeeper.bench.isolate import ONE_THREAD, run_apart
from tollkeeper.bench.load import Plan, Report
from tollkeeper.bench.server import Server
from tollkeeper.bench.stats import ratio_metric, spread
from tollkeeper.encoders.load import builtin_calibration_path, load_encoder
from tollkeeper.guard.calibration import Calibration

TOLERANCE = 0.25
"""As for `guard-speed`: server, load generator and neighbors share two cores."""

_REQUESTS_PER_ROUND = 10**8
"""More than any round can send, so that rounds never share an input."""

_QUIET_INPUTS = 250
"""Inputs per quiet round; all quiet rounds together stay below every profile's knee."""

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
    seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One round against one server.

    Attributes:
        load: what the load generator saw.
        cpu_ms: the server's processor time per request; None off Linux. A busy
            machine changes it far less than the clock on the wall.
    """

    load: Report
    cpu_ms: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """One turn of both servers."""

    on: Turn
    off: Turn


Pairs = dict[int, list[Pair]]
"""Turns by number of inputs per request."""


def measure(setting: Setting, context: Context) -> Measurement:
    """Measure the cheap encoder for the ratios, then the real one for memory."""
    steps = _Steps(setting, context)
    few = max(1, setting.rounds // 2)
    with steps.servers(setting.encoder) as cheap:
        quiet = cheap.take_turns(setting.rounds, distinct=_QUIET_INPUTS)
        loud = cheap.take_turns(setting.rounds)
        alone = cheap.take_turns(few, connections=1)
    with steps.servers(setting.real_encoder) as real:
        real_loud = real.take_turns(setting.rounds)
        memory_mb = real.on.peak_memory_mb()
    name = setting.real_encoder.replace(":", "_")
    metrics = throughput_metrics(loud, context.rng(1))
    metrics |= throughput_metrics(quiet, context.rng(2), of="quiet.")
    metrics |= throughput_metrics(real_loud, context.rng(3), of=f"{name}.")
    if memory_mb is not None:
        metrics[f"serving_rss_mb.{name}"] = Metric(memory_mb, "MB", "lower", tolerance=0.10)
    diagnostics = {
        **describe(loud),
        "quiet": describe(quiet),
        "alone": describe(alone),
        setting.real_encoder: describe(real_loud),
        "rounds": {f"n{n}": [asdict(pair) for pair in pairs] for n, pairs in loud.items()},
    }
    return Measurement(metrics, diagnostics, hardware={"blas_threads": 1})


def throughput_metrics(
    turns: Pairs, rng: np.random.Generator, *, of: str = ""
) -> dict[str, Metric]:
    """Return the ratio of requests per second for each number of inputs; `of` names the load."""
    return {
        f"throughput_on_over_off.{of}n{n}": ratio_metric(
            [pair.on.load.per_second for pair in pairs],
            [pair.off.load.per_second for pair in pairs],
            direction="higher",
            tolerance=TOLERANCE,
            rng=rng,
        )
        for n, pairs in turns.items()
    }


def describe(turns: Pairs) -> dict[str, dict[str, float]]:
    """Return added latency, throughput ratio and processor time as spreads over rounds."""
    found: dict[str, dict[str, float]] = {}
    for n, pairs in turns.items():
        loads = [(pair.on.load, pair.off.load) for pair in pairs]
        found[f"added_p50_ms.n{n}"] = spread([on.p50_ms - off.p50_ms for on, off in loads])
        found[f"added_p99_ms.n{n}"] = spread([on.p99_ms - off.p99_ms for on, off in loads])
        found[f"on_over_off.n{n}"] = spread([on.per_second / off.per_second for on, off in loads])
        for side in ("on", "off"):
            taken = [getattr(pair, side).cpu_ms for pair in pairs]
            if None not in taken:
                found[f"server_cpu_ms_{side}.n{n}"] = spread(taken)
    return found


class _Steps:
    """Counts rounds over the whole experiment, for progress and for distinct inputs."""

    def __init__(self, setting: Setting, context: Context) -> None:
        self.setting = setting
        self.context = context
        self.total = 2 * len(setting.inputs) * (3 * setting.rounds + max(1, setting.rounds // 2))
        self._numbers = iter(range(self.total))

    def servers(self, encoder: str) -> _Servers:
        return _Servers(self, encoder)

    def turn(
        self, server: Server, *, dim: int, inputs: int, connections: int, distinct: int
    ) -> Turn:
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
            distinct=distinct,
        )
        before = server.cpu_seconds()
        load = Report(
            **run_apart(
                "tollkeeper.bench.load:generate",
                asdict(plan),
                environment=ONE_THREAD,
                progress=self.context.progress,
            )
        )
        after = server.cpu_seconds()
        if before is None or after is None:
            return Turn(load, None)
        return Turn(load, 1e3 * (after - before) / load.answered)


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

    def take_turns(
        self, rounds: int, *, connections: int | None = None, distinct: int | None = None
    ) -> Pairs:
        """Return `rounds` pairs for each number of inputs.

        Args:
            rounds: pairs to take; every other pair starts with the other server.
            connections: None takes the setting's.
            distinct: different inputs in a round; None repeats none.
        """
        setting = self._steps.setting
        found: Pairs = {}
        for inputs in setting.inputs:

            def turn(server: Server, inputs: int = inputs) -> Turn:
                return self._steps.turn(
                    server,
                    dim=self._encoder.dim,
                    inputs=inputs,
                    connections=connections or setting.connections,
                    distinct=max(1, distinct // inputs) if distinct else _REQUESTS_PER_ROUND,
                )

            found[inputs] = list(self._pairs(turn, rounds))
        return found

    def _pairs(self, turn: Callable[[Server], Turn], rounds: int) -> Iterator[Pair]:
        for number in range(rounds):
            if number % 2:
                off, on = turn(self.off), turn(self.on)
            else:
                on, off = turn(self.on), turn(self.off)
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
