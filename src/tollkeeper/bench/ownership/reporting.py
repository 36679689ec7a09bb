"""Tables of `dataset-inference`: ours, the published test on ours, and the published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tollkeeper.bench.experiment import Metric
from tollkeeper.bench.ownership.published import OURS, TABLE_1, VICTIMS
from tollkeeper.bench.predict.beside import markdown

Metrics = Mapping[str, Metric]


def report(metrics: Metrics) -> str:
    """Return all tables for which there are metrics."""
    parts = [_rates(metrics), _effects(metrics), _beside(metrics), _hiding(metrics)]
    return "\n\n".join(part for part in parts if part)


def _rates(metrics: Metrics) -> str:
    names = [
        name
        for name in metrics
        if name.startswith(("false_accusation_rate", "power"))
        or (name.startswith("gmm_") and (".power" in name or ".false" in name))
    ]
    if not names:
        return ""
    lines = [[f"`{name}`", *_percent(metrics[name])] for name in names]
    return "Shares in percent.\n\n" + markdown(["", "share", "95% interval"], lines)


def _effects(metrics: Metrics) -> str:
    labels = [name.removeprefix("effect.") for name in metrics if name.startswith("effect.")]
    if not labels:
        return ""
    lines = [
        [
            f"`{label}`",
            _with_interval(metrics[f"effect.{label}"]),
            _plain(metrics, f"gmm_t.{label}", 1),
            _plain(metrics, f"z.r2.{label}", 1),
            _plain(metrics, f"z.cosine.{label}", 1),
            _plain(metrics, f"accuracy.{label}", 3),
        ]
        for label in labels
    ]
    heads = ["", "effect d", "published test, t", "R2, z", "cosine, z", "accuracy"]
    return "Every encoder.\n\n" + markdown(heads, lines)


def _beside(metrics: Metrics) -> str:
    """Return the published table, and beside it the published test on the nearest of ours."""
    lines = []
    for row, cells in TABLE_1.items():
        label = _nearest(metrics, OURS.get(row, ""))
        ours = ""
        if label:
            t, p = metrics[f"gmm_t.{label}"].value, metrics[f"gmm_p.{label}"].value
            ours = f"{p:.2g} / {t:.2f}"
        published = [f"{cell.p:.2g} / {cell.t:.2f}" for cell in cells]
        lines.append([row, *published, f"`{label}`" if label else "", ours])
    if not any(line[-1] for line in lines):
        return ""
    heads = ["p / t", *(f"published, {name}" for name in VICTIMS), "ours", "the same test on ours"]
    return "Dziedzic et al. (NeurIPS 2022), table 1, and their test here.\n\n" + markdown(
        heads, lines
    )


def _nearest(metrics: Metrics, name: str) -> str:
    """Return the label of ours for a published row; of several the one with the most queries."""
    labels = [one.removeprefix("gmm_t.") for one in metrics if one.startswith("gmm_t.")]
    if not name.endswith("."):
        return next((one for one in labels if one in (name, f"independent.{name}")), "")
    several = [one for one in labels if one.startswith(name)]
    return max(several, key=lambda one: int(one.removeprefix(name)), default="")


def _hiding(metrics: Metrics) -> str:
    ways = dict.fromkeys(
        name.split(".effect.")[0].removeprefix("obfuscation.")
        for name in metrics
        if name.startswith("obfuscation.") and ".effect." in name
    )
    roles = ("victim", "thief", "independent")
    lines = [
        [
            f"`{way}`",
            *(_verdict(metrics, f"obfuscation.{way}", role) for role in roles),
            _plain(metrics, f"obfuscation.{way}.z_r2", 1),
            _plain(metrics, f"obfuscation.{way}.accuracy_lost", 3),
        ]
        for way in ways
    ]
    if not lines:
        return ""
    heads = ["", *(f"{role}, d" for role in roles), "thief's R2, z", "accuracy the thief loses"]
    title = "Obfuscations, in three modes; in bold what is found derived."
    return f"{title}\n\n{markdown(heads, lines)}"


def _verdict(metrics: Metrics, begin: str, role: str) -> str:
    effect = metrics.get(f"{begin}.effect.{role}")
    if effect is None:
        return ""
    text = f"{effect.value:.2f}"
    return f"**{text}**" if metrics[f"{begin}.derived.{role}"].value else text


def _plain(metrics: Metrics, name: str, digits: int) -> str:
    return f"{metrics[name].value:.{digits}f}" if name in metrics else ""


def _with_interval(metric: Metric) -> str:
    low, high = metric.interval or (metric.value, metric.value)
    return f"{metric.value:.2f} ({low:.2f} to {high:.2f})"


def _percent(metric: Metric) -> Sequence[str]:
    low, high = metric.interval or (metric.value, metric.value)
    return f"{100 * metric.value:.2f}", f"{100 * low:.2f} to {100 * high:.2f}"
