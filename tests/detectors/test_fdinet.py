"""FDINet on squares and stripes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.fdinet import FdiNet, feature_distances
from tollkeeper.detectors.networks import Network, softmax
from tollkeeper.errors import ConfigurationError, DetectorError
from tollkeeper.types import Images, Probabilities

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.detectors.lab.fdinet import choose_anchors, fit_fdinet  # noqa: E402
from tollkeeper.detectors.lab.layers import Layers  # noqa: E402
from tollkeeper.detectors.lab.outlier_exposure import Joint, train_outlier_exposure  # noqa: E402
from tollkeeper.lab.conv3 import conv3  # noqa: E402
from tollkeeper.lab.exporting import export_graph  # noqa: E402
from tollkeeper.lab.fit import Schedule  # noqa: E402


class Victim:
    """A network and its answers."""

    def __init__(self, toys: Any) -> None:
        # Weight 0: outliers are not learned from.
        self.network: Any = train_outlier_exposure(
            toys.squares,
            toys.labels,
            toys.stripes,
            make_network=lambda rng: conv3((1, 16, 16), 4, rng, width=8),
            rng=np.random.default_rng(3),
            objective=Joint(0.0),
            schedule=Schedule(epochs=6, batch=32, rate=2e-3),
        )
        self._graph = Network(export_graph(self.network, (1, 16, 16)), name="victim")

    def answer(self, inputs: Images) -> Probabilities:
        rows: Probabilities = softmax(self._graph.logits(inputs)).astype(np.float32)
        return rows


@pytest.fixture(scope="module")
def victim(toys: Any) -> Victim:
    """A victim that knows nothing of stripes."""
    return Victim(toys)


def fitted(victim: Victim, toys: Any, *, linear: bool = False) -> FdiNet:
    """Fit on half of the stripes."""
    return fit_fdinet(
        toys.squares,
        victim.answer(toys.squares),
        toys.stripes,
        victim.answer(toys.stripes),
        layers=Layers(victim.network, side=3),
        rng=np.random.default_rng(4),
        anchors=20,
        linear=linear,
        schedule=Schedule(epochs=10, batch=32, rate=2e-3),
    )


@pytest.fixture(scope="module")
def detector(victim: Victim, toys: Any) -> FdiNet:
    """The default."""
    return fitted(victim, toys)


@pytest.mark.parametrize("linear", [False, True])
def test_stripes_are_told_from_squares(
    victim: Victim, toys: Any, fresh: Any, *, linear: bool
) -> None:
    """Fresh stripes have a high probability of being strange, fresh squares a low one."""
    detector = fitted(victim, toys, linear=linear)
    squares, stripes = (detector.score(x, victim.answer(x)) for x in (fresh.squares, fresh.stripes))
    assert np.mean(squares > 0.5) < 0.05
    assert np.mean(stripes > 0.5) > 0.9


def test_the_default_judge_is_no_linear_map(detector: FdiNet, victim: Victim, toys: Any) -> None:
    """Logits of the sum of two distance vectors are not what a linear map would give."""

    def off(judge: Any) -> float:
        rng = np.random.default_rng(0)
        a, b = rng.uniform(0, 2, (2, 1, 4, 20)).astype(np.float32)

        def logit(far: Any) -> float:
            return float(next(iter(judge._judge.run(far).values()))[0, 0])

        return abs(logit(a) + logit(b) - 2 * logit((a + b) / 2))

    assert off(fitted(victim, toys, linear=True)) < 1e-3
    assert off(detector) > 1e-3


def test_distances_are_to_the_anchors_of_the_predicted_class() -> None:
    """Root mean squares, against a loop over everything."""
    rng = np.random.default_rng(0)
    anchors = [rng.normal(size=(3, 5, d)).astype(np.float32) for d in (4, 7)]
    rows = [rng.normal(size=(6, d)).astype(np.float32) for d in (4, 7)]
    kinds = np.array([0, 1, 2, 2, 0, 2])
    found = feature_distances(rows, anchors, kinds)
    for i, j, a in np.ndindex(6, 2, 5):
        apart = rows[j][i] - anchors[j][kinds[i], a].astype(np.float64)
        assert found[i, j, a] == pytest.approx(np.sqrt(np.mean(apart**2)), rel=1e-5)


def test_anchors_are_confident_pictures_of_each_class() -> None:
    """The sure ones first, then those likeliest of the class, even where none is predicted."""
    first = np.array([0.99, 0.99, 0.7, 0.9, 0.01], np.float32)
    answers = np.stack([first, 1 - first, np.zeros(5, np.float32)], axis=1)
    answers[2] = [0.65, 0.3, 0.05]
    chosen = choose_anchors(answers, count=3, sure=0.98, rng=np.random.default_rng(0))
    assert set(chosen[0]) == {0, 1, 3}
    assert chosen[1].tolist() == [4, 2, 3]
    assert chosen[2][0] == 2


def test_what_is_packed_scores_the_same(detector: FdiNet, victim: Victim, fresh: Any) -> None:
    """Nothing of a detector is lost in its parameters and blobs."""
    again = FdiNet.unpack(*detector.pack(), threads=1)
    assert isinstance(again, Detector)
    answers = victim.answer(fresh.stripes)
    assert np.array_equal(
        again.score(fresh.stripes, answers), detector.score(fresh.stripes, answers)
    )


def test_queries_do_not_change_each_others_scores(
    detector: FdiNet, victim: Victim, fresh: Any
) -> None:
    """A score is the same alone and in company."""
    both = np.concatenate([fresh.squares[:4], fresh.stripes[:4]])
    answers = victim.answer(both)
    together = detector.score(both, answers)
    alone = [detector.score(both[i : i + 1], answers[i : i + 1])[0] for i in range(8)]
    assert np.allclose(together, alone, atol=1e-5)
    assert detector.score(both[:0], answers[:0]).shape == (0,)


def test_what_does_not_fit_is_refused(detector: FdiNet, victim: Victim, toys: Any) -> None:
    """Wrong queries, anchors of other layers, and too few pictures."""
    with pytest.raises(DetectorError, match="shape"):
        detector.score(np.zeros((1, 1, 8, 8), np.float32), np.full((1, 4), 0.25, np.float32))
    with pytest.raises(DetectorError, match="anchors"):
        FdiNet(detector._layers.source, detector._anchors[:2], detector._judge_source)
    few = toys.squares[:40]
    with pytest.raises(ConfigurationError, match="fewer anchors"):
        fit_fdinet(
            few,
            victim.answer(few),
            toys.stripes,
            victim.answer(toys.stripes),
            layers=Layers(victim.network),
            rng=np.random.default_rng(0),
        )
