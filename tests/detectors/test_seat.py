"""SEAT: counting near-duplicates in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tollkeeper.detectors.base import AccountDetector
from tollkeeper.detectors.seat import Seat
from tollkeeper.errors import DetectorError
from tollkeeper.types import Images, Probabilities

SHAPE = (1, 16, 16)


def pictures(count: int, *, seed: int = 0) -> Images:
    """Return pictures that are far from each other."""
    rows: Images = np.random.default_rng(seed).random((count, *SHAPE), dtype=np.float32)
    return rows


def answers(count: int) -> Probabilities:
    """Return answers, which do not matter."""
    return np.full((count, 4), 0.25, np.float32)


def near(inputs: Images, *, step: float = 0.01) -> Images:
    """Return inputs moved by a small step."""
    signs = np.random.default_rng(9).choice(np.array([-1, 1], np.float32), inputs.shape)
    moved: Images = np.clip(inputs + np.float32(step) * signs, 0, 1).astype(np.float32)
    return moved


def test_the_score_is_the_share_of_near_duplicates() -> None:
    """30 near-duplicates among 150 queries are a share of a fifth; honest queries have none."""
    honest = pictures(120)
    detector = Seat(SHAPE, classes=4, threshold=1e-3)
    scores, state = detector.update(detector.empty(), honest, answers(120))
    assert scores.max() == 0
    scores, _ = detector.update(state, near(honest[:30]), answers(30))
    assert np.allclose(scores, np.arange(1, 31) / np.arange(121, 151))
    assert detector.alarms(scores).tolist() == (scores > 0.1).tolist()
    assert detector.alarms(scores)[-1]


def test_few_queries_are_no_share() -> None:
    """Two equal queries of a new account are one of a hundred, and no alarm."""
    detector = Seat(SHAPE, classes=4)
    scores, _ = detector.update(detector.empty(), np.repeat(pictures(1), 2, 0), answers(2))
    assert scores.tolist() == [0, 0.01]


def test_what_left_the_window_is_forgotten() -> None:
    """A near-duplicate of a query older than the window does not count."""
    detector = Seat(SHAPE, classes=4, window=50)
    stream = np.concatenate([pictures(51), pictures(1), pictures(51)[1:2]])
    scores, _ = detector.update(detector.empty(), stream, answers(53))
    assert scores[-1] == 0
    scores, _ = detector.update(detector.empty(), stream[2:], answers(51))
    assert scores[-1] == 0
    stream[-1] = stream[3]
    scores, _ = detector.update(detector.empty(), stream, answers(53))
    assert scores[-1] == 0.01


def test_how_queries_are_grouped_does_not_matter() -> None:
    """One call, or one for each query: the same scores and a state of the stated size."""
    stream = pictures(300)
    stream[200:] = near(stream[180:280])
    detector = Seat(SHAPE, classes=4, threshold=1e-3, window=64)
    together, last = detector.update(detector.empty(), stream, answers(300))
    state, alone = detector.empty(), []
    for at in range(300):
        scores, state = detector.update(state, stream[at : at + 1], answers(1))
        alone.append(scores[0])
        assert len(state) <= detector.state_bytes
    assert together.max() > 0.1
    assert np.array_equal(alone, together)
    assert state == last
    assert len(state) == detector.state_bytes


def test_packing_keeps_the_state_readable() -> None:
    """An unpacked detector goes on where the packed one stopped."""
    stream = pictures(80)
    detector = Seat(SHAPE, classes=4, threshold=1e-3, key=b"secret", share=0.2)
    again = Seat.unpack(*detector.pack(), threads=1)
    assert isinstance(again, AccountDetector)
    assert again.share == 0.2
    _, state = detector.update(detector.empty(), stream, answers(80))
    scores, after = detector.update(state, near(stream), answers(80))
    assert np.array_equal(again.update(state, near(stream), answers(80))[0], scores)
    assert again.update(state, near(stream), answers(80))[1] == after


def test_foreign_states_and_wrong_queries_are_refused() -> None:
    """A state belongs to one detector."""
    stream = pictures(5)
    detector, other = Seat(SHAPE, classes=4), Seat(SHAPE, classes=4, key=b"other")
    _, state = detector.update(detector.empty(), stream, answers(5))
    with pytest.raises(DetectorError, match="another"):
        other.update(state, stream, answers(5))
    with pytest.raises(DetectorError, match="cut short"):
        detector.update(state[:-1], stream, answers(5))
    with pytest.raises(DetectorError, match="shape"):
        detector.update(state, stream[:, :, :3], answers(5))
    with pytest.raises(DetectorError, match="above 0"):
        Seat(SHAPE, classes=4, window=0)


@pytest.mark.torch
def test_features_of_a_network_and_a_threshold_that_honest_pictures_pass(
    toys: Any, fresh: Any
) -> None:
    """Fitted on honest pictures, others pass, their near-duplicates do not."""
    pytest.importorskip("torch")
    from tollkeeper.detectors.lab.layers import Features
    from tollkeeper.detectors.lab.seat import fit_seat
    from tollkeeper.lab.conv3 import conv3

    network = Features(conv3(SHAPE, 4, np.random.default_rng(0), width=8))
    for features in (None, network):
        detector = fit_seat(
            toys.squares, classes=4, rng=np.random.default_rng(1), features=features, key=b"k"
        )
        scores, state = detector.update(detector.empty(), fresh.squares, answers(200))
        assert scores.max() < 0.1
        scores, _ = detector.update(state, near(fresh.squares), answers(200))
        assert scores[-1] > 0.3
        again = Seat.unpack(*detector.pack())
        assert again.update(state, near(fresh.squares), answers(200))[0][-1] == scores[-1]
