"""The gateway-overhead experiment: arithmetic on made-up rounds, and one real smoke run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from tollkeeper.bench import gateway_overhead
from tollkeeper.bench.experiment import Context
from tollkeeper.bench.gateway_overhead import (
    Pair,
    Setting,
    Turn,
    describe,
    measure,
    throughput_metrics,
)
from tollkeeper.bench.load import Report
from tollkeeper.bench.runner import run
from tollkeeper.guard.calibration import Calibration
from tollkeeper.testing.clock import FakeClock


def turn(per_second: float, p50_ms: float, cpu_ms: float | None = 1.0) -> Turn:
    """Return a one-second round."""
    return Turn(Report(int(per_second), per_second, p50_ms, 2 * p50_ms, 100), cpu_ms)


TURNS = {
    32: [
        Pair(turn(90, 12.0, 3.0), turn(100, 10.0)),
        Pair(turn(80, 15.0, 4.0), turn(100, 10.0)),
        Pair(turn(20, 11.0, 5.0), turn(20, 10.0)),
    ]
}


def test_throughput_is_compared_pair_by_pair() -> None:
    """The metric is the median of the pairs' ratios."""
    metric = throughput_metrics(TURNS, np.random.default_rng(0))["throughput_on_over_off.n32"]
    assert (metric.value, metric.direction, metric.interval) == (0.9, "higher", (0.8, 1.0))


def test_diagnostics_are_differences_and_spreads() -> None:
    """Added latency is a difference per pair; processor time stands for itself."""
    found = describe(TURNS)
    medians = {name: values["p50"] for name, values in found.items()}
    assert medians == {
        "added_p50_ms.n32": 2.0,
        "added_p99_ms.n32": 4.0,
        "on_over_off.n32": 0.9,
        "server_cpu_ms_on.n32": 4.0,
        "server_cpu_ms_off.n32": 1.0,
    }


def test_unknown_processor_time_is_left_out() -> None:
    """Off Linux there is no processor time, and nothing else changes."""
    found = describe({1: [Pair(turn(9, 1.0, None), turn(9, 1.0, None))]})
    assert set(found) == {"added_p50_ms.n1", "added_p99_ms.n1", "on_over_off.n1"}


class FakeServer:
    """Stands for a server that is faster without the guard."""

    started: list[str]

    def __init__(self, folder: Path, *, profile: str, encoder: str, calibration: Path) -> None:
        """Remember which profile was started."""
        assert Calibration.from_bytes(calibration.read_bytes()).dim == int(encoder[-3:])
        self.port = len(self.started)
        self.started.append(profile)
        self.key, self.model = "tk", "m"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cpu_seconds(self) -> float:
        """Return some processor time."""
        return 1.0

    def peak_memory_mb(self) -> float:
        """Return some memory."""
        return 123.0


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace servers and load; return the plans that were run."""
    seen: list[dict[str, Any]] = []

    def run_apart(target: str, argument: dict[str, Any], **_: object) -> dict[str, float]:
        seen.append(argument)
        rate = 50.0 if FakeServer.started[argument["port"]] == "recommended" else 100.0
        return {
            "requests": 10,
            "per_second": rate,
            "p50_ms": 100 / rate,
            "p99_ms": 3.0,
            "answered": 12,
        }

    FakeServer.started = []
    monkeypatch.setattr(gateway_overhead, "Server", FakeServer)
    monkeypatch.setattr(gateway_overhead, "run_apart", run_apart)
    return seen


def test_rounds_alternate_and_never_share_inputs(plans: list[dict[str, Any]]) -> None:
    """Both servers take equally many turns, in changing order, on fresh inputs."""
    setting = Setting(
        real_encoder="python:tollkeeper.testing.encoders:hash_encoder_384", rounds=2, inputs=(1, 3)
    )
    found = measure(setting, Context(0, FakeClock(), lambda *_: None))
    assert FakeServer.started == ["recommended", "none"] * 2
    # Two quiet pairs for each number of inputs, then two loud ones.
    assert [plan["distinct"] for plan in plans[:9]] == [250] * 4 + [83] * 4 + [10**8]
    assert [plan["port"] for plan in plans[8:12]] == [0, 1, 1, 0]
    firsts = [plan["first"] for plan in plans]
    assert len(set(firsts)) == len(firsts) == 2 * 2 * (2 + 2 + 1 + 2)
    assert {plan["connections"] for plan in plans} == {16, 1}
    assert {plan["dim"] for plan in plans} == {768, 384}
    assert found.metrics["throughput_on_over_off.n1"].value == 0.5
    assert found.metrics["throughput_on_over_off.n3"].value == 0.5
    (memory,) = (name for name in found.metrics if name.startswith("serving_rss_mb."))
    assert found.metrics[memory].value == 123.0


@pytest.mark.slow
def test_smoke_run_against_the_real_server() -> None:
    """Two real servers, a real load process: valid metrics come out."""
    result = run("gateway-overhead", "smoke", overrides={"inputs": "32"})
    assert "throughput_on_over_off.n32" in result.metrics
    assert all(metric.value > 0 for metric in result.metrics.values())
