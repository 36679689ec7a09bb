"""What account detectors keep of queries: few and small integers, and states that know whose they are.

Integers make distances exact: equal pictures are at distance 0, and no batch changes a distance.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import DetectorError

Whole = NDArray[np.float64]
"""(n, d) whole numbers, as float64 since that is what multiplies fast."""

_LEVELS = 2**16 - 1
_HORIZON = 16


def levels(rows: NDArray[np.float32]) -> Whole:
    """Return (n, d) values in [0, 1] as whole numbers from 0 to 65,535."""
    found: Whole = np.round(rows.astype(np.float64) * _LEVELS)
    return found


def squared_distances(left: Whole, right: Whole) -> Whole:
    """Return (n, m) squared distances between (n, d) and (m, d) whole numbers, exact to 2**53."""
    cross = left @ right.T
    found: Whole = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * cross
    return found


class Projection:
    """Random signs that shorten rows and keep their distances on average.

    A row v, less its origin, becomes k numbers `sum(±v) / sqrt(d)`, none beyond `reach` (they are cut
    there) and each rounded to one of 256; the mean of squared differences of two such rows is
    the mean of squared differences of the rows themselves, but for a relative error near
    sqrt(2 / k).

    Source: Achlioptas, "Database-friendly random projections", JCSS 66 (2003).
    """

    def __init__(
        self, size: int, dim: int, *, key: bytes, reach: float = 2.0, origin: float = 0.5
    ) -> None:
        """Draw the signs from a key, the same on every machine.

        Args:
            size: d.
            dim: k.
            key: secret of the deployment: who knows it can move a query without its distances.
            reach: the largest number kept; four times the root mean square of v is enough.
            origin: of the values, in multiples of 1/2.
        """
        drawn = hashlib.shake_256(b"tollkeeper projection" + key).digest((size * dim + 7) // 8)
        bits = np.unpackbits(np.frombuffer(drawn, np.uint8))[: size * dim]
        self._signs = bits.reshape(size, dim) * 2.0 - 1
        self._scale = 2 * reach / 256
        self._size, self._origin = size, round(2 * origin) * _LEVELS

    @property
    def step(self) -> float:
        """How far apart two neighboring levels are."""
        return self._scale

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return (n, k) bytes of (n, d) rows in [0, 1]."""
        sums = (2 * levels(rows) - self._origin) @ self._signs
        found = np.floor(sums / (2 * _LEVELS * np.sqrt(self._size)) / self._scale) + 128
        kept: NDArray[np.uint8] = np.clip(found, 0, 255).astype(np.uint8)
        return kept


class Sample:
    """A random sample of bounded size of all that came, its newest part not forgotten.

    The first `most` are kept; the j-th after them takes the place of a random one with
    probability `most / j`, never less than 1 in 16, so that a long life leaves room for news.

    Source: Vitter, "Random Sampling with a Reservoir", ACM TOMS 11 (1985), algorithm R; bounded
    as in Aggarwal, "On biased reservoir sampling in the presence of stream evolution", VLDB 2006.

    Attributes:
        most: how many are kept.
    """

    def __init__(self, most: int, *, key: bytes) -> None:
        """Draw from a key: who knows it knows what will be forgotten."""
        self.most = most
        self._secret = hashlib.sha256(key).digest()

    def place(self, kept: int, *, seen: float, at: int) -> int | None:
        """Return the position that a newcomer takes, or None if it is not kept.

        Args:
            kept: how many there are; also the position of one that is added.
            seen: how many have come, with this one.
            at: number of the draw.
        """
        if kept < self.most:
            return kept
        drawn = hashlib.blake2b(at.to_bytes(8, "big"), key=self._secret, digest_size=8).digest()
        place = int(int.from_bytes(drawn) / 2**64 * min(seen, _HORIZON * self.most))
        return place if place < self.most else None


class Header:
    """The first bytes of a state: which detector wrote it, and some numbers.

    Attributes:
        size: in bytes.
    """

    def __init__(self, kind: str, parameters: Any, numbers: str) -> None:
        """Name the detector by its kind and parameters; `numbers` is a format of `struct`."""
        named = hashlib.blake2b(f"{kind} {parameters!r}".encode(), digest_size=8)
        self._owner = named.digest()
        self._kind, self._numbers = kind, struct.Struct("<" + numbers)
        self.size = len(self._owner) + self._numbers.size

    def write(self, *numbers: Any) -> bytes:
        """Return the header of a state."""
        return self._owner + self._numbers.pack(*numbers)

    def read(self, state: bytes) -> tuple[Any, ...]:
        """Return the numbers of a state.

        Raises:
            DetectorError: another detector wrote it.
        """
        if state[: len(self._owner)] != self._owner or len(state) < self.size:
            raise DetectorError(
                f"expected a state of this {self._kind} detector, got {len(state)} bytes of another"
            )
        return self._numbers.unpack_from(state, len(self._owner))
