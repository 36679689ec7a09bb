"""Comparing two runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollkeeper.bench.compare import compare, compare_results
from tollkeeper.bench.experiment import BenchError, Direction, Metric, Result


def result(metrics: dict[str, Metric], *, scale: str = "cpu", cores: int = 2) -> Result:
    """Return a result with these metrics."""
    return Result("example", scale, metrics, {}, {"hardware": {"cores": cores}})


def change(before: Metric, after: Metric) -> str:
    """Return what comparing one metric says."""
    return compare_results(result({"m": before}), result({"m": after})).rows[0].change


@pytest.mark.parametrize(
    ("direction", "after", "expected"),
    [
        ("lower", 3.0, "worse"),
        ("lower", 1.0, "better"),
        ("higher", 3.0, "better"),
        ("higher", 1.0, "worse"),
        ("lower", 2.0, "same"),
    ],
)
def test_direction_decides(direction: Direction, after: float, expected: str) -> None:
    """A move is good or bad by the metric's own direction; no interval means exact."""
    assert change(Metric(2.0, "s", direction), Metric(after, "s", direction)) == expected


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((1.15, 1.3), "same"), ((1.25, 1.4), "worse"), ((0.5, 0.75), "better")],
)
def test_overlapping_intervals_are_the_same(interval: tuple[float, float], expected: str) -> None:
    """Only intervals that do not touch are a change."""
    before = Metric(1.0, "ratio", "lower", (0.8, 1.2))
    assert change(before, Metric(sum(interval) / 2, "ratio", "lower", interval)) == expected


@pytest.mark.parametrize(("after", "expected"), [(110.0, "same"), (111.0, "worse")])
def test_tolerance_widens_the_first_run(after: float, expected: str) -> None:
    """A tolerance of 0.1 forgives ten percent and no more."""
    assert change(Metric(100, "B", "lower", tolerance=0.1), Metric(after, "B", "lower")) == expected


def test_regressions_are_worse_and_missing() -> None:
    """What got worse or vanished regressed; what is new or better did not."""
    one, two = Metric(1, "B", "lower"), Metric(2, "B", "lower")
    compared = compare_results(
        result({"worse": one, "gone": one, "better": two, "same": one}),
        result({"worse": two, "new": one, "better": one, "same": one}),
    )
    assert [(row.name, row.change) for row in compared.rows] == [
        ("better", "better"),
        ("gone", "missing"),
        ("new", "new"),
        ("same", "same"),
        ("worse", "worse"),
    ]
    assert [row.name for row in compared.regressions] == ["gone", "worse"]


def test_other_hardware_is_noted() -> None:
    """Runs on different machines are compared, but said to be so."""
    assert compare_results(result({}), result({})).same_hardware
    assert not compare_results(result({}), result({}, cores=4)).same_hardware


def test_files_of_different_runs_are_refused(tmp_path: Path) -> None:
    """A smoke run is no yardstick for a cpu run."""
    (tmp_path / "a").write_bytes(result({}).to_json())
    (tmp_path / "b").write_bytes(result({}, scale="smoke").to_json())
    assert compare(tmp_path / "a", tmp_path / "a").rows == ()
    with pytest.raises(BenchError, match="example-cpu and example-smoke"):
        compare(tmp_path / "a", tmp_path / "b")
