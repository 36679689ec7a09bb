"""Setting near-duplicate counting from honest pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from tollkeeper.detectors.seat import FEATURES, Seat
from tollkeeper.graphs import Graph
from tollkeeper.lab.exporting import export_graph
from tollkeeper.types import Images


def fit_seat(
    images: Images,
    *,
    classes: int,
    rng: np.random.Generator,
    features: nn.Module | None = None,
    rate: float = 0.01,
    **options: Any,
) -> Seat:
    """Return a detector whose threshold honest pictures pass.

    Args:
        images: (n, c, h, w) honest ones, each once; a few times the window is enough.
        classes: k.
        rng: their order.
        features: network of pictures to (n, d) features; None for pixels.
        rate: share of honest queries that may count as near-duplicates.
        options: of `Seat`, except its scale, reach and threshold.
    """
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    shuffled = images[rng.permutation(len(images))]
    graph: bytes | None = None
    measures: dict[str, Any] = {}
    if features is not None:
        graph = export_graph(features, shape, outputs=(FEATURES,))
        # Not the largest: a byte has few levels, and most features are far below it.
        made = Graph(graph).run(shuffled[:512])[FEATURES]
        scale = float(np.quantile(made, 0.999)) or 1.0
        rows = np.clip(made / scale, 0, 1)
        measures = {"scale": scale, "reach": 4 * float(np.sqrt(np.square(rows).mean())) or 1.0}
    loose = Seat(shape, classes=classes, features=graph, **measures, **options)
    threshold = float(np.quantile(loose.nearest(shuffled)[1:], rate))
    return Seat(shape, classes=classes, features=graph, **measures, threshold=threshold, **options)
