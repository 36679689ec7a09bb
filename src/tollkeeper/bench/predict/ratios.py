"""Table 4 of the SAME paper with ours in each cell beside the published."""

from __future__ import annotations

from collections.abc import Mapping

from tollkeeper.bench.experiment import Metric
from tollkeeper.bench.predict.beside import markdown
from tollkeeper.bench.predict.published import RATIOS

_SHOWN = ("auroc", "aupr", "fpr95", "fpr90")
_DETECTOR = "same"


def ratios(metrics: Mapping[str, Metric]) -> str:
    """Return AUROC / AUPR / FPR95 / FPR90 of SAME in percent, one column for each attack."""
    cells: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for name, metric in metrics.items():
        figure, *path = name.split(".")
        if figure in _SHOWN and len(path) == 4 and path[2] == _DETECTOR:
            row = cells.setdefault((path[0], int(path[1][1:])), {})
            row.setdefault(path[3], {})[figure] = 100 * metric.value
    attacks = list(dict.fromkeys(attack for row in cells.values() for attack in row))
    lines = [
        [
            f"{dataset}, {percent}%",
            _figures(RATIOS.get((dataset, percent / 100), ())),
            *(_figures([row[attack][name] for name in _SHOWN]) for attack in attacks),
        ]
        for (dataset, percent), row in cells.items()
    ]
    title = "AUROC / AUPR / FPR95 / FPR90 of SAME in percent; malicious queries per honest one."
    return f"{title}\n\n{markdown(['', 'published', *attacks], lines)}"


def _figures(values: tuple[float, ...] | list[float]) -> str:
    return " / ".join(f"{one:.1f}" for one in values)
