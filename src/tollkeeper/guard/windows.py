"""Windows: when a pool's marks are forgotten, and how many stay.

At the start of each window every mark of a sketch stays with one probability, the same
marks in every pool of a deployment: so pools can still be united, and a union turned is the
union of what was turned. Within a window nothing is forgotten. The sample of fine cells is
evidence, not price, and stays.

Source: ours.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from tollkeeper.errors import ConfigurationError
from tollkeeper.guard import draws
from tollkeeper.guard.layout import Layout
from tollkeeper.types import Sketch

DAY_S = 86_400.0
_LEVELS = 1 << 16
_REMEMBERED = 1024
"""Turns whose surviving marks are remembered, at 10 KB each: more than two years of days."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one length, one after the other since 1970.

    Attributes:
        length: days, or calendar months in UTC.
        carry_over: share of the marks that stay from one window to the next, in [0, 1].
    """

    length: float | Literal["month"]
    carry_over: float

    def __post_init__(self) -> None:
        """Refuse what are no windows."""
        if self.length != "month" and not 1 <= self.length < math.inf:
            raise ConfigurationError(
                f'expected a window of at least one day, in days, or "month", got {self.length!r}'
            )
        if not 0 <= self.carry_over <= 1:
            raise ConfigurationError(f"expected a share in [0, 1] to carry, got {self.carry_over}")

    def start(self, at: float) -> float:
        """Return when the window of a time began, both in seconds since the epoch."""
        if self.length == "month":
            day = datetime.fromtimestamp(at, UTC)
            return datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()
        # In whole seconds, so that the start of a start is itself.
        length = round(self.length * DAY_S)
        return float(math.floor(at) // length * length)

    def turned(
        self, sketch: Sketch, layout: Layout, *, key: bytes, since: float, at: float
    ) -> Sketch:
        """Return what is left of a sketch of the window that began at `since`.

        Args:
            sketch: not changed.
            layout: of the sketch.
            key: the same for all pools that may be united.
            since: start of its window.
            at: now; before `since` nothing is forgotten.
        """
        start = self.start(at)
        if start <= since or self.carry_over == 1:
            return sketch
        bits = layout.bitmap(sketch)
        # From the newest turn back; the order does not matter, and often nothing is left soon.
        while start > since and bits.any():
            bits = bits & _staying(key, start, 8 * layout.bitmap_bytes, self.carry_over)
            start = self.start(start - 1)
        return layout.joined(bits, layout.sample(sketch))


@functools.lru_cache(maxsize=_REMEMBERED)
def _staying(key: bytes, start: float, count: int, share: float) -> Sketch:
    """Return (count / 8,) packed bits: which marks survive the turn at `start`."""
    name = hashlib.sha256(b"window" + struct.pack("<d", start) + key).digest()
    mask = np.packbits(draws.integers(name, count, bits=16) < round(share * _LEVELS))
    mask.flags.writeable = False
    return mask
