"""MinGD: distances to borders that are known."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.audit.classifiers.margins import Side  # noqa: E402
from tollkeeper.audit.lab.mingd import MinGD  # noqa: E402
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier  # noqa: E402
from tollkeeper.errors import AuditRefused  # noqa: E402

pytestmark = pytest.mark.torch

SHAPE = (1, 4, 4)


def _linear(weights: np.ndarray, offset: float = 0.0) -> TorchClassifier:
    """Return a classifier of two classes: the second where weights @ (x - .5) > offset."""
    layer = torch.nn.Linear(weights.size, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.stack([np.zeros_like(weights), weights])))
        layer.bias.copy_(torch.tensor([0.0, -offset - 0.5 * float(weights.sum())]))
    network = torch.nn.Sequential(torch.nn.Flatten(), layer)
    return TorchClassifier(network, input_shape=SHAPE, classes=("0", "1"))


def _middle(count: int = 3) -> Side:
    return Side(np.full((count, *SHAPE), 0.5, np.float32), np.zeros(count, np.int64))


def test_distances_to_a_plane_are_its_own() -> None:
    """In each norm they are offset over dual norm, up to a step; the named class is at 0."""
    weights = np.linspace(1, 2, 16).astype(np.float32)
    offset = 0.8
    found = MinGD(l1=0.02, pixels=1).measure(
        _linear(weights, offset), _middle(), rng=np.random.default_rng(0)
    )
    assert found.flipped.all()
    np.testing.assert_array_equal(found.distances[:, 0], 0)
    linf, l2, l1 = found.distances[0, 1]
    assert offset / weights.sum() <= linf <= offset / weights.sum() + 0.0011
    assert offset / np.linalg.norm(weights) <= l2 <= offset / np.linalg.norm(weights) + 0.011
    assert offset / weights.max() <= l1 <= offset / weights.max() + 0.021


def test_pictures_stay_pictures() -> None:
    """A border outside of the pixels' range is not reached, and no move leaves the range."""
    weights = np.ones(16, np.float32)
    found = MinGD(steps=400, linf=0.01, l2=0.1, l1=1.0, pixels=4).measure(
        _linear(weights, 8.5), _middle(), rng=np.random.default_rng(0)
    )
    assert not found.flipped[:, 1].any()
    linf, l2, l1 = found.distances[0, 1]
    assert linf == pytest.approx(0.5)
    assert l2 == pytest.approx(2.0, rel=1e-3)
    assert l1 == pytest.approx(8.0, rel=1e-3)


def test_pixels_at_a_bound_may_leave_it() -> None:
    """Black pixels can be brightened in l1, where the released code never moves them."""
    side = Side(np.zeros((1, *SHAPE), np.float32), np.zeros(1, np.int64))
    found = MinGD(l1=0.1, pixels=2).measure(
        _linear(np.ones(16, np.float32), -7.8), side, rng=np.random.default_rng(0)
    )
    assert found.flipped[0, 1, 2]
    assert found.distances[0, 1, 2] == pytest.approx(0.2, abs=0.11)


def test_of_many_classes_the_likeliest_are_targets() -> None:
    """All but the first of the most confident classes, sorted by distance."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(16, 12)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(12, 16, generator=generator))
        layer.bias.zero_()
    suspect = TorchClassifier(
        torch.nn.Sequential(torch.nn.Flatten(), layer),
        input_shape=SHAPE,
        classes=tuple(map(str, range(12))),
    )
    found = MinGD(targets=4, steps=2).measure(suspect, _middle(), rng=np.random.default_rng(0))
    assert found.distances.shape == (3, 4, 3)
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_what_cannot_be_measured_is_refused() -> None:
    """Too few classes, or steps that go nowhere."""
    suspect = _linear(np.ones(16, np.float32))
    side = Side(np.zeros((1, *SHAPE), np.float32), np.array([2]))
    with pytest.raises(AuditRefused, match="at least 3 classes"):
        MinGD().measure(suspect, side, rng=np.random.default_rng(0))
    with pytest.raises(AuditRefused, match="positive steps"):
        MinGD(l2=0)
