"""The noise-sweep experiment: what it draws, and that every judge notices it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tollkeeper.bench.experiment import Context
from tollkeeper.bench.theft.noise_sweep import (
    EXPERIMENT,
    Setting,
    Sweep,
    measure,
    metrics,
    noisy,
    sweep,
)
from tollkeeper.bench.theft.tasks import Task
from tollkeeper.errors import ConfigurationError
from tollkeeper.testing.clock import FakeClock
from tollkeeper.types import Batch, Embeddings

DIM = 32
SPREAD = 0.5


class FakeEncoder:
    """Embeds `"<class> <number>"` near the corner of the class."""

    name = "fake"
    dim = DIM
    accepts = frozenset({"text"})

    def embed(self, inputs: Batch) -> Embeddings:
        """Draw each input's row from a generator of its own."""
        found = []
        for item in inputs:
            label, number = map(int, item.split())
            row = SPREAD * np.random.default_rng(number).standard_normal(DIM)
            row[label] += 4
            found.append(row)
        return np.array(found, np.float32)


def task() -> Task:
    """Return 150 training and 90 test inputs of three classes."""
    labels = np.arange(240) % 3
    inputs = [f"{label} {number}" for number, label in enumerate(labels)]
    return Task("fake", inputs[:150], labels[:150], inputs[150:], labels[150:])


def rng() -> np.random.Generator:
    """Return a fresh generator."""
    return np.random.default_rng(7)


def test_noise_has_the_stated_size_and_is_fresh() -> None:
    """No noise changes nothing; otherwise each call adds other noise of that deviation."""
    rows, draws = np.ones((300, 200), np.float32), rng()
    np.testing.assert_array_equal(noisy(rows, 0.0, rng=draws), rows)
    one, other = (noisy(rows, 0.3, rng=draws) - rows for _ in range(2))
    assert one.std() == pytest.approx(0.3, rel=0.02)
    assert abs(np.mean(one * other)) < 0.002
    assert one.dtype == np.float32


def test_every_figure_falls_with_noise() -> None:
    """Clean answers are perfect; noise of twice the spread costs search more than the probe."""
    found = sweep(task(), FakeEncoder(), (0, 2, 100), feature_std=SPREAD, rng=rng())
    assert set(found) == {
        f"{figure}.fake.s{std}"
        for figure in ("accuracy", "knn", "recall10", "cosine")
        for std in (0, 2, 100)
    }
    for figure in ("accuracy", "knn", "recall10", "cosine"):
        clean, some, much = (found[f"{figure}.fake.s{std}"] for std in (0, 2, 100))
        assert clean == pytest.approx(1)
        assert clean >= some > much
    assert found["accuracy.fake.s2"] > 0.85
    assert found["recall10.fake.s2"] < 0.6
    assert found["accuracy.fake.s100"] < 0.6
    assert found["cosine.fake.s100"] == pytest.approx(0, abs=0.05)


def test_the_same_input_twice_agrees_as_far_as_the_signal_goes() -> None:
    """Two answers are at the cosine |x|² / (|x|² + d σ²) on average, noise being independent."""
    found = sweep(task(), FakeEncoder(), (2,), feature_std=SPREAD, rng=rng())
    rows = FakeEncoder().embed(task().test_inputs).astype(np.float64)
    expected = []
    for row in rows:
        signal = float((row**2).sum())
        expected.append(signal / (signal + DIM * (2 * SPREAD) ** 2))
    assert found["cosine.fake.s2"] == pytest.approx(np.mean(expected), abs=0.03)


def test_metrics_are_means_over_seeds() -> None:
    """With three seeds the interval is their range; with one none is claimed."""
    seeds = [Sweep({"knn.a.s1": value}, 1.0, {}) for value in (0.2, 0.5, 0.2)]
    metric = metrics(seeds, rng=rng())["knn.a.s1"]
    assert metric.value == pytest.approx(0.3)
    assert metric.interval == (0.2, 0.5)
    assert (metric.unit, metric.direction) == ("accuracy", "higher")
    assert metrics(seeds[:1], rng=rng())["knn.a.s1"].interval is None


def test_unknown_tasks_are_refused() -> None:
    """A task that no built-in encoder is for is named with those there are."""
    context = Context(0, FakeClock(step=1.0), lambda *_: None)
    with pytest.raises(ConfigurationError, match="no task 'svhn'; choose cifar10, "):
        measure(Setting(tasks=("svhn",)), context)


def test_a_real_task_is_swept(data_dir: Path) -> None:
    """Probe, neighbors and search survive small noise, search suffers first."""
    steps: list[tuple[int, int, str]] = []
    context = Context(0, FakeClock(step=1.0), lambda *step: steps.append(step))
    setting = Setting(("ag_news",), (0, 0.5, 10), train=400, test=200, seeds=3, workers=1)
    result = measure(setting, context)
    value = {name: metric.value for name, metric in result.metrics.items()}
    assert steps[-1] == (3, 3, "ag_news, seed 2")
    assert value["recall10.ag_news.s0"] == 1
    assert value["accuracy.ag_news.s0"] - value["accuracy.ag_news.s0.5"] < 0.1
    assert value["recall10.ag_news.s0.5"] < 0.9
    assert value["accuracy.ag_news.s10"] < 0.6
    assert set(result.data) == {"ag_news/train", "ag_news/test"}
    assert 0 < result.diagnostics["feature_std"]["builtin:text"] < 1


def test_the_sweep_holds_the_published_levels() -> None:
    """All of B4B's standard deviations are measured, and smaller ones."""
    assert {0, 0.1, 0.5, 1, 2, 3, 4, 5, 10} < set(EXPERIMENT.scales["cpu"].stds)
