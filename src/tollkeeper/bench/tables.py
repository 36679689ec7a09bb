"""Tables of committed results, as Markdown: documentation holds no number typed by hand."""

from __future__ import annotations

import math
from pathlib import Path

from tollkeeper.bench.experiment import Metric, Result, read_result

BEGIN = "<!-- results: tables of benchmarks/results, written by `tollkeeper bench tables` -->"
END = "<!-- end of results -->"


def render(folder: Path) -> str:
    """Return one table for each result file of a folder, in the order of file names."""
    return "\n\n".join(_table(read_result(path)) for path in sorted(folder.glob("*.json")))


def insert(document: str, folder: Path) -> str:
    """Return a document with the part between the two markers replaced by the tables.

    Raises:
        ValueError: the document lacks a marker.
    """
    before, found, rest = document.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r} in the document")
    return f"{before}{BEGIN}\n\n{render(folder)}\n\n{END}{after}"


def _table(result: Result) -> str:
    hardware = result.manifest.get("hardware", {})
    commit = str(result.manifest.get("git", {}).get("sha", "unknown"))[:12]
    lines = [
        f"### `{result.id}`, scale `{result.scale}`",
        "",
        f"Commit `{commit}`, {hardware.get('cpu', '?')}, {hardware.get('cores', '?')} cores.",
        "",
        "| metric | value | interval | unit | better |",
        "|---|---|---|---|---|",
    ]
    lines += [_row(name, metric) for name, metric in result.metrics.items()]
    return "\n".join(lines)


def _row(name: str, metric: Metric) -> str:
    interval = "" if metric.interval is None else " to ".join(map(_short, metric.interval))
    return (
        f"| `{name}` | {_short(metric.value)} | {interval} | {metric.unit} | {metric.direction} |"
    )


def _short(value: float) -> str:
    """Return three significant digits, whole numbers as they are."""
    if value == int(value) or value == 0:
        return f"{int(value):,}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
