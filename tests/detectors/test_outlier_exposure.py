"""Outlier Exposure on squares and stripes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tollkeeper.detectors.base import Detector  # noqa: E402
from tollkeeper.detectors.lab.outlier_exposure import (  # noqa: E402
    Alternating,
    Joint,
    Objective,
    Shadow,
    fit_outlier_exposure,
    uniform_loss,
)
from tollkeeper.detectors.outlier_exposure import OutlierExposure  # noqa: E402
from tollkeeper.errors import DetectorError  # noqa: E402
from tollkeeper.lab.conv3 import conv3  # noqa: E402
from tollkeeper.lab.fit import Schedule  # noqa: E402

ANSWERS = np.full((200, 4), 0.25, np.float32)


def fitted(toys: Any, objective: Objective, *, epochs: int = 6) -> OutlierExposure:
    """Fit on the toys."""
    outputs = 5 if isinstance(objective, Shadow) else 4
    return fit_outlier_exposure(
        toys.squares,
        toys.labels,
        toys.stripes,
        classes=4,
        make_network=lambda rng: conv3((1, 16, 16), outputs, rng, width=8),
        rng=np.random.default_rng(3),
        objective=objective,
        schedule=Schedule(epochs=epochs, batch=32, rate=2e-3),
    )


@pytest.fixture(scope="module")
def detector(toys: Any) -> OutlierExposure:
    """The default."""
    return fitted(toys, Joint())


@pytest.mark.parametrize("objective", [Joint(), Joint(1.0), Alternating(), Shadow()])
def test_stripes_score_above_squares_and_squares_keep_their_class(
    toys: Any, fresh: Any, objective: Objective
) -> None:
    """Each published objective tells strange pictures and still classifies the others."""
    detector = fitted(toys, objective, epochs=12 if isinstance(objective, Alternating) else 6)
    squares = detector.score(fresh.squares, ANSWERS)
    stripes = detector.score(fresh.stripes, ANSWERS)
    assert np.median(stripes) > np.quantile(squares, 0.95)
    assert np.mean(detector.answer(fresh.squares).argmax(1) == fresh.labels) > 0.95
    assert np.allclose(detector.answer(fresh.squares).sum(1), 1)


def test_both_statistics_tell_stripes(detector: OutlierExposure, fresh: Any) -> None:
    """The uniformity statistic is the mean logit less the log of the sum of exponentials."""
    other = OutlierExposure(detector.model, classes=4, statistic="uniformity")
    squares, stripes = (other.score(x, ANSWERS) for x in (fresh.squares, fresh.stripes))
    assert np.median(stripes) > np.quantile(squares, 0.95)
    # Nobody is less sure than uniform, whose statistic is -log k.
    assert stripes.max() <= -np.log(4) + 1e-6


def test_what_is_packed_scores_the_same(detector: OutlierExposure, fresh: Any) -> None:
    """Nothing of a detector is lost in its parameters and blobs."""
    again = OutlierExposure.unpack(*detector.pack(), threads=1)
    assert isinstance(again, Detector)
    assert np.array_equal(
        again.score(fresh.stripes, ANSWERS), detector.score(fresh.stripes, ANSWERS)
    )


def test_queries_do_not_change_each_others_scores(detector: OutlierExposure, fresh: Any) -> None:
    """A score is the same alone, in company, and in another order."""
    together = detector.score(fresh.stripes, ANSWERS)
    alone = [detector.score(fresh.stripes[i : i + 1], ANSWERS[:1])[0] for i in range(5)]
    assert np.allclose(together[:5], alone, atol=1e-6)
    assert np.allclose(detector.score(fresh.stripes[::-1], ANSWERS)[::-1], together, atol=1e-6)


def test_wrong_queries_and_statistics_are_refused(detector: OutlierExposure) -> None:
    """What the detector was not fitted for has no score."""
    with pytest.raises(DetectorError, match="shape"):
        detector.score(np.zeros((1, 1, 8, 8), np.float32), ANSWERS[:1])
    with pytest.raises(DetectorError, match="max-softmax"):
        OutlierExposure(detector.model, classes=4, statistic="energy")


def test_no_queries_have_no_scores(detector: OutlierExposure) -> None:
    """An empty call gives an empty answer."""
    assert detector.score(np.zeros((0, 1, 16, 16), np.float32), ANSWERS[:0]).shape == (0,)


class Turning(nn.Module):
    """A network that is shown pictures upside down while it is trained."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Any) -> Any:
        return self.network(images.flip(2) if self.training else images)


def test_networks_may_augment_what_they_learn(toys: Any, fresh: Any) -> None:
    """What a network does in training mode it learns from; the exported one does without."""
    found = fit_outlier_exposure(
        toys.squares,
        toys.labels,
        toys.stripes,
        classes=4,
        make_network=lambda rng: Turning(conv3((1, 16, 16), 4, rng, width=8)),
        rng=np.random.default_rng(3),
        schedule=Schedule(epochs=6, batch=32, rate=2e-3),
    )
    turned = found.answer(fresh.squares[:, :, ::-1].copy()).argmax(axis=1)
    assert (turned == fresh.labels).mean() > 0.9
    assert (found.answer(fresh.squares).argmax(axis=1) == fresh.labels).mean() < 0.1


def test_the_loss_is_least_for_uniform_logits() -> None:
    """Cross-entropy to uniform is log k at equal logits and more elsewhere."""
    assert uniform_loss(torch.zeros(2, 4)).item() == pytest.approx(np.log(4))
    assert uniform_loss(torch.tensor([[3.0, 0, 0, 0]])).item() > np.log(4)
