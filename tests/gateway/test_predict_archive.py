"""What is kept of pools that ask for predictions: bounded, united, and damaged bytes refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tollkeeper.detectors.history import History
from tollkeeper.errors import GuardError
from tollkeeper.gateway.archive import Kept
from tollkeeper.gateway.predict_archive import (
    ACCOUNT_BYTES,
    MARKS,
    MOST_BURDEN,
    WATCHED,
    Past,
    PredictArchive,
)

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
    for start in range(0, 3 * MARKS, 1000):
        past = past.with_asked(np.arange(start, start + 1000, dtype=np.uint32))
    last = int(past.asked[-1])
    assert past.unseen(marks(last, last - MARKS, last - MARKS)).tolist() == [False, True, False]
    for start in range(10**6, 10**6 + 2 * WATCHED, 1000):
        past = past.with_watched(np.arange(start, start + 1000, dtype=np.uint32))
    assert (len(past.watched), len(past.asked)) == (WATCHED, MARKS - WATCHED)
    assert (past.asked[-1], past.watched[-1]) == (last, start + 999)


def test_a_state_takes_at_most_16_kib() -> None:
    """With the largest state of an account detector that is served, all is within law 8."""
    full = Past(np.arange(MARKS, dtype=np.uint32), account=bytes(ACCOUNT_BYTES))
    assert full.kept(0.0).sketch.nbytes == 16 * 1024
    more = full.with_watched(np.arange(10**6, 10**6 + 9, dtype=np.uint32))
    assert more.kept(0.0).sketch.nbytes == 16 * 1024
    assert History.state_bytes <= ACCOUNT_BYTES


def test_what_is_answered_is_not_watched_any_more() -> None:
    """A price that was paid leaves one mark, of what is free from now on."""
    past = Past().with_watched(marks(1, 2, 3)).with_asked(marks(2))
    assert (past.asked.tolist(), past.watched.tolist()) == ([2], [1, 3])


def test_a_union_holds_what_was_asked_and_the_worst_suspicion() -> None:
    """Two versions of one account are as suspicious as the worse of them."""
    one = Past(marks(1, 2), marks(7), 0.5, b"one").kept(3.0)
    other = Past(marks(2, 3), marks(8), 2.5, b"two").kept(5.0)
    union = ARCHIVE.united(one, other, ARCHIVE.load(b"", at=0.0))
    past = Past.of(union)
    assert (past.asked.tolist(), past.watched.tolist()) == ([1, 2, 3], [7, 8])
    assert (past.suspicion, past.account, union.since) == (2.5, b"two", 5.0)


def own(suspicion: float, *asked: int) -> Kept:
    """What one tenant asked itself."""
    return Past(marks(*asked), suspicion=suspicion, account=b"%d" % len(asked)).kept(0.0)


def test_linked_accounts_bring_all_their_evidence() -> None:
    """Ten accounts below an alarm are one above it; joined again, in any order, nothing changes."""
    tenants = [own(2.0, number) for number in range(10)]
    empty = ARCHIVE.load(b"", at=0.0)
    pool = ARCHIVE.joined(empty, tenants)
    suspicion = Past.of(pool).suspicion
    assert suspicion == pytest.approx(10 * math.log((1 + math.exp(2)) / 2))
    assert Past.of(pool).burden == pytest.approx(suspicion - 2)
    assert ARCHIVE.dump(ARCHIVE.joined(pool, tenants)) == ARCHIVE.dump(pool)
    assert Past.of(ARCHIVE.joined(empty, tenants[::-1])).suspicion == pytest.approx(suspicion)
    assert Past.of(ARCHIVE.joined(empty, tenants * 9)).suspicion == MOST_BURDEN


def test_honest_accounts_that_are_linked_stay_honest() -> None:
    """Evidence for honesty adds no suspicion, and takes none of the worst away."""
    empty = ARCHIVE.load(b"", at=0.0)
    assert Past.of(ARCHIVE.joined(empty, [own(-0.5), own(-3.0)])).suspicion == 0
    assert Past.of(ARCHIVE.joined(empty, [own(3.0), *[own(-3.0)] * 5])).suspicion == 3


def test_a_pardon_forgets_all_but_what_is_free() -> None:
    """Suspicion, what was watched and what others brought are gone."""
    past = Past(marks(1), marks(2), 3.0, b"state", 1.0).pardoned()
    assert (past.asked.tolist(), len(past.watched)) == ([1], 0)
    assert (past.suspicion, past.account, past.burden) == (0.0, b"", 0.0)


@pytest.mark.parametrize("data", [b"x", bytes(31), b"\xff" * 64])
def test_damaged_states_are_refused(data: bytes) -> None:
    """Bytes that are no state are an error of the store, not an account without a past."""
    with pytest.raises(GuardError, match="expected"):
        ARCHIVE.load(data, at=0.0)
    with pytest.raises(GuardError, match="expected"):
        Past.of(Kept(np.frombuffer(data, np.uint8)))
