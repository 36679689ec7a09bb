"""Tables of committed results, as Markdown: documentation holds no number typed by hand.

A page asks for a table with a pair of comments; what is between them is written here::

    <!-- table: guard-speed-cpu admit_over_projection.* -->
    <!-- grid: b4b-theft-cpu legit.* attack.* -->
    <!-- end -->

`table` has a line for each metric. `grid` puts the last part of the metrics' names into columns.
Patterns choose metrics; without any, all are shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tollkeeper.bench.experiment import Metric, Result, read_result

_SECTION = re.compile(r"(<!-- (table|grid): (\S+)((?: [^ >]+)*) -->\n).*?(<!-- end -->)", re.DOTALL)

_LAST = re.compile(r"(?:(.*)\.)?([^.\d][^.]*(?:\.\d+)?)")
"""The last part of a name and what is before it; `s0.05` is one part."""


def insert(document: str, folder: Path) -> str:
    """Return a document with everything between its markers replaced by tables.

    Raises:
        ValueError: the document has no marker, or a table would be empty.
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
    return f"{begin}\n{_origin(result)}\n\n{_LAYOUTS[layout](chosen)}\n\n{end}"


def _origin(result: Result) -> str:
    hardware = result.manifest.get("hardware", {})
    commit = str(result.manifest.get("git", {}).get("sha", "unknown"))[:12]
    return (
        f"`tollkeeper bench run {result.id} --scale {result.scale}`, commit `{commit}`, "
        f"{hardware.get('cpu', '?')}, {hardware.get('cores', '?')} cores."
    )


def _table(metrics: Mapping[str, Metric]) -> str:
    rows = [
        (f"`{name}`", _short(metric.value), _interval(metric), metric.unit, metric.direction)
        for name, metric in metrics.items()
    ]
    return _markdown(("metric", "value", "interval", "unit", "better"), rows)


def _grid(metrics: Mapping[str, Metric]) -> str:
    """Return one line for each beginning of a name, one column for each last part."""
    cells: dict[str, dict[str, str]] = {}
    for name, metric in metrics.items():
        row, column = _LAST.fullmatch(name).groups()  # type: ignore[union-attr]  # names begin with a letter
        interval = f" ({_interval(metric)})" if metric.interval else ""
        cells.setdefault(row, {})[column] = _short(metric.value) + interval
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    rows = [
        (f"`{row}`", *(found.get(column, "") for column in columns)) for row, found in cells.items()
    ]
    return _markdown(("", *columns), rows)


_LAYOUTS: Mapping[str, Callable[[Mapping[str, Metric]], str]] = {"table": _table, "grid": _grid}


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(metric: Metric) -> str:
    return "" if metric.interval is None else " to ".join(map(_short, metric.interval))


def _short(value: float) -> str:
    """Return three significant digits, whole numbers as they are."""
    if value == int(value) or value == 0:
        return f"{int(value):,}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
