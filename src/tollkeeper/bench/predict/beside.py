"""Ours beside the published: the tables of the SAME paper with both in each cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tollkeeper.bench.experiment import Metric
from tollkeeper.bench.predict.published import DETECTION
from tollkeeper.bench.predict.scene import CASTS

_SHOWN = ("auroc", "aupr", "fpr95")
_PUBLISHED_AS = {"jbda": "jbda", "knockoff": "knockoff", "dfme_untrained": "dfme"}
_LEFT_OUT = ("_all",)
_MAIN = ("jbda", "knockoff", "dfme_untrained")
"""Thieves with a column; the others have a line each, and no order of detectors below."""


Cells = dict[tuple[str, int, str], dict[str, dict[str, Metric]]]


def beside(metrics: Mapping[str, Metric]) -> str:
    """Return tables of AUROC / AUPR / FPR95 in percent, with the published triple in brackets.

    Below each table stand the detectors that are not above the best floor, by a paired interval
    of AUROC, and the order of SAME, OE and EDM.

    Args:
        metrics: those of `same-detection`, or some of them.
    """
    cells = _cells(metrics)
    parts = []
    for dataset, budget in dict.fromkeys((key[0], key[1]) for key in cells):
        rows = {key[2]: found for key, found in cells.items() if key[:2] == (dataset, budget)}
        attacks = list(dict.fromkeys(attack for found in rows.values() for attack in found))
        parts.append(_title(dataset, budget))
        shown = [one for one in attacks if one in _MAIN]
        if shown:
            lines = [
                [f"`{name}`", *(_cell(dataset, budget, name, attack, found) for attack in shown)]
                for name, found in rows.items()
            ]
            parts.append(markdown(["", *shown], lines))
        others = [one for one in attacks if one not in _MAIN]
        if others:
            lines = [
                [f"`{one}`", *(_cell(dataset, budget, name, one, rows[name]) for name in rows)]
                for one in others
            ]
            parts.append(markdown(["", *(f"`{name}`" for name in rows)], lines))
        parts.extend(_verdicts(metrics, f"{dataset}.{budget}"))
    return "\n\n".join(parts)


def _cells(metrics: Mapping[str, Metric]) -> Cells:
    found: Cells = {}
    for name, metric in metrics.items():
        figure, *path = name.split(".")
        if figure in _SHOWN and len(path) == 4 and not path[3].endswith(_LEFT_OUT):
            dataset, budget, detector, attack = path
            if not budget.isdigit():
                continue  # Of accounts, not of queries.
            row = found.setdefault((dataset, int(budget), detector), {})
            row.setdefault(attack, {})[figure] = metric
    return found


def _title(dataset: str, budget: int) -> str:
    cast = CASTS[dataset]
    instead = f" in place of {cast.stands_in_for}" if cast.stands_in_for else ""
    return (
        f"{dataset}, {budget:,} queries; the thief's pool is {cast.thief[0]}{instead}; AUROC / "
        "AUPR / FPR95 in percent, published in brackets."
    )


def _cell(
    dataset: str,
    budget: int,
    detector: str,
    attack: str,
    found: Mapping[str, Mapping[str, Metric]],
) -> str:
    if attack not in found:
        return ""
    ours = " / ".join(
        f"{100 * found[attack][name].value:.1f}" for name in _SHOWN if name in found[attack]
    )
    published = DETECTION.get((dataset, budget, detector), {}).get(_PUBLISHED_AS.get(attack, ""))
    return ours + (f" [{' / '.join(f'{one:.1f}' for one in published)}]" if published else "")


def _verdicts(metrics: Mapping[str, Metric], path: str) -> Iterator[str]:
    """Yield what the paired intervals say of one data set and budget."""
    start = f"above_floors.{path}."
    not_above: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        if name.startswith(start) and (metric.interval or (0.0,))[0] <= 0:
            detector, attack = name.removeprefix(start).split(".")
            not_above.setdefault(detector, []).append(attack)
    if any(name.startswith(start) for name in metrics):
        listed = "; ".join(f"`{name}` ({', '.join(some)})" for name, some in not_above.items())
        yield f"Not above the best floor: {listed or 'none'}."
    orders: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        pair, _, attack = name.removeprefix(f"above.{path}.").rpartition(".")
        if name.startswith(f"above.{path}.") and attack in _MAIN:
            orders.setdefault(attack, []).append(_order(pair, metric))
    for attack, found in orders.items():
        yield f"AUROC on {attack}: {'; '.join(found)}."


def _order(pair: str, metric: Metric) -> str:
    """Return which of two is above, `=` where the interval of the difference holds 0."""
    one, _, other = pair.partition("_over_")
    low, high = metric.interval or (metric.value, metric.value)
    sign = ">" if low > 0 else "<" if high < 0 else "="
    return f"{one} {sign} {other} ({100 * low:+.1f} to {100 * high:+.1f})"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
