"""Which metric moved between two runs of one experiment, and whether that is bad."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tollkeeper.bench.experiment import BenchError, Metric, Result, read_result

Change = Literal["same", "better", "worse", "missing", "new"]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric in both runs.

    Attributes:
        name: the metric.
        before: its value in the first run, None if it is new.
        after: its value in the second run, None if it is missing.
        change: what the difference means; `worse` and `missing` are regressions.
    """

    name: str
    before: Metric | None
    after: Metric | None
    change: Change


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        id: of the experiment.
        scale: of both runs.
        rows: one per metric, by name.
        same_hardware: whether both manifests name the same machine; absolute
            numbers from different machines say nothing about the code.
    """

    id: str
    scale: str
    rows: tuple[Row, ...]
    same_hardware: bool

    @property
    def regressions(self) -> tuple[Row, ...]:
        """Rows that got worse or disappeared."""
        return tuple(row for row in self.rows if row.change in {"worse", "missing"})


def compare(before: str | Path, after: str | Path) -> Comparison:
    """Compare two result files.

    Raises:
        BenchError: a file is unreadable, or they are of different experiments or scales.
    """
    return compare_results(read_result(before), read_result(after))


def compare_results(before: Result, after: Result) -> Comparison:
    """Compare two runs metric by metric.

    A metric is the same while the two intervals, the first one widened by its
    tolerance, overlap. A metric with neither interval nor tolerance must match exactly.

    Raises:
        BenchError: the runs are of different experiments or scales.
    """
    if (before.id, before.scale) != (after.id, after.scale):
        raise BenchError(
            f"expected two results of one experiment and scale, got "
            f"{before.id}-{before.scale} and {after.id}-{after.scale}"
        )
    rows = tuple(
        _row(name, before.metrics.get(name), after.metrics.get(name))
        for name in sorted({*before.metrics, *after.metrics})
    )
    same_hardware = before.manifest.get("hardware") == after.manifest.get("hardware")
    return Comparison(before.id, before.scale, rows, same_hardware)


def _row(name: str, before: Metric | None, after: Metric | None) -> Row:
    if before is None:
        return Row(name, None, after, "new")
    if after is None:
        return Row(name, before, None, "missing")
    return Row(name, before, after, _change(before, after))


def _change(before: Metric, after: Metric) -> Change:
    slack = abs(before.value) * before.tolerance
    low, high = before.interval or (before.value, before.value)
    new_low, new_high = after.interval or (after.value, after.value)
    if new_low > high + slack:
        return "better" if before.direction == "higher" else "worse"
    if new_high < low - slack:
        return "better" if before.direction == "lower" else "worse"
    return "same"
