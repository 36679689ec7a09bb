"""The guard-speed experiment: shapes and arithmetic, never times."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.bench import guard_speed
from tollkeeper.bench.experiment import Context
from tollkeeper.bench.guard_speed import EXPERIMENT, Setting, summarize, time_cells
from tollkeeper.bench.runner import run
from tollkeeper.testing.clock import FakeClock

TINY = Setting(dims=(32,), batches=(1, 32), repetitions=2, references=1)


def test_every_contestant_takes_its_turns() -> None:
    """Each cell has all contestants, equally often; only batch 32 meets the reference."""
    steps: list[tuple[int, int, str]] = []
    context = Context(0, FakeClock(step=1.0), lambda *step: steps.append(step))
    found = time_cells(TINY, context)
    assert steps == [(0, 2, "d=32, batch 1"), (1, 2, "d=32, batch 32")]
    one, many = found["times"]["d32.b1"], found["times"]["d32.b32"]
    assert set(many) - set(one) == {"reference", "reference_per_input"}
    assert {name: len(taken) for name, taken in many.items()} == {
        name: 1 if name in guard_speed._SLOW else 2 for name in many
    }
    # The fake clock gives each sample one second, spread over its calls.
    assert set(one["admit"]) == {1 / 128}
    assert set(many["admit"]) == {1 / 4}
    assert many["reference"] == [1.0]


def test_ratios_are_medians_over_repetitions() -> None:
    """Metrics are named as published and hold the median of paired ratios."""
    times = {
        "projection": [1.0, 1.0, 2.0],
        "admit": [2.0, 2.0, 4.0],
        "admit_noisy": [3.0, 5.0, 8.0],
        "admit_b4b_2023": [5.0, 5.0, 5.0],
        "reference": [200.0, 100.0],
    }
    found = summarize({"d8.b32": times}, {"d8": 10_240}, rng=np.random.default_rng(0))
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values == {
        "admit_over_projection.d8.b32": 2.0,
        "admit_noisy_over_projection.d8.b32": 4.0,
        "reference_over_admit.d8": 75.0,
        "state_bytes.d8": 10_240.0,
    }
    assert found.metrics["reference_over_admit.d8"].direction == "higher"
    assert found.diagnostics["microseconds"]["d8.b32"]["admit"]["p50"] == 2e6


def test_the_stage_has_quiet_and_noisy_answers() -> None:
    """Below the knee no answer carries noise; above it every answer does."""
    stage = guard_speed._Stage(32, rng=np.random.default_rng(0))
    contestants = stage.contestants(4)
    quiet, noisy = contestants["admit"](0), contestants["admit_noisy"](0)
    assert not quiet.noise_scale.any()
    assert (noisy.noise_scale > 0).all()


@pytest.mark.slow
def test_smoke_run_keeps_its_promises() -> None:
    """A smoke run in its own process gives valid metrics, with BLAS on one thread."""
    result = run("guard-speed", "smoke")
    assert set(result.metrics) == {
        "admit_over_projection.d64.b1",
        "admit_over_projection.d64.b32",
        "admit_noisy_over_projection.d64.b1",
        "admit_noisy_over_projection.d64.b32",
        "reference_over_admit.d64",
        "state_bytes.d64",
    }
    assert all(metric.value > 0 for metric in result.metrics.values())
    assert result.manifest["hardware"]["blas_threads"] == 1
    assert EXPERIMENT.covers == ("recommended", "b4b-2023")
