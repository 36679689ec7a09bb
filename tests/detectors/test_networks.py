"""Networks inside detectors."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.detectors.networks import Network, log_sum_exp, softmax
from tollkeeper.errors import ConfigurationError, DetectorError


def test_large_logits_overflow_nothing() -> None:
    """A thousand is no infinity, and probabilities sum to one."""
    logits = np.array([[1000.0, 1000.0], [-1000.0, 0.0]])
    assert np.allclose(log_sum_exp(logits), np.array([1000 + np.log(2), 0.0]))
    assert np.allclose(softmax(logits), np.array([[0.5, 0.5], [0.0, 1.0]]))


def test_what_is_no_graph_is_refused() -> None:
    """Bytes that are no ONNX model are named."""
    with pytest.raises(ConfigurationError, match="oe is not a usable ONNX model"):
        Network(b"nothing", name="oe")


@pytest.mark.torch
def test_many_rows_run_in_parts_and_come_back_in_order() -> None:
    """More rows than run together give each row its own answer; bad graphs are refused."""
    torch = pytest.importorskip("torch")
    from tollkeeper.lab.exporting import export_graph

    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    network = Network(export_graph(layer, (1, 2, 2)), name="toy")
    assert network.shape == (1, 2, 2)
    rows = np.random.default_rng(0).random((600, 1, 2, 2), dtype=np.float32)
    with torch.no_grad():
        wanted = layer(torch.from_numpy(rows)).numpy()
    assert np.allclose(network.logits(rows), wanted, atol=1e-6)
    assert network.logits(rows[:0]).shape == (0, 3)
    with pytest.raises(DetectorError, match="NaN"):
        network.logits(np.full((1, 1, 2, 2), np.nan, np.float32))
    with pytest.raises(DetectorError, match="n, c, h, w"):
        Network(export_graph(torch.nn.Linear(4, 3), (4,)), name="flat")


@pytest.mark.torch
def test_layers_of_a_victim_end_with_its_features() -> None:
    """Three stages averaged to few places, and the hidden units, which are its features."""
    torch = pytest.importorskip("torch")
    from tollkeeper.detectors.lab.layers import Features, Layers
    from tollkeeper.lab.conv3 import conv3

    victim = conv3((1, 28, 28), 10, np.random.default_rng(0), width=4)
    rows = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        found = Layers(victim, side=4)(rows)
        assert torch.equal(found[-1], Features(victim)(rows))
        stages = [victim.features[:3], victim.features[:5], victim.features[:8]]
        for layer, stage in zip(found, stages, strict=False):
            maps = stage(2 * rows - 1)
            side = int((layer.shape[1] / maps.shape[1]) ** 0.5)
            assert 2 <= side <= 4
            size = -(-maps.shape[2] // 4)
            corner = maps[:, :, :size, :size].mean((2, 3))
            assert torch.allclose(layer.view(3, -1, side * side)[:, :, 0], corner, atol=1e-6)
