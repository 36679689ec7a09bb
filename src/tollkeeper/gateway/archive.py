"""How a pool's sketch lies in the ledger: with the window it belongs to.

Windows turn when a sketch is next looked at, not by a job of their own: every replica finds
the same, because what is forgotten depends on the deployment and the window alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from tollkeeper.gateway.pools import pool_key
from tollkeeper.guard.layout import Layout
from tollkeeper.guard.windows import Windows
from tollkeeper.types import Sketch

_SINCE = struct.Struct("<d")
_NO_WINDOWS = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A sketch and when its window began.

    Attributes:
        sketch: as it was when it was last changed or turned.
        since: seconds since the epoch; 0 without windows.
        spared: what of the sketch was reached under allowances only, packed; None where there
            is nothing.
    """

    sketch: Sketch
    since: float = 0.0
    spared: Sketch | None = None


class Keeper(Protocol):
    """Knows how the states of pools lie in the ledger, and how they change by themselves."""

    @property
    def fingerprint(self) -> str:
        """Of what decides by these states; empty where nothing was served."""
        ...

    def key(self, pool: str) -> str:
        """Return the ledger's name of a pool."""
        ...

    def load(self, data: bytes, *, at: float) -> Kept:
        """Read what `dump` wrote, as it is by now; nothing is the state of who asked nothing.

        Raises:
            GuardError: the bytes are no state of this kind.
        """
        ...

    def dump(self, kept: Kept) -> bytes:
        """Return the bytes to store."""
        ...

    def reached(self, kept: Kept) -> float:
        """Return the coverage that a pool's plan sees, in [0, 1]."""
        ...

    def turned(self, kept: Kept, *, at: float) -> Kept:
        """Return what is left of a state by now."""
        ...

    def united(self, *kept: Kept) -> Kept:
        """Return the union of states that were loaded at the same time."""
        ...

    def joined(self, pool: Kept, own: Sequence[Kept]) -> Kept:
        """Return the state of a pool whose tenants asked `own` themselves; again adds nothing."""
        ...

    def pardoned(self, kept: Kept) -> Kept:
        """Return a state of which nothing counts any more."""
        ...


@dataclass(frozen=True, slots=True)
class Archive:
    """Takes sketches out of the ledger's bytes and puts them back.

    Attributes:
        layout: of the sketches.
        windows: when they are forgotten; None never.
        fingerprint: of the guard whose sketches they are.
        first: start of the first window, to which sketches from before windows belong; 0 takes
            the running one.
    """

    layout: Layout
    windows: Windows | None
    fingerprint: str
    first: float = 0.0

    def key(self, pool: str) -> str:
        """Return the ledger's name of a pool."""
        return pool_key(pool, self.fingerprint)

    def load(self, data: bytes, *, at: float) -> Kept:
        """Read what `dump` wrote, as it is by now.

        A sketch that was stored without windows counts as one of the first window.

        Raises:
            GuardError: the bytes are not a sketch of this layout.
        """
        since = 0.0 if self.windows is None else self.first or self.windows.start(at)
        size, spared = self.layout.sketch_bytes, None
        sizes = (size + _SINCE.size, size + _SINCE.size + self._spared_bytes)
        if len(data) in sizes:
            (stored,) = _SINCE.unpack_from(data, size)
            since = since if stored == _NO_WINDOWS else stored
            if len(data) == sizes[1]:
                spared = np.frombuffer(data, np.uint8, offset=sizes[0])
            data = data[:size]
        return self.turned(Kept(self.layout.from_bytes(data), since, spared), at=at)

    def dump(self, kept: Kept) -> bytes:
        """Return the bytes to store."""
        data = kept.sketch.tobytes()
        if kept.spared is not None:
            since = _NO_WINDOWS if self.windows is None else kept.since
            return data + _SINCE.pack(since) + kept.spared.tobytes()
        return data if self.windows is None else data + _SINCE.pack(kept.since)

    def reached(self, kept: Kept) -> float:
        """Return how far a pool has come, as its plan sees it: without what was allowed."""
        return self.layout.fraction(kept.sketch, kept.spared)

    @property
    def _spared_bytes(self) -> int:
        return (self.layout.priced_count + 7) // 8

    def turned(self, kept: Kept, *, at: float) -> Kept:
        """Return what is left of a sketch by now."""
        if self.windows is None or self.windows.start(at) <= kept.since:
            return kept
        sketch = self.windows.turned(
            kept.sketch,
            self.layout,
            key=self.fingerprint.encode(),
            since=kept.since,
            at=at,
        )
        counting = self.layout.signal(kept.sketch, kept.spared)
        return Kept(sketch, self.windows.start(at), self.layout.spare(counting, sketch))

    def united(self, *kept: Kept) -> Kept:
        """Return the union of sketches that were loaded at the same time."""
        union = Kept(self.layout.empty(), max((one.since for one in kept), default=0.0))
        counting = np.zeros(self.layout.priced_count, np.bool_)
        for one in kept:
            union = replace(union, sketch=self.layout.merge(union.sketch, one.sketch))
            counting |= self.layout.signal(one.sketch, one.spared)
        # What any of them reached without an allowance counts for all of them.
        return replace(union, spared=self.layout.spare(counting, union.sketch))

    def joined(self, pool: Kept, own: Sequence[Kept]) -> Kept:
        """Return the union of a pool's sketch and of its tenants'."""
        return self.united(pool, *own)

    def pardoned(self, kept: Kept) -> Kept:
        """Return a sketch that covers nothing; what tenants are compared by stays."""
        bits = np.zeros(self.layout.bitmap_bytes, np.uint8)
        return Kept(self.layout.joined(bits, self.layout.sample(kept.sketch)), kept.since)


def windows(length: float | Literal["month"] | None, carry_over: float) -> Windows | None:
    """Return when pools forget; without a length never.

    Raises:
        ConfigurationError: less than a day, or a share outside [0, 1].
    """
    return None if length is None else Windows(length, carry_over)
