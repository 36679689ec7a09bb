"""Keyed random numbers that never change.

A tenant's index lives for years, so what a key yields must not depend on the numpy
version, the processor or the BLAS. numpy promises no such thing for its
distributions (NEP 19), hence these four: SHAKE-256 makes the bits, and each
distribution is a table look-up, a sort or one exact scaling of them.
Use a fresh key (`keys.derive`) for every draw: equal keys give equal bits.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEVELS = 1 << 16


def integers(key: bytes, count: int, *, bits: int) -> NDArray[Any]:
    """Return (count,) uniform unsigned integers of 8, 16, 32 or 64 bits."""
    dtype = np.dtype(f"<u{bits // 8}")
    return np.frombuffer(hashlib.shake_256(key).digest(count * dtype.itemsize), dtype)


def normals(key: bytes, count: int) -> NDArray[np.float32]:
    """Return (count,) standard normal numbers on 65,536 equally likely quantiles.

    The largest is 4.3; the variance is 1 to float32 accuracy.
    """
    return normal_rows([key], count).ravel()


def normal_rows(keys: Sequence[bytes], count: int) -> NDArray[np.float32]:
    """Return (n, count) standard normal numbers, row i being `normals(keys[i], count)`."""
    bits = b"".join(hashlib.shake_256(key).digest(2 * count) for key in keys)
    return _quantiles().take(np.frombuffer(bits, "<u2")).reshape(len(keys), count)


def uniforms(key: bytes, count: int, *, low: float, high: float) -> NDArray[np.float64]:
    """Return (count,) numbers uniform on (low, high), on a grid of 2**32 midpoints."""
    unit = (integers(key, count, bits=32) + 0.5) / 2.0**32
    return low + (high - low) * unit


def permutation(key: bytes, count: int) -> NDArray[np.intp]:
    """Return a uniformly random order of 0 .. count - 1 (sorting random 64-bit tickets)."""
    return np.argsort(integers(key, count, bits=64), kind="stable")


@functools.cache
def _quantiles() -> NDArray[np.float32]:
    """Return the normal quantiles of the 65,536 midpoints, scaled to unit variance."""
    inverse = NormalDist().inv_cdf
    upper = np.array([inverse(0.5 + (k + 0.5) / _LEVELS) for k in range(_LEVELS // 2)])
    table = np.concatenate([-upper[::-1], upper])
    table /= np.sqrt(np.mean(table**2))
    return table.astype(np.float32)
