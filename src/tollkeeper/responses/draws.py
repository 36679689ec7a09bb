"""Random numbers that a key and an input decide, so that asking again teaches nothing new."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from numpy.typing import NDArray

from tollkeeper.types import Images

_WORD = 8


def uniforms(key: bytes, purpose: bytes, inputs: Images, count: int) -> NDArray[np.float64]:
    """Return (n, count) numbers uniform on (0, 1), each row its input's own.

    Bits come from SHAKE-256 of an HMAC, so they do not depend on numpy's version. Inputs are told
    apart by their pixels' 256 levels only: a picture that differs by less than half a level, by
    -0 for 0 say, is the same picture to the victim and must not draw anew.

    Args:
        key: secret, of any length.
        purpose: what draws, so that two responses of one key draw differently.
        inputs: (n, ...) in [0, 1].
        count: numbers of each input.
    """
    levels = np.rint(np.asarray(inputs, np.float64) * 255).astype(np.uint8)
    parts = [_bits(key, purpose + b"\0" + row.tobytes(), count) for row in levels]
    words = np.frombuffer(b"".join(parts), "<u8").reshape(len(levels), count)
    # The upper 53 bits, as many as a float64 holds, at the middle of their cell.
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def normals(key: bytes, purpose: bytes, inputs: Images, count: int) -> NDArray[np.float64]:
    """Return (n, count) standard normal numbers, each row its input's own (Box and Muller 1958)."""
    pairs = uniforms(key, purpose, inputs, 2 * count)
    radius = np.sqrt(-2 * np.log(pairs[:, :count]))
    found: NDArray[np.float64] = radius * np.cos(2 * np.pi * pairs[:, count:])
    return found


def _bits(key: bytes, message: bytes, count: int) -> bytes:
    seed = hmac.digest(key, message, "sha256")
    return hashlib.shake_256(seed).digest(_WORD * count)
