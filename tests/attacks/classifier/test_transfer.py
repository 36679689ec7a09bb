"""Asking a classifier: the budget, what was answered before, refusals, and what is recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tollkeeper.attacks.classifier.recorder import Recorder
from tollkeeper.attacks.classifier.top_one import TopOne
from tollkeeper.attacks.classifier.transfer import PATIENCE, Line, Transfer
from tollkeeper.encoders.metered import MeteredEncoder
from tollkeeper.errors import EncoderError, RefusalError, SuspendedError, TollkeeperError
from tollkeeper.testing.classifiers import ToyClassifier, spots
from tollkeeper.types import Batch, Images, Probabilities

POOL = spots(300)[0]


class FakePicky(ToyClassifier):
    """Refuses calls that hold a picture it does not like."""

    def __init__(self, bad: Images, error: type[TollkeeperError] = RefusalError) -> None:
        super().__init__()
        self.bad = {picture.tobytes() for picture in bad}
        self.calls, self.error = 0, error

    def embed(self, inputs: Batch) -> Probabilities:
        self.calls += 1
        if any(picture.tobytes() in self.bad for picture in inputs):
            raise self.error("no")
        return super().embed(inputs)


def line(victim: Any = None, *, budget: int = 100, **given: Any) -> Line:
    """Return a line to a metered victim."""
    return Line(MeteredEncoder(victim or ToyClassifier(), budget=budget), **given)


def test_a_budget_is_used_to_the_last_picture() -> None:
    """Of more pictures than remain the first are asked, and then there is nothing left."""
    asking = line(budget=100)
    found = asking(POOL)
    assert np.array_equal(found.index, np.arange(100))
    assert np.array_equal(found.images, POOL[:100])
    assert np.array_equal(found.answers, ToyClassifier().embed(POOL[:100]))
    assert asking.left == 0
    assert len(asking(POOL).index) == 0


def test_asking_again_is_free() -> None:
    """A picture that was answered, or comes twice, is asked and counted once."""
    recorder = Recorder(ToyClassifier())
    transfer = Transfer(line(recorder, budget=10))
    first = transfer.ask(POOL[[0, 1, 0]])
    again = transfer.ask(POOL[[1, 2, 0]])
    assert first.index.tolist() == [0, 1]
    assert again.index.tolist() == [1]
    assert len(transfer) == 3
    assert transfer.line.left == 7
    assert np.array_equal(transfer.images, POOL[:3])
    assert np.array_equal(transfer.images, recorder.images)
    assert np.array_equal(transfer.answers, recorder.probabilities)


def test_a_refused_picture_is_left_out() -> None:
    """The others of its call are answered, in order, and only they are spent."""
    asking = line(FakePicky(POOL[[3, 40]]), budget=100)
    found = asking(POOL[:60])
    assert np.array_equal(found.index, np.delete(np.arange(60), [3, 40]))
    assert asking.left == 42
    assert not asking.stopped


@pytest.mark.parametrize(("error", "most"), [(SuspendedError, 2), (EncoderError, 5)])
def test_a_victim_that_is_gone_is_asked_no_more(error: type[TollkeeperError], most: int) -> None:
    """A barred account or a broken victim ends the asking; what was answered is kept."""
    victim = FakePicky(POOL[50:], error)
    asking = line(victim)
    assert len(asking(POOL[:50]).index) == 50
    assert len(asking(POOL[50:]).index) == 0
    assert asking.stopped
    assert asking.left == 0
    assert victim.calls <= most


def test_patience_ends() -> None:
    """A victim that refuses one picture after the other is left."""
    victim = FakePicky(POOL[50:])
    asking = line(victim, budget=300)
    asking(POOL)
    assert asking.stopped
    assert victim.calls < 3 * PATIENCE


def test_a_victim_that_never_answers_is_an_error() -> None:
    """There is nothing to train on, so its own error is passed on."""
    with pytest.raises(RefusalError, match="no"):
        line(FakePicky(POOL))(POOL)


def test_a_view_comes_before_asking() -> None:
    """What is asked, kept and recorded is what the view made, cut to the range of pixels."""
    recorder = Recorder(ToyClassifier())
    transfer = Transfer(line(recorder, view=lambda images: images * 2))
    transfer.ask(POOL[:5])
    assert np.array_equal(recorder.images, np.minimum(POOL[:5] * 2, 1))
    assert np.array_equal(transfer.images, recorder.images)


def test_the_top_class_is_all_that_is_told() -> None:
    """Rows are one-hot, at the victim's top class; the budget is still known."""
    victim = MeteredEncoder(ToyClassifier(), budget=40)
    rows = TopOne(victim).embed(POOL[:30])
    assert rows.dtype == np.float32
    assert np.array_equal(rows.argmax(axis=1), ToyClassifier().embed(POOL[:30]).argmax(axis=1))
    assert np.array_equal(np.sort(rows, axis=1), np.tile([0, 0, 0, 1], (30, 1)))
    assert TopOne(victim).remaining == 10


def test_a_recorder_keeps_calls_apart_and_copies() -> None:
    """Later changes of an array do not change what was asked; empty and failed calls are none."""
    recorder = Recorder(FakePicky(POOL[9:10]))
    mine = POOL[:2].copy()
    recorder.embed(mine)
    mine[:] = 0
    recorder.embed(POOL[:0])
    with pytest.raises(RefusalError):
        recorder.embed(POOL[8:10])
    recorder.embed(POOL[2:5])
    assert [len(call) for call in recorder.asked] == [2, 3]
    assert np.array_equal(recorder.images, POOL[:5])
    assert recorder.probabilities.shape == (5, 4)
