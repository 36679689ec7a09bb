"""How a pool's sketch lies in the ledger: with the window it belongs to.

Windows turn when a sketch is next looked at, not by a job of their own: every replica finds
the same, because what is forgotten depends on the deployment and the window alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Literal

from tollkeeper.gateway.pools import pool_key
from tollkeeper.guard.layout import Layout
from tollkeeper.guard.windows import Windows
from tollkeeper.types import Sketch

_SINCE = struct.Struct("<d")
_SINCE_RELIEF = struct.Struct("<dd")


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A sketch and when its window began.

    Attributes:
        sketch: as it was when it was last changed or turned.
        since: seconds since the epoch; 0 without windows.
        relief: coverage that grants paid for, which the ladder does not see.
    """

    sketch: Sketch
    since: float = 0.0
    relief: float = 0.0


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
        relief, size = 0.0, self.layout.sketch_bytes
        if len(data) == size + _SINCE.size:
            (since,) = _SINCE.unpack_from(data, size)
            data = data[:size]
        elif len(data) == size + _SINCE_RELIEF.size:
            stored, relief = _SINCE_RELIEF.unpack_from(data, size)
            since = stored or since
            data = data[:size]
        return self.turned(Kept(self.layout.from_bytes(data), since, relief), at=at)

    def dump(self, kept: Kept) -> bytes:
        """Return the bytes to store."""
        if kept.relief:
            return kept.sketch.tobytes() + _SINCE_RELIEF.pack(kept.since, kept.relief)
        if self.windows is None:
            return kept.sketch.tobytes()
        return kept.sketch.tobytes() + _SINCE.pack(kept.since)

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
        # What is forgotten is forgotten of both alike.
        before = self.layout.fraction(kept.sketch)
        share = self.layout.fraction(sketch) / before if before else 0.0
        return Kept(sketch, self.windows.start(at), kept.relief * share)

    def united(self, *kept: Kept) -> Kept:
        """Return the union of sketches that were loaded at the same time."""
        union = Kept(self.layout.empty(), max((one.since for one in kept), default=0.0))
        for one in kept:
            union = replace(union, sketch=self.layout.merge(union.sketch, one.sketch))
        if not any(one.relief for one in kept):
            return union
        # The larger relief, and no sum: granted inputs of two tenants may be the same ones. And
        # none that would leave the union less far than any of its parts had come by itself.
        fraction = self.layout.fraction
        reached = max(fraction(one.sketch) - one.relief for one in kept)
        most = max(one.relief for one in kept)
        return replace(union, relief=max(0.0, min(most, fraction(union.sketch) - reached)))


def windows(length: float | Literal["month"] | None, carry_over: float) -> Windows | None:
    """Return when pools forget; without a length never.

    Raises:
        ConfigurationError: less than a day, or a share outside [0, 1].
    """
    return None if length is None else Windows(length, carry_over)
