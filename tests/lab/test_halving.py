"""Promises of graphs whose weights are kept as float16."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.graphs import Graph  # noqa: E402
from tollkeeper.lab.exporting import export_graph  # noqa: E402
from tollkeeper.lab.halving import halved  # noqa: E402

ROWS = np.random.default_rng(0).random((5, 64), dtype=np.float32)


def test_a_halved_graph_is_half_the_size_and_nearly_the_same() -> None:
    """Sizes halve, answers move by the rounding of weights, and shapes stay."""
    graph = export_graph(torch.nn.Linear(64, 200), (64,))
    small = halved(graph)
    wanted, found = (Graph(one).run(ROWS)["output"] for one in (graph, small))

    assert len(small) < 0.6 * len(graph)
    assert found == pytest.approx(wanted, abs=2e-3)
    assert not np.array_equal(found, wanted)


def test_weights_that_float16_cannot_hold_stay() -> None:
    """A weight of a million is not made infinite."""
    layer = torch.nn.Linear(64, 200)
    with torch.no_grad():
        layer.weight.fill_(1e6)
    graph = export_graph(layer, (64,))

    assert np.array_equal(
        Graph(halved(graph)).run(ROWS)["output"], Graph(graph).run(ROWS)["output"]
    )
