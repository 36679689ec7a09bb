"""Tables of `classifier-inference`: ours, the published test on ours, and the published figures."""

from __future__ import annotations

from collections.abc import Mapping

from tollkeeper.bench.experiment import Metric
from tollkeeper.bench.ownership.classifier_published import OURS, TABLE_1
from tollkeeper.bench.predict.beside import markdown

Metrics = Mapping[str, Metric]


def report(metrics: Metrics) -> str:
    """Return all tables for which there are metrics."""
    parts = (_rates(metrics), _suspects(metrics), _beside(metrics))
    return "\n\n".join(part for part in parts if part)


def _rates(metrics: Metrics) -> str:
    lines = []
    for name, metric in metrics.items():
        if name == "power" or name.startswith("false_accusation_rate"):
            low, high = metric.interval or (metric.value, metric.value)
            between = f"{100 * low:.2f} to {100 * high:.2f}"
            lines.append([f"`{name}`", f"{100 * metric.value:.2f}", between])
    return "Shares in percent.\n\n" + markdown(["", "share", "95% interval"], lines)


def _suspects(metrics: Metrics) -> str:
    names = [name.removeprefix("effect.") for name in metrics if name.startswith("effect.")]
    lines = [
        [
            f"`{name}`",
            f"{metrics[f'effect.{name}'].value:.2f}",
            f"{metrics[f't.{name}'].value:.1f}",
            f"{metrics[f'p.{name}'].value:.2g}",
            f"{metrics[f't_right.{name}'].value:.1f}",
            _published(metrics, "pictures", name),
            _published(metrics, "released", name),
            f"{metrics[f'accuracy.{name}.private'].value:.3f}",
            f"{metrics[f'accuracy.{name}.exam'].value:.3f}",
        ]
        for name in names
    ]
    heads = [
        "",
        "effect d",
        "t",
        "p",
        "t of right answers",
        "published, rows of pictures: effect / p",
        "published, rows as released: effect / p",
        "accuracy, private",
        "accuracy",
    ]
    return "Every suspect.\n\n" + markdown(heads, lines)


def _published(metrics: Metrics, layout: str, name: str) -> str:
    label = f"{layout}.{name}"
    effect, p = metrics[f"published_effect.{label}"], metrics[f"published_p.{label}"]
    return f"{effect.value:.2f} / {p.value:.2g}"


def _beside(metrics: Metrics) -> str:
    """Return the published table, and beside it the published test on the nearest of ours."""
    lines = []
    for row, cell in TABLE_1.items():
        name = OURS.get(row, "")
        ours = [
            _published(metrics, layout, name) if name else "" for layout in ("released", "pictures")
        ]
        white = metrics.get(f"effect_white.{name}")
        lines.append(
            [
                row,
                f"{cell.white:.3f} / {cell.white_p:.2g}",
                f"{cell.black:.3f} / {cell.black_p:.2g}",
                f"`{name}`" if name else "",
                *ours,
                "" if white is None else f"{white.value:.2f}",
            ]
        )
    heads = [
        "effect / p",
        "published, MinGD",
        "published, Blind Walk",
        "ours",
        "Blind Walk here, rows as released",
        "rows of pictures",
        "MinGD here, d",
    ]
    title = "Maini et al. (ICLR 2021), table 1, CIFAR-10, and their test here."
    return f"{title}\n\n{markdown(heads, lines)}"
