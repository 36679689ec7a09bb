"""Pictures of committed results, for people who would rather look than read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tollkeeper.bench.experiment import BenchError, Metric, Result

_SIZE_IN = (9.0, 3.8)
_SALT = "tollkeeper"
"""Names the parts of an SVG file, so that the same result gives the same file."""

_LINES = ("-", "--", ":")


def draw(result: Result, path: Path) -> None:
    """Write the picture of a result as SVG.

    Raises:
        BenchError: there is no picture of this experiment.
        OSError: it cannot be written.
    """
    if result.id not in {*_PICTURES, *_FACTS}:
        raise BenchError(
            f"there is no picture of {result.id!r}; there is one of "
            f"{', '.join([*_PICTURES, *_FACTS])}"
        )
    import matplotlib as mpl
    from matplotlib.figure import Figure  # a figure of its own touches no global state

    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    if result.id in _PICTURES:
        _PICTURES[result.id](figure, result.metrics)
    else:
        _FACTS[result.id](figure, result.diagnostics)
    with mpl.rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _signals(figure: Any, metrics: Mapping[str, Metric]) -> None:
    """Draw what the price reads of narrow and broad accounts, by inputs asked."""
    for axes, encoder in zip(figure.subplots(1, 2, sharey=True), ("text", "image"), strict=True):
        for color, (profile, label) in enumerate(
            (("recommended", "recommended"), ("b4b-2023", "b4b-2023"))
        ):
            curves = dict(_curves(metrics, f"coverage.{encoder}.{profile}."))
            for number, (traffic, points) in enumerate(curves.items()):
                counts, values = zip(*points, strict=True)
                line = _LINES[number % len(_LINES)]
                axes.semilogx(counts, values, f"C{color}{line}", label=f"{label}, {traffic}")
        axes.set_title(f"builtin:{encoder}")
        axes.set_xlabel("inputs asked by one account")
        axes.legend(fontsize=7)
    figure.axes[0].set_ylabel("price signal")


def _curves(
    metrics: Mapping[str, Metric], start: str
) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield traffic and its points; the end of a walk has no count in its name and is left out."""
    found: dict[str, list[tuple[int, float]]] = {}
    for name, metric in metrics.items():
        traffic, _, count = name.removeprefix(start).rpartition(".n")
        if name.startswith(start) and traffic and count.isdigit():
            found.setdefault(traffic, []).append((int(count), metric.value))
    for traffic, points in found.items():
        yield traffic, sorted(points)


def _thefts(figure: Any, metrics: Mapping[str, Metric]) -> None:
    """Draw what copies are worth, and below it how many accounts the answers take."""
    figure.set_size_inches(_SIZE_IN[0], 2 * _SIZE_IN[1])
    above, below = figure.subplots(2, 2, sharey="row")
    _copies(above, metrics)
    _accounts(below, metrics)


def _accounts(row: Any, metrics: Mapping[str, Metric]) -> None:
    """Draw the accounts that clean answers take, by how they are asked."""
    for axes, encoder in zip(row, ("text", "image"), strict=True):
        for color, profile in enumerate(("recommended", "b4b-2023")):
            for line, order in zip(_LINES, ("random", "sharded", "merged"), strict=True):
                start = f"accounts_{order}.{encoder}.{profile}.n"
                points = sorted(
                    (int(name.removeprefix(start)), metric.value)
                    for name, metric in metrics.items()
                    if name.startswith(start)
                )
                if points:
                    counts, values = zip(*points, strict=True)
                    axes.plot(counts, values, f"C{color}{line}o", label=f"{profile}, {order}")
        axes.set_xlabel("clean answers wanted")
        if axes.lines:
            axes.legend(fontsize=7)
    row[0].set_ylabel("accounts")


def _windows(figure: Any, metrics: Mapping[str, Metric]) -> None:
    """Draw what a customer pays and a thief gets in a year, by the share carried over."""
    left, right = figure.subplots(1, 2)
    for axes, family, label in (
        (left, "paid.{}.drifting.c", "share paid by a drifting customer"),
        (right, "free_thief.{}.c", "free inputs of a patient thief"),
    ):
        for encoder in ("text", "lsa", "image", "patches"):
            start = family.format(encoder)
            points = sorted(
                (int(name.removeprefix(start)), metric.value)
                for name, metric in metrics.items()
                if name.startswith(start)
            )
            if points:
                axes.plot(*zip(*points, strict=True), "-o", label=encoder)
        axes.set_xlabel("percent carried over")
        axes.set_ylabel(label)
        if axes.lines:
            axes.legend(fontsize=7)


def _tolls(figure: Any, metrics: Mapping[str, Metric]) -> None:
    """Draw what accounts side by side have paid and covered, by inputs answered."""
    accounts = ("narrow", "wide", "bulk", "thief", "leaver")
    left, right = figure.subplots(1, 2)
    for axes, family, label in (
        (left, "paid", "puzzle seconds paid, reference machine"),
        (right, "covered", "price signal"),
    ):
        for number, account in enumerate(accounts):
            start = f"{family}.{account}.n"
            points = sorted(
                (int(name.removeprefix(start)), metric.value)
                for name, metric in metrics.items()
                if name.startswith(start)
            )
            if points:
                # Of two thieves the one that leaves lies under the one that stays.
                line = "--" if account == "leaver" else "-"
                axes.plot(*zip(*points, strict=True), f"C{number}{line}o", ms=3, label=account)
        axes.set_xlabel("inputs answered")
        axes.set_ylabel(label)
    left.set_yscale("symlog", linthresh=1)
    right.legend(fontsize=7)


def _copies(row: Any, metrics: Mapping[str, Metric]) -> None:
    """Draw theft curves without a guard, and the copies behind one, at their budget."""
    for axes, encoder in zip(row, ("text", "image"), strict=True):
        start = f"theft.{encoder}.none.open.n"
        points = sorted(
            (int(name.removeprefix(start)), metric)
            for name, metric in metrics.items()
            if name.startswith(start)
        )
        counts = [count for count, _ in points]
        axes.plot(counts, [metric.value for _, metric in points], "k-o", label="no guard")
        guarded = [
            (name.split(".")[2:], metric)
            for name, metric in metrics.items()
            if name.startswith(f"theft.{encoder}.") and ".none." not in name
        ]
        for number, ((profile, way), metric) in enumerate(guarded):
            low, high = metric.interval or (metric.value, metric.value)
            # Side by side, so that none hides another.
            place = counts[-1] * (1.08 + 0.06 * number)
            axes.errorbar(
                place,
                metric.value,
                yerr=[[metric.value - low], [high - metric.value]],
                fmt="s",
                color=f"C{number}",
                label=f"{profile}, {way}",
            )
        axes.axhline(0, color="0.7", linewidth=0.8)
        axes.axhline(1, color="0.7", linewidth=0.8)
        axes.set_title(f"builtin:{encoder}")
        axes.set_xlabel("queries; guarded thieves at the right")
    row[0].set_ylabel("fidelity of the copy")
    row[0].legend(fontsize=6, loc="lower left")  # the ways are the same on both sides


def _responses(figure: Any, metrics: Mapping[str, Metric]) -> None:
    """Draw what each response costs honest users against what is left of the best copy."""
    axes = figure.subplots()
    names = [name.split(".")[1] for name in metrics if name.endswith(".label_kept")]
    for number, name in enumerate(names):
        kept = metrics[f"honest.{name}.label_kept"].value
        ways = _ways(metrics, f"copy_accuracy.{name}.")
        color, best = f"C{number % 10}", max(ways.values())
        axes.plot([kept, kept], [ways["believed"], best], color, marker="", linewidth=1)
        axes.plot([kept], [ways["believed"]], color, marker="v", linestyle="")
        label = f"{name}: {max(ways, key=ways.__getitem__)}"
        axes.plot([kept], [best], color, marker="o", linestyle="", label=label)
    axes.set_xlabel("share of honest answers whose label stays")
    axes.set_ylabel("accuracy of the copy")
    axes.set_title("answers believed (triangle), and the best countermeasure (circle)")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _ways(metrics: Mapping[str, Metric], start: str) -> dict[str, float]:
    """Return values by the last part of their names."""
    return {
        name.removeprefix(start): metric.value
        for name, metric in metrics.items()
        if name.startswith(start)
    }


_PICTURES: Mapping[str, Callable[[Any, Mapping[str, Metric]], None]] = {
    "guard-coverage": _signals,
    "guard-figures": _thefts,
    "guard-windows": _windows,
    "prediction-responses": _responses,
    "toll-timelines": _tolls,
}
"""Experiments with a picture."""


_CAUGHT = ("jbda", "jbda_strokes", "knockoff", "knockoff_matched")


def _rocs(figure: Any, facts: Mapping[str, Any]) -> None:
    """Draw ROC curves: a row for each data set, a column for each thief."""
    rows = [(name, found["roc"]) for name, found in facts.items() if "roc" in found]
    columns = max(len([one for one in _CAUGHT if one in roc]) for _, roc in rows)
    figure.set_size_inches(_SIZE_IN[0], 2.6 * len(rows))
    grid = figure.subplots(len(rows), columns, sharey=True, squeeze=False)
    for axes, (dataset, roc) in zip(grid, rows, strict=True):
        shown = [one for one in _CAUGHT if one in roc]
        for place, attack in zip(axes, shown, strict=False):
            for number, (detector, caught) in enumerate(roc[attack].items()):
                line = _LINES[number // 10 % len(_LINES)]
                place.semilogx(
                    facts[dataset]["roc_at"], caught, f"C{number % 10}{line}", label=detector
                )
            place.set_title(f"{dataset}: {attack}", fontsize=9)
            place.set_xlabel("honest queries alarmed")
        for place in axes[len(shown) :]:
            place.set_visible(False)
        axes[0].set_ylabel("thief's queries caught")
    grid[0][0].legend(fontsize=6)


_FACTS: Mapping[str, Callable[[Any, Mapping[str, Any]], None]] = {"same-detection": _rocs}
"""Experiments whose picture is of diagnostics."""
