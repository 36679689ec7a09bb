"""Experiment `toll-speed`: what challenges cost the server that asks for them.

Two questions. What do issuing a challenge and verifying a proof cost beside one HMAC of the text
that the challenge's id signs? And how many requests per second are left when some have to pay?

For the second, one real server has three tenants. Of each round's requests 19 in 20 are of
`bench`, which never pays. The twentieth is of `paying`, whose plan asks for a puzzle for every new
input, or in turns of `quiet`, whose plan differs in nothing but that; each pair of rounds gives one
ratio. Puzzles take a few hashes: they are the client's to solve, and it shares our machine. The
calibration's knee is near 0, so that every answer carries noise and every new input has a price.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tollkeeper.bench.experiment import BenchError, Context, Experiment, Measurement, Metric
from tollkeeper.bench.isolate import ONE_THREAD, run_apart
from tollkeeper.bench.server import Server, create_key, set_plan
from tollkeeper.bench.stats import ratio_metric, spread
from tollkeeper.bench.toll_load import MixedPlan, MixedReport
from tollkeeper.bench.toll_times import Times, TimesSetting
from tollkeeper.encoders.load import builtin_calibration_path, load_encoder
from tollkeeper.gateway.calibrations import read_calibration
from tollkeeper.guard.calibration import Calibration

TOLERANCE = 0.25
"""As for `guard-speed`: server, load generator and neighbors share two cores."""

PAYING, QUIET = "paying", "quiet"

_KNEE = 0.02
_PRICE_S = 3e-6
_PLANS = {PAYING: {"challenge": 0.0, "first_seconds": _PRICE_S, "last_seconds": _PRICE_S}}
_REQUESTS_PER_ROUND = 10**8
"""More than any round can send, so that rounds never share an input."""

_CALIBRATION_TEXTS = 2000
_PRIMED = 64
"""Inputs that bring a tenant past the knee."""

_PRIME_S = 0.5


_TIMES = TimesSetting()


@dataclass(frozen=True, slots=True)
class Setting:
    """How much of both.

    Attributes:
        encoders: specs; the first gives the metrics that have a goal.
        profile: guard profile.
        every: each so many requests one has to pay.
        inputs: texts per request.
        connections: keep-alive connections.
        rounds: pairs of rounds for each number of inputs.
        warm_s: uncounted seconds at the start of each round.
        seconds: counted seconds of each round.
        times: of challenges and proofs.
    """

    encoders: tuple[str, ...] = (
        "python:tollkeeper.testing.encoders:hash_encoder_768",
        "builtin:text",
    )
    profile: str = "recommended"
    every: int = 20
    inputs: tuple[int, ...] = (1, 32)
    connections: int = 16
    rounds: int = 10
    warm_s: float = 0.3
    seconds: float = 1.5
    times: TimesSetting = _TIMES


@dataclass(frozen=True, slots=True)
class Turn:
    """One round.

    Attributes:
        load: what the load generator saw.
        cpu_ms: the server's processor time per answered request; None off Linux.
    """

    load: MixedReport
    cpu_ms: float | None

    @property
    def challenged_share(self) -> float:
        """Challenged requests among those that were answered."""
        return self.load.challenged / self.load.answered


Pair = tuple[Turn, Turn]
"""A round with challenges and one without."""


def measure(setting: Setting, context: Context) -> Measurement:
    """Take times in a process of their own, then rounds against real servers."""
    payload = {"setting": asdict(setting.times), "seed": context.seed}
    times = run_apart(
        "tollkeeper.bench.toll_times:take_times",
        payload,
        environment=ONE_THREAD,
        progress=context.progress,
    )
    metrics = time_metrics(times["proofs"], context.rng(1))
    diagnostics: dict[str, Any] = describe_times(times)
    steps = _Steps(setting, context)
    for place, spec in enumerate(setting.encoders):
        label = f"{spec.replace(':', '_')}." if place else ""
        with _Stand(steps, spec, place) as stand:
            for inputs in setting.inputs:
                pairs = list(stand.pairs(inputs))
                name = f"throughput_challenged_over_not.{label}n{inputs}"
                metrics[name] = throughput_metric(pairs, context.rng(2, place, inputs))
                diagnostics[name] = describe(pairs)
    return Measurement(metrics, diagnostics, hardware={"blas_threads": 1})


def time_metrics(proofs: Mapping[str, Times], rng: np.random.Generator) -> dict[str, Metric]:
    """Return what issuing and verifying take over one HMAC, by algorithm."""
    return {
        f"{verb}_over_hmac.{alg}": ratio_metric(
            times[verb], times["hmac"], direction="lower", tolerance=TOLERANCE, rng=rng
        )
        for verb in ("verify", "issue")
        for alg, times in proofs.items()
    }


def describe_times(times: Mapping[str, Any]) -> dict[str, Any]:
    """Return all times in microseconds, and what refusals take over verifying what holds."""
    return {
        "microseconds": {
            kind: {name: _micros(taken) for name, taken in found.items()}
            for kind, found in (*times["proofs"].items(), ("body_digest", times["digest"]))
        },
        "spend_microseconds": {name: _micros(taken) for name, taken in times["spend"].items()},
        "refused_over_accepted": {
            alg: {
                name: spread(np.divide(taken, found["verify"]))
                for name, taken in found.items()
                if name.startswith("refuse_")
            }
            for alg, found in times["proofs"].items()
        },
    }


def throughput_metric(pairs: Sequence[Pair], rng: np.random.Generator) -> Metric:
    """Return requests per second with challenges over those without."""
    return ratio_metric(
        [on.load.per_second for on, _ in pairs],
        [off.load.per_second for _, off in pairs],
        direction="higher",
        tolerance=TOLERANCE,
        rng=rng,
    )


def describe(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return spreads over rounds, and the rounds."""
    found: dict[str, Any] = {
        "challenged_share": spread([on.challenged_share for on, _ in pairs]),
        "per_second": spread([on.load.per_second for on, _ in pairs]),
        "per_second_without": spread([off.load.per_second for _, off in pairs]),
    }
    taken = [(on.cpu_ms, off.cpu_ms) for on, off in pairs]
    if all(on and off for on, off in taken):
        on, off = np.array(taken, float).T
        found["server_cpu_ms"], found["server_cpu_ms_without"] = spread(on), spread(off)
        # A busy machine changes processor time far less than the clock on the wall.
        found["cpu_without_over_challenged"] = spread(off / on)
    return {**found, "rounds": [[asdict(on), asdict(off)] for on, off in pairs]}


def _micros(taken: Sequence[float]) -> dict[str, float]:
    return {key: 1e6 * value for key, value in spread(taken).items()}


class _Steps:
    """Counts rounds over the whole experiment, for progress and for distinct inputs."""

    def __init__(self, setting: Setting, context: Context) -> None:
        self.setting = setting
        self.context = context
        self.total = len(setting.encoders) * len(setting.inputs) * (2 * setting.rounds + 2)
        self._numbers = iter(range(self.total))

    def load(self, plan: MixedPlan) -> MixedReport:
        number = next(self._numbers)
        self.context.progress(number, self.total, f"{plan.inputs} inputs")
        found = run_apart(
            "tollkeeper.bench.toll_load:generate",
            asdict(replace(plan, first=number * _REQUESTS_PER_ROUND)),
            environment=ONE_THREAD,
            progress=self.context.progress,
        )
        return MixedReport(**found)


class _Stand:
    """A server, and tenants that differ in whether they pay, two for each number of inputs.

    Tenants are fresh for each number of inputs: after some ten thousand inputs few are new places.
    """

    def __init__(self, steps: _Steps, spec: str, place: int) -> None:
        self._steps = steps
        self._spec = spec
        self._place = place
        self._encoder = load_encoder(spec)
        self._keys: dict[str, str] = {}

    def __enter__(self) -> Self:
        setting = self._steps.setting
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            data, config = folder / "data", folder / "config.yaml"
            data.mkdir()
            config.write_text(json.dumps({"plans": _PLANS}))
            calibration = self._calibrate(folder / "calibration")
            for inputs in setting.inputs:
                for kind in (PAYING, QUIET):
                    self._keys[f"{kind}-{inputs}"] = create_key(data, f"{kind}-{inputs}")
                set_plan(data, f"{PAYING}-{inputs}", PAYING, config)
            self._server = stack.enter_context(
                Server(
                    data,
                    profile=setting.profile,
                    encoder=self._spec,
                    calibration=calibration,
                    config=config,
                )
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _calibrate(self, path: Path) -> Path:
        """Write the encoder's calibration with a knee that is soon passed."""
        shipped = builtin_calibration_path(self._spec)
        if shipped is not None:
            fitted = read_calibration(shipped)
        else:
            sample = self._encoder.embed([f"text {i}" for i in range(_CALIBRATION_TEXTS)])
            fitted = Calibration.fit(sample, rng=self._steps.context.rng(0, self._place))
        path.write_bytes(replace(fitted, knee=_KNEE).to_bytes())
        return path

    def pairs(self, inputs: int) -> Iterator[Pair]:
        """Yield pairs of rounds; every other pair begins without challenges."""
        keys = {kind: self._keys[f"{kind}-{inputs}"] for kind in (PAYING, QUIET)}
        for key in keys.values():
            self._prime(key)
        for number in range(self._steps.setting.rounds):
            order = (PAYING, QUIET) if number % 2 else (QUIET, PAYING)
            turns = {kind: self._turn(keys[kind], inputs) for kind in order}
            if not turns[PAYING].load.challenged or turns[QUIET].load.challenged:
                raise BenchError("expected challenges for one of the two tenants only")
            yield turns[PAYING], turns[QUIET]

    def _prime(self, key: str) -> None:
        """Bring a tenant past the knee, paying on the way if need be."""
        plan = replace(
            self._plan(key, _PRIMED),
            connections=1,
            every=1,
            warm_s=0.0,
            seconds=_PRIME_S,
            distinct=1,
        )
        self._steps.load(plan)

    def _turn(self, key: str, inputs: int) -> Turn:
        before = self._server.cpu_seconds()
        load = self._steps.load(self._plan(key, inputs))
        after = self._server.cpu_seconds()
        if before is None or after is None:
            return Turn(load, None)
        return Turn(load, 1e3 * (after - before) / load.answered)

    def _plan(self, key: str, inputs: int) -> MixedPlan:
        setting, server = self._steps.setting, self._server
        return MixedPlan(
            port=server.port,
            key=server.key,
            model=server.model,
            inputs=inputs,
            dim=self._encoder.dim,
            connections=setting.connections,
            warm_s=setting.warm_s,
            seconds=setting.seconds,
            first=0,
            distinct=_REQUESTS_PER_ROUND,
            other=key,
            every=setting.every,
        )


EXPERIMENT = Experiment(
    id="toll-speed",
    title="cost of challenges to the server: over one HMAC, and in requests per second",
    scales={
        "smoke": Setting(
            encoders=("python:tollkeeper.testing.encoders:hash_encoder_384",),
            rounds=1,
            warm_s=0.1,
            seconds=0.3,
            times=TimesSetting(repetitions=3, proofs=10, body_bytes=(1_000, 100_000), spendings=20),
        ),
        "cpu": Setting(),
    },
    measure=measure,
    promises=(
        "verify_over_hmac.*",
        "issue_over_hmac.*",
        "throughput_challenged_over_not.n1",
        "throughput_challenged_over_not.n32",
    ),
    covers=("recommended",),
)
