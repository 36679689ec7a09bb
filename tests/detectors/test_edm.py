"""EDM on squares and stripes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tollkeeper.detectors.edm import Edm, member_index
from tollkeeper.errors import DetectorError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.detectors.lab.edm import coherence_loss, fit_edm  # noqa: E402
from tollkeeper.lab.conv3 import conv3  # noqa: E402
from tollkeeper.lab.fit import Schedule  # noqa: E402

ANSWERS = np.full((200, 4), 0.25, np.float32)


@pytest.fixture(scope="module")
def detector(toys: Any) -> Edm:
    """Three members and their hash network."""
    return fit_edm(
        toys.squares,
        toys.labels,
        toys.stripes,
        toys.stripe_labels,
        classes=4,
        members=3,
        make_network=lambda rng: conv3((1, 16, 16), 4, rng, width=8),
        rng=np.random.default_rng(3),
        schedule=Schedule(epochs=6, batch=32, rate=2e-3),
    )


def test_the_hash_is_the_published_one() -> None:
    """Class 3 at .9 among 10 classes, five members and two bins: the member is number 2."""
    hashed = np.full((1, 10), 0.1 / 9, np.float32)
    hashed[0, 3] = 0.9
    assert member_index(hashed, members=5, bins=2).tolist() == [2]


def test_members_agree_on_squares_only(detector: Edm, fresh: Any) -> None:
    """Strange pictures have the higher score, by either consensus."""
    assert detector.members == 3
    for consensus in ("mean", "max"):
        parameters, blobs = detector.pack()
        one = Edm.unpack({**parameters, "consensus": consensus}, blobs)
        squares, stripes = (one.score(x, ANSWERS) for x in (fresh.squares, fresh.stripes))
        assert np.median(stripes) > np.quantile(squares, 0.9)
        assert squares.min() >= -1e-12
        assert stripes.max() <= 1


def test_one_member_answers_each_query(detector: Edm, fresh: Any) -> None:
    """The served answers are those of the chosen members, and right."""
    answers, chosen = detector.answer(fresh.squares), detector.served(fresh.squares)
    assert np.mean(answers.argmax(1) == fresh.labels) > 0.95
    assert np.allclose(answers.sum(1), 1)
    assert len(set(detector.served(fresh.stripes))) > 1
    alone = detector.answer(fresh.squares[:1])
    assert np.allclose(alone[0], answers[0], atol=1e-6)
    assert chosen.min() >= 0
    assert chosen.max() < 3


def test_a_change_too_small_to_see_keeps_the_member(detector: Edm, fresh: Any) -> None:
    """Inputs are rounded before they are hashed, so least jitter cannot ask all members."""
    rounded = np.round(fresh.stripes * 128).astype(np.float32) / np.float32(128)
    near = np.clip(rounded + np.float32(0.003), 0, 1)
    assert np.array_equal(detector.served(rounded), detector.served(near))


def test_what_is_packed_scores_and_answers_the_same(detector: Edm, fresh: Any) -> None:
    """Nothing of a detector is lost in its parameters and blobs."""
    again = Edm.unpack(*detector.pack(), threads=1)
    for x in (fresh.squares, fresh.stripes):
        assert np.array_equal(again.score(x, ANSWERS), detector.score(x, ANSWERS))
        assert np.array_equal(again.answer(x), detector.answer(x))


def test_queries_do_not_change_each_others_scores(detector: Edm, fresh: Any) -> None:
    """A score is the same alone and in company."""
    together = detector.score(fresh.stripes, ANSWERS)
    alone = [detector.score(fresh.stripes[i : i + 1], ANSWERS[:1])[0] for i in range(5)]
    assert np.allclose(together[:5], alone, atol=1e-6)
    assert detector.score(fresh.stripes[:0], ANSWERS[:0]).shape == (0,)
    assert detector.answer(fresh.stripes[:0]).shape == (0, 4)


def test_what_cannot_be_is_refused(detector: Edm) -> None:
    """Wrong queries, one member, no such consensus, and serving without a hash network."""
    parameters, blobs = detector.pack()
    with pytest.raises(DetectorError, match="shape"):
        detector.score(np.zeros((1, 1, 8, 8), np.float32), ANSWERS[:1])
    with pytest.raises(DetectorError, match="at least 2 members"):
        Edm([blobs["member-0"]], classes=4)
    with pytest.raises(DetectorError, match="mean"):
        Edm.unpack({**parameters, "consensus": "median"}, blobs)
    blobs.pop("hash")
    with pytest.raises(DetectorError, match="hash network"):
        Edm.unpack(parameters, blobs).answer(np.zeros((1, 1, 16, 16), np.float32))


def test_the_diversity_falls_as_members_disagree() -> None:
    """Three equal answers cost log 3 + 1, three orthogonal ones log 3."""
    equal = [torch.tensor([[9.0, 0, 0]])] * 3
    apart = [100 * torch.eye(3)[i : i + 1] for i in range(3)]
    assert coherence_loss(equal).item() == pytest.approx(np.log(3) + 1)
    assert coherence_loss(apart).item() == pytest.approx(np.log(3), abs=1e-5)
