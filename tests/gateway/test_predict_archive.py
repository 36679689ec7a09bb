"""What is kept of pools that ask for predictions: bounded, united, and damaged bytes refused."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.errors import GuardError
from tollkeeper.gateway.archive import Kept
from tollkeeper.gateway.predict_archive import ASKED, WATCHED, Past, PredictArchive

ARCHIVE = PredictArchive("p1")


def marks(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Marks of inputs."""
    return np.array(values, np.uint32)


def test_a_past_survives_the_ledger() -> None:
    """What was kept is read back as it was."""
    past = Past(marks(1, 2), marks(3), 1.5, b"state")
    read = Past.of(ARCHIVE.load(ARCHIVE.dump(past.kept(0.0)), at=9.0))
    assert (read.asked.tolist(), read.watched.tolist()) == ([1, 2], [3])
    assert (read.suspicion, read.account) == (1.5, b"state")
    assert Past.of(ARCHIVE.load(b"", at=9.0)).asked.tolist() == []


def test_memory_is_bounded_and_the_newest_stays() -> None:
    """Of many inputs the newest are remembered, in a state of a stated most of bytes."""
    past = Past()
    for start in range(0, 3 * ASKED, 1000):
        past = past.with_asked(np.arange(start, start + 1000, dtype=np.uint32))
        past = past.with_watched(np.arange(start, start + 1000, dtype=np.uint32))
    assert len(past.kept(0.0).sketch) == 24 + 4 * (ASKED + WATCHED)
    last = int(past.asked[-1])
    assert past.unseen(marks(last, last - ASKED, last - ASKED)).tolist() == [False, True, False]


def test_a_union_holds_what_anybody_asked_and_the_worst_suspicion() -> None:
    """Linked accounts are as suspicious as the most suspicious of them."""
    one = Past(marks(1, 2), marks(7), 0.5, b"one").kept(3.0)
    other = Past(marks(2, 3), marks(8), 2.5, b"two").kept(5.0)
    union = ARCHIVE.united(one, other, ARCHIVE.load(b"", at=0.0))
    past = Past.of(union)
    assert (past.asked.tolist(), past.watched.tolist()) == ([1, 2, 3], [7, 8])
    assert (past.suspicion, past.account, union.since) == (2.5, b"two", 5.0)


@pytest.mark.parametrize("data", [b"x", bytes(23), b"\xff" * 64])
def test_damaged_states_are_refused(data: bytes) -> None:
    """Bytes that are no state are an error of the store, not an account without a past."""
    with pytest.raises(GuardError, match="expected"):
        ARCHIVE.load(data, at=0.0)
    with pytest.raises(GuardError, match="expected"):
        Past.of(Kept(np.frombuffer(data, np.uint8)))
