"""Tables of committed results, as Markdown: documentation holds no number typed by hand.

A page asks for a table with a pair of comments; what is between them is written here::

    <!-- table: guard-speed-cpu admit_over_projection.* -->
    <!-- grid: b4b-theft-cpu legit.* attack.* -->
    <!-- turned: same-detection-cpu auroc.mnist.1000.* -->
    <!-- report: same-ratio-cpu -->
    <!-- end -->

`table` has a line for each metric. `grid` puts the last part of the metrics' names into columns,
and where there are rows of floors, a list of what is not above them stands below it. `turned` is
a grid turned, with the beginnings as columns. `report` is
what the experiment itself makes of its metrics.
Patterns choose metrics; without any, all are shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

from tollkeeper.bench import registry
from tollkeeper.bench.experiment import Metric, Result, read_result

_SECTION = re.compile(
    r"(<!-- (table|grid|turned|report): (\S+)((?: [^ >]+)*) -->\n).*?(<!-- end -->)", re.DOTALL
)

_SIZES = ("budget", "examples", "text_budget", "text_examples", "epochs", "seeds")
"""What a reader must know of a setting, where it has it; 0 stands for none."""

_TIE = 1e-9
"""Means of equal numbers may differ in their last bits."""

_ROUNDING = 1e-14
"""Differences of equal numbers may not be quite zero; no p-value or share that is stated is as small."""

_LAST = re.compile(r"(?:(.*)\.)?([^.\d][^.]*(?:\.\d+)?)")
"""The last part of a name and what is before it; `s0.05` is one part."""


def insert(document: str, folder: Path) -> str:
    """Return a document with everything between its markers replaced by tables.

    Raises:
        ValueError: the document has no marker, a table would be empty, or there is no such report.
        BenchError: a result file cannot be read.
    """
    written, count = _SECTION.subn(lambda found: _section(found, folder), document)
    if not count:
        raise ValueError("expected `<!-- table: NAME -->` and `<!-- end -->` in the document")
    return written


def mentioned(document: str) -> set[str]:
    """Return the names of the results that a document shows."""
    return {found.group(3) for found in _SECTION.finditer(document)}


def _section(found: re.Match[str], folder: Path) -> str:
    begin, layout, name, patterns, end = found.groups()
    result = read_result(folder / f"{name}.json")
    chosen = {
        metric: value
        for metric, value in result.metrics.items()
        if not patterns or any(fnmatchcase(metric, pattern) for pattern in patterns.split())
    }
    if not chosen:
        raise ValueError(f"{name} has no metric like{patterns}")
    shown = _report(result.id, chosen) if layout == "report" else _LAYOUTS[layout](chosen)
    return f"{begin}\n{_origin(result)}\n\n{shown}\n\n{end}"


def _report(experiment_id: str, metrics: Mapping[str, Metric]) -> str:
    report = registry.find(experiment_id).report
    if report is None:
        raise ValueError(f"{experiment_id} has no report; ask for a `table` or a `grid`")
    return report(metrics)


def _origin(result: Result) -> str:
    hardware = result.manifest.get("hardware", {})
    commit = str(result.manifest.get("git", {}).get("sha", "unknown"))[:12]
    setting = result.manifest.get("setting", {})
    sizes = [f"{key.replace('_', ' ')} {setting[key]:,}" for key in _SIZES if setting.get(key)]
    return (
        f"`tollkeeper bench run {result.id} --scale {result.scale}`, commit `{commit}`, "
        f"{hardware.get('cpu', '?')}, {hardware.get('cores', '?')} cores"
        f"{'; ' if sizes else ''}{', '.join(sizes)}."
    )


def _table(metrics: Mapping[str, Metric]) -> str:
    rows = [
        (f"`{name}`", _short(metric.value), _interval(metric), metric.unit, metric.direction)
        for name, metric in metrics.items()
    ]
    return _markdown(("metric", "value", "interval", "unit", "better"), rows)


def _grid(metrics: Mapping[str, Metric]) -> str:
    """Return one line for each beginning of a name, one column for each last part."""
    cells: dict[str, dict[str, Metric]] = {}
    for name, metric in metrics.items():
        row, column = _LAST.fullmatch(name).groups()  # type: ignore[union-attr]  # names begin with a letter
        cells.setdefault(row, {})[column] = metric
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    rows = [
        (f"`{row}`", *(_cell(found[column]) if column in found else "" for column in columns))
        for row, found in cells.items()
    ]
    return _markdown(("", *columns), rows) + _not_above(cells)


def _turned(metrics: Mapping[str, Metric]) -> str:
    """Return one line for each last part of a name, one column for each beginning."""
    cells: dict[str, dict[str, Metric]] = {}
    for name, metric in metrics.items():
        column, row = _LAST.fullmatch(name).groups()  # type: ignore[union-attr]  # as above
        cells.setdefault(row, {})[column] = metric
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    begin = _beginning(columns)
    rows = [
        (f"`{row}`", *(_cell(found[column]) if column in found else "" for column in columns))
        for row, found in cells.items()
    ]
    heads = [f"`{begin}`" if begin else "", *(f"`{one.removeprefix(begin)}`" for one in columns)]
    return _markdown(heads, rows)


def _beginning(names: Sequence[str]) -> str:
    """Return the parts, with their dots, that several names begin with."""
    parts = [name.split(".")[:-1] for name in names]
    common = list(takewhile(lambda some: len(set(some)) == 1, zip(*parts, strict=False)))
    return "".join(f"{some[0]}." for some in common) if len(names) > 1 else ""


def _cell(metric: Metric) -> str:
    return _short(metric.value) + (f" ({_interval(metric)})" if metric.interval else "")


def _not_above(cells: Mapping[str, Mapping[str, Metric]]) -> str:
    """Return a paragraph on the rows that are not above every floor; nothing without floors.

    A floor counts for the rows whose names begin as its own does before the word.
    """
    floors = {row: row.partition("floor")[0] for row in cells if "floor" in row}
    below: dict[str, list[str]] = {}
    for row, found in cells.items():
        mine = [cells[floor] for floor, family in floors.items() if row.startswith(family)]
        for column, metric in found.items():
            least = [floor[column].value for floor in mine if column in floor]
            if row not in floors and least and metric.value <= max(least) + _TIE:
                below.setdefault(row, []).append(column)
    listed = ", ".join(f"`{row}` ({', '.join(some)})" for row, some in below.items())
    return f"\n\nNot above every floor: {listed or 'none'}." if floors else ""


_LAYOUTS: Mapping[str, Callable[[Mapping[str, Metric]], str]] = {
    "table": _table,
    "grid": _grid,
    "turned": _turned,
}


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(metric: Metric) -> str:
    return "" if metric.interval is None else " to ".join(map(_short, metric.interval))


def _short(value: float) -> str:
    """Return three significant digits, whole numbers as they are."""
    value = 0.0 if abs(value) < _ROUNDING else value
    if value == int(value):
        return f"{int(value):,}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
