"""The same-speed experiment: shapes and arithmetic, never times."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.bench.experiment import Context  # noqa: E402
from tollkeeper.bench.predict.scoring_speed import (  # noqa: E402
    DETECTORS,
    SHAPE,
    Setting,
    Stand,
    conv_flops,
    summarize,
    time_cells,
)
from tollkeeper.bench.runner import run  # noqa: E402
from tollkeeper.lab.conv3 import conv3  # noqa: E402
from tollkeeper.testing.clock import FakeClock  # noqa: E402

pytestmark = pytest.mark.torch

TINY = Setting(widths=(4,), batches=(1, 32), repetitions=3, slow=1)


def test_every_contestant_takes_its_turns() -> None:
    """Each cell has the victim and all detectors, equally often but for what is slow."""
    steps: list[tuple[int, int, str]] = []
    context = Context(0, FakeClock(step=1.0), lambda *step: steps.append(step))
    found = time_cells(TINY, context)
    assert [step[:2] for step in steps] == [(0, 2), (1, 2)]
    for cell in ("w4.b1", "w4.b32"):
        assert {name: len(taken) for name, taken in found["times"][cell].items()} == {
            "victim": 3,
            **dict.fromkeys(DETECTORS, 3),
            "same-published": 1,
        }
        # The fake clock gives each sample one second, spread over its queries.
        assert set(found["times"][cell]["same"]) == {1 / 64}
    assert found["times"]["w4.b1"]["same-published"] == [1.0]
    assert set(found["flops"]["w4"]) == {"victim", *DETECTORS}


def test_every_detector_scores_the_stand() -> None:
    """What is timed is a score for each query, and is finite."""
    stand = Stand(4, np.random.default_rng(0))
    for name, make in DETECTORS.items():
        scores = make(stand).detector.score(stand.images[:2], stand.answers[:2])
        assert scores.shape == (2,), name
        assert np.isfinite(scores).all(), name


def test_operations_are_those_of_the_paper() -> None:
    """Conv3 takes 18.9 million on 28 x 28 pixels, and a quarter at half the width."""
    network = conv3(SHAPE, 10, np.random.default_rng(0))
    assert conv_flops(network, SHAPE) / 1e6 == pytest.approx(18.9, abs=0.05)
    half = conv3(SHAPE, 10, np.random.default_rng(0), width=16)
    assert conv_flops(half, SHAPE) / 1e6 == pytest.approx(4.8, abs=0.05)


def test_ratios_are_medians_over_repetitions() -> None:
    """A slow contestant's turns are paired with the victim's of the same repetitions."""
    times = {"victim": [1.0, 2.0, 1.0], "same": [3.0, 8.0, 5.0], "same-published": [99.0]}
    found = summarize(
        {"w4.b1": times},
        {"w4": {"victim": 2e6, "same": 4e6, "same-published": 3e8}},
        rng=np.random.default_rng(0),
    )
    assert {name: metric.value for name, metric in found.metrics.items()} == {
        "score_over_victim.same.w4.b1": 4.0,
        "score_over_victim.same-published.w4.b1": 99.0,
    }
    operations = found.diagnostics["operations_per_query"]["w4"]
    assert operations["same"] == {"mflop": 4.0, "over_victim": 2.0}


@pytest.mark.slow
def test_smoke_run_keeps_its_promises() -> None:
    """A smoke run in its own process gives valid metrics, with BLAS on one thread."""
    result = run("same-speed", "smoke")
    assert set(result.metrics) == {
        f"score_over_victim.{name}.w16.b{batch}" for name in DETECTORS for batch in (1, 32)
    }
    assert all(metric.value > 0 for metric in result.metrics.values())
    assert result.manifest["hardware"]["blas_threads"] == 1
