"""What is kept of a pool that asks for predictions, and how it lies in the ledger."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import GuardError
from tollkeeper.gateway.archive import Kept
from tollkeeper.gateway.pools import pool_key
from tollkeeper.guard.windows import Windows
from tollkeeper.types import Entry, Sketch

STATE_BYTES: Final = 16 * 1024
"""The most that a pool's state takes, all in all."""

MARKS: Final = 3840
"""Inputs that are remembered: 15 KiB, and one new input in a million looks old."""

WATCHED: Final = 2048
"""Of these the most that were not answered, so that asking one again, or paying for it, is no
further suspicion; as many as a request holds by default."""

MOST_BURDEN: Final = 21.0
"""Beyond the logarithm of 10^9, the rarest alarm."""

_HEAD = struct.Struct("<dddII")
_MARK = np.dtype("<u4")

ACCOUNT_BYTES: Final = STATE_BYTES - _HEAD.size - MARKS * _MARK.itemsize
"""What is left for the state of an account detector."""

Marks = NDArray[np.uint32]
"""(n,) keyed hashes of inputs."""


def _nothing() -> Marks:
    return np.empty(0, _MARK)


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What is known of a pool.

    Attributes:
        asked: marks of its newest inputs, the oldest first; these are answered again for free.
        watched: marks of inputs that its account detector has seen and that were not answered.
        suspicion: of its account detector after the last new input.
        account: state of that detector; empty for who asked nothing.
        burden: what accounts that are linked to it add to what that detector finds.
    """

    asked: Marks = field(default_factory=_nothing)
    watched: Marks = field(default_factory=_nothing)
    suspicion: float = 0.0
    account: bytes = b""
    burden: float = 0.0

    def unseen(self, marks: Marks) -> NDArray[np.bool_]:
        """Return which inputs are new; of equal ones the first."""
        first = np.zeros(len(marks), np.bool_)
        first[np.unique(marks, return_index=True)[1]] = True
        return first & ~among(marks, self.asked)

    def with_asked(self, marks: Marks) -> Past:
        """Return a past in which these new inputs are asked too."""
        watched = self.watched[~among(self.watched, marks)]
        return replace(self, asked=np.concatenate([self.asked, marks]), watched=watched).bounded()

    def with_watched(self, marks: Marks) -> Past:
        """Return a past in which these inputs have been looked at and not answered."""
        watched = np.concatenate([self.watched, marks[~among(marks, self.watched)]])
        return replace(self, watched=watched).bounded()

    def bounded(self) -> Past:
        """Return a past of which the oldest is forgotten where it is too long."""
        watched = self.watched[-WATCHED:]
        return replace(self, asked=self.asked[-(MARKS - len(watched)) :], watched=watched)

    def pardoned(self) -> Past:
        """Return a past without suspicion; what was asked stays free."""
        return Past(self.asked)

    @classmethod
    def of(cls, kept: Kept) -> Past:
        """Read what `kept` wrote.

        Raises:
            GuardError: it is no such state.
        """
        data = kept.sketch.tobytes()
        if not data:
            return cls()
        if len(data) < _HEAD.size:
            raise GuardError(f"expected the state of an account, got {len(data)} bytes")
        _, suspicion, burden, *counts = _HEAD.unpack_from(data)
        if sum(counts) > MARKS or len(data) < _HEAD.size + _MARK.itemsize * sum(counts):
            raise GuardError(f"expected marks of {counts} inputs, got {len(data)} bytes")
        marks = np.frombuffer(data, _MARK, sum(counts), offset=_HEAD.size)
        end = _HEAD.size + marks.nbytes
        return cls(marks[: counts[0]], marks[counts[0] :], suspicion, data[end:], burden)

    def kept(self, since: float) -> Kept:
        """Return this past as a state whose window began at `since`."""
        counts = len(self.asked), len(self.watched)
        head = _HEAD.pack(since, self.suspicion, self.burden, *counts)
        marks = np.concatenate([self.asked, self.watched]).astype(_MARK)
        return Kept(np.frombuffer(head + marks.tobytes() + self.account, np.uint8), since)


@dataclass(frozen=True, slots=True)
class PredictArchive:
    """Takes the pasts of pools out of the ledger's bytes and puts them back.

    A window forgets suspicion, and not what is free.

    Attributes:
        fingerprint: of the classifier and its detectors.
        windows: when suspicion is forgotten; None never.
    """

    fingerprint: str
    windows: Windows | None = None

    def key(self, pool: str) -> str:
        """Return the ledger's name of a pool."""
        return pool_key(pool, self.fingerprint)

    def load(self, data: bytes, *, at: float) -> Kept:
        """Read what `dump` wrote, as it is by now.

        Raises:
            GuardError: the bytes are no such state.
        """
        sketch: Sketch = np.frombuffer(data, np.uint8)
        if not data:
            return Kept(sketch, 0.0 if self.windows is None else self.windows.start(at))
        Past.of(Kept(sketch))
        (since, *_) = _HEAD.unpack_from(data)
        return self.turned(Kept(sketch, since), at=at)

    def dump(self, kept: Kept) -> bytes:
        """Return the bytes to store."""
        return kept.sketch.tobytes()

    def reached(self, kept: Kept) -> float:  # noqa: ARG002 - nothing is covered here
        """Return 0: predictions cover no space."""
        return 0.0

    def turned(self, kept: Kept, *, at: float) -> Kept:
        """Return what is left of a state by now."""
        if self.windows is None or self.windows.start(at) <= kept.since:
            return kept
        return Past.of(kept).pardoned().kept(self.windows.start(at))

    def united(self, *kept: Kept) -> Kept:
        """Return one state for several of one account: all that is free, the worst suspicion."""
        pasts = [Past.of(one) for one in kept]
        if not pasts:
            return Kept(np.empty(0, np.uint8))
        worst = max(pasts, key=lambda past: (past.suspicion, past.account, past.burden))
        asked = _union([past.asked for past in pasts])
        watched = _union([past.watched for past in pasts])
        watched = watched[~among(watched, asked)]
        union = replace(worst, asked=asked, watched=watched).bounded()
        return union.kept(max(one.since for one in kept))

    def joined(self, pool: Kept, own: Sequence[Kept]) -> Kept:
        """Return the state of a pool whose tenants asked `own` themselves, in any order.

        Suspicion is the logarithm of evidence E that is 1 on average for honest accounts. That of
        independent accounts may be multiplied; (1 + E) / 2 is multiplied, which bets half, so that
        an account with little behind it takes away at most log 2. The tenants' own states hold all
        that the pool's tenants ever asked, so joining again adds nothing.
        """
        union = self.united(pool, *own)
        past = Past.of(union)
        bets = [float(np.logaddexp(0, Past.of(one).suspicion)) - math.log(2) for one in own]
        more = max(0.0, min(math.fsum(bets), MOST_BURDEN) - past.suspicion)
        heavier = replace(past, suspicion=past.suspicion + more, burden=past.burden + more)
        return heavier.kept(union.since)

    def pardoned(self, kept: Kept) -> Kept:
        """Return a state without suspicion; what was asked stays free."""
        return Past.of(kept).pardoned().kept(kept.since)

    def suspicion(self, entry: Entry, *, at: float) -> float | None:
        """Return what the account detector thinks of a pool by now; None where none was served."""
        if not self.fingerprint:
            return None
        return Past.of(self.load(entry.sketch, at=at)).suspicion


def among(marks: Marks, known: Marks) -> NDArray[np.bool_]:
    """Return which marks are known; several times as fast as `np.isin` for the few of a request."""
    if not len(known):
        return np.zeros(len(marks), np.bool_)
    ordered = np.sort(known)
    found: NDArray[np.bool_] = ordered[np.searchsorted(ordered, marks) % len(known)] == marks
    return found


def _union(parts: Sequence[Marks]) -> Marks:
    """Return the union of marks, of equal ones the last."""
    marks = np.concatenate(parts)
    last = len(marks) - 1 - np.unique(marks[::-1], return_index=True)[1]
    return marks[np.sort(last)]
