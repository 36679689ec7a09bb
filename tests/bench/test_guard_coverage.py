"""The guard-coverage experiment: its arithmetic against slow oracles, its names, its promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tollkeeper.bench import guard_coverage
from tollkeeper.bench.experiment import BenchError, Context, read_result
from tollkeeper.bench.guard_coverage import EXPERIMENT, Samples, Setting, Stage, Traffic
from tollkeeper.bench.runner import run
from tollkeeper.data import folders
from tollkeeper.errors import ConfigurationError, DataError
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.layout import Layout
from tollkeeper.guard.price import Geometric
from tollkeeper.testing.clock import FakeClock
from tollkeeper.types import Embeddings

DIM = 24
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "guard-coverage-cpu.json"


def rows(n: int, seed: int = 0) -> Embeddings:
    """Return (n, DIM) standard normal rows."""
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def rng() -> np.random.Generator:
    """Return a fresh generator."""
    return np.random.default_rng(1)


@pytest.fixture
def guard() -> Guard:
    """Return a guard whose four price levels are quickly reached."""
    calibration = Calibration.fit(rows(300, 9), rng=rng())
    return Guard(profiles.CHEAPEST, calibration, secret=bytes(32))


def test_neighbors_are_the_nearest_others() -> None:
    """Each row's ten neighbors are those a full sort by cosine finds, without itself."""
    x = rows(40)
    found = guard_coverage.nearest(x)
    for i, row in enumerate(x):
        cosine = [float(row @ y / np.linalg.norm(row) / np.linalg.norm(y)) for y in x]
        order = sorted((j for j in range(40) if j != i), key=lambda j: -cosine[j])
        assert set(found[i]) == set(order[:10])


def test_a_walk_reads_what_single_requests_find(guard: Guard) -> None:
    """Coverage, charges and free answers equal those of one request per input."""
    x = rows(90)
    walked = guard_coverage.walk(guard, x, (5, 30, 90, 500), rng=rng())
    sketch, key = guard.empty(), guard.tenant_key("walker")
    coverage, charges, noisy = [], [], []
    for row in x:
        verdict = guard.admit(sketch, row[None], key=key, rng=rng())
        sketch = verdict.sketch
        coverage.append(verdict.coverage)
        charges.append(verdict.charge)
        noisy.append(verdict.noise_scale[0] > 0)
    assert any(noisy)
    assert walked.coverage == {n: coverage[n - 1] for n in (5, 30, 90)}
    assert walked.charged == sum(charges)
    assert walked.free == noisy.index(True)
    np.testing.assert_array_equal(walked.sketch, sketch)


def test_a_walk_that_never_pays_is_all_free(guard: Guard) -> None:
    """Without a single noisy answer, every input counts as free."""
    assert guard_coverage.walk(guard, rows(3), (), rng=rng()).free == 3


@pytest.mark.parametrize(("wanted", "got"), [(0.5, 0.5), (0.0, 0.125)])
def test_sketches_are_filled_up_to_a_fraction(wanted: float, got: float) -> None:
    """Buckets are added to those there are, never taken away."""
    sketch = np.array([255, 0, 0, 0, 0, 0, 0, 0], np.uint8)
    full = guard_coverage.filled(sketch, wanted, Layout(4, 4), rng=rng())
    assert np.unpackbits(full).mean() == got
    np.testing.assert_array_equal(full & sketch, sketch)


def test_only_what_the_price_reads_is_filled() -> None:
    """With landmarks the buckets stay as they are."""
    layout = Layout(2, 4, 32)
    full = guard_coverage.filled(layout.empty(), 0.25, layout, rng=rng())
    assert layout.fraction(full) == 0.25
    assert not full[:4].any()


def test_recall_falls_from_level_to_level(guard: Guard) -> None:
    """One recall per price level: each answer tells fewer neighbors than a cheaper one."""
    assert isinstance(guard.profile.price, Geometric)
    # Far from all planes, so that 60 inputs open few buckets.
    x = rows(60) + 30 * rows(1, 5)
    free, scale = guard_coverage.recall_at(guard, guard.empty(), x[:12], rng=rng())
    assert (free, scale) == (1, 0)
    found = list(guard_coverage.recall_by_level(guard, x, rng=rng()))
    assert len(found) == guard.profile.price.levels
    assert 1 > found[0] > found[1] > found[3]


def test_prices_without_levels_have_no_recall_by_level() -> None:
    """B4B's price is continuous: nothing to report."""
    guard = Guard(profiles.B4B_2023, Calibration.identity(DIM), secret=bytes(32))
    assert list(guard_coverage.recall_by_level(guard, rows(20), rng=rng())) == []


def test_recall_needs_free_inputs(guard: Guard) -> None:
    """Inputs that pay from the start show no level; of others the free ones are used."""
    far = Guard(profiles.CHEAPEST.with_knee(0.0), guard.calibration, secret=bytes(32))
    with pytest.raises(BenchError, match="more than 10 free inputs, got 0"):
        list(guard_coverage.recall_by_level(far, rows(200), rng=rng()))
    assert len(list(guard_coverage.recall_by_level(guard, rows(200), rng=rng()))) == 4


def test_metrics_are_means_with_the_range_over_secrets() -> None:
    """The interval is the smallest and the largest value."""
    samples = Samples()
    for value in (1.0, 4.0, 1.0):
        samples.add("x", value, "higher", "inputs")
    metric = samples.metrics()["x"]
    assert (metric.value, metric.interval) == (2.0, (1.0, 4.0))
    assert (metric.unit, metric.direction) == ("inputs", "higher")


def test_every_traffic_gets_its_figures() -> None:
    """Narrow accounts should cover little and see well, broad ones the opposite."""
    setting = Setting(encoders=("fake",), counts=(10, 999), secrets=2, sample=30)
    traffics = (Traffic("narrow", rows(40), False), Traffic("broad", rows(60, 1), True))
    stage = Stage("fake", traffics, Calibration.fit(rows(300, 2), rng=rng()))
    steps: list[tuple[int, int, str]] = []
    samples = Samples()
    context = Context(0, FakeClock(step=1.0), lambda *step: steps.append(step))
    guard_coverage.walk_all(stage, setting, context, samples, number=0)
    assert steps == [
        (0, 4, "fake, recommended"),
        (1, 4, "fake, recommended"),
        (2, 4, "fake, b4b-2023"),
        (3, 4, "fake, b4b-2023"),
    ]
    metrics = samples.metrics()
    expected = {
        f"{name}.fake.{profile}.{traffic}{suffix}"
        for profile in ("recommended", "b4b-2023")
        for traffic in ("narrow", "broad")
        for name, suffixes in (
            ("coverage", (".n10", ".all")),
            ("charged_share", ("",)),
            ("recall10", ("",)),
        )
        for suffix in suffixes
    }
    expected |= {f"recall10_at_level.fake.recommended.l{level}" for level in range(1, 5)}
    assert set(metrics) == expected | {"free_broad.fake.recommended"}
    assert metrics["coverage.fake.recommended.narrow.all"].direction == "lower"
    assert metrics["coverage.fake.recommended.broad.all"].direction == "higher"
    assert metrics["recall10.fake.recommended.narrow"].direction == "higher"
    assert metrics["recall10.fake.recommended.broad"].direction == "lower"
    assert metrics["free_broad.fake.recommended"].value == 60
    levels = [metrics[f"recall10_at_level.fake.recommended.l{i}"].value for i in (1, 2, 4)]
    assert levels[0] > levels[1] > levels[2]


def test_limits_choose_at_random_without_repeats() -> None:
    """At most so many inputs are kept, texts and images alike; small sets stay whole."""
    texts = [str(i) for i in range(50)]
    chosen = guard_coverage._some(texts, 20, rng=rng())
    assert len(set(chosen)) == 20
    assert set(chosen) <= set(texts)
    assert list(chosen) != texts[:20]
    assert len(guard_coverage._some(np.zeros((50, 2)), 20, rng=rng())) == 20
    assert guard_coverage._some(texts, 50, rng=rng()) is texts


def test_missing_data_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the data sets the run ends in DataError, which names one."""
    monkeypatch.setattr(folders, "FOLDERS", dict.fromkeys(folders.FOLDERS, "nowhere/at-all"))
    with pytest.raises(DataError, match="'banking77' not found"):
        run("guard-coverage", "smoke")


def test_other_encoders_are_refused() -> None:
    """An encoder without traffics is named together with those that have some."""
    with pytest.raises(ConfigurationError, match=r"builtin:text.*'onnx:x'"):
        run("guard-coverage", "smoke", overrides={"encoders": "onnx:x"})


@pytest.mark.slow
def test_smoke_run_keeps_its_promises(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A smoke run names its data and has the metrics of both encoders."""
    monkeypatch.setenv("TOLLKEEPER_DATA", str(data_dir))
    result = run("guard-coverage", "smoke")
    assert {"coverage.text.recommended.narrow.all", "free_broad.image.recommended"} <= set(
        result.metrics
    )
    assert set(result.manifest["data"]) > {"banking77/train", "cifar10/test"}
    for name, metric in result.metrics.items():
        assert metric.interval is not None
        assert metric.interval[0] <= metric.value <= metric.interval[1], name
        # A few hundred inputs stay far below the knee of `recommended`.
        if name.startswith("recall10.") and ".recommended." in name and "broad" not in name:
            assert metric.value > 0.999


def test_the_knee_lies_above_all_of_banking77() -> None:
    """In the committed result no account that asks all questions paid, for any secret."""
    metric = read_result(RESULT).metrics["coverage.text.recommended.narrow.all"]
    price = profiles.RECOMMENDED.price
    assert isinstance(price, Geometric)
    assert metric.interval is not None
    assert metric.interval[1] < price.knee
    assert EXPERIMENT.covers == ("recommended", "b4b-2023")
