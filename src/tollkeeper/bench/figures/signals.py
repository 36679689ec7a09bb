"""Price signals that were tried, each as a number in [0, 1] of what an account has asked.

Those that a guard keeps are read from its sketch. The others are computed from all
embeddings at once: they would need more state, and are here to show what it would buy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.planes import Gaussian
from tollkeeper.guard.profiles import Profile
from tollkeeper.types import Embeddings

Signal = Callable[[Embeddings], NDArray[np.float64]]
"""(n, d) embeddings in asking order to (n,) values after each input."""

_TABLES, _BITS = 20, 12


def buckets(*, centered: bool, bits: int = _BITS) -> Profile:
    """Return a profile whose price reads the share of hash buckets visited."""
    base = profiles.RECOMMENDED if centered else profiles.B4B_2023
    return replace(base, name="buckets", landmarks=0, bits=bits, ceiling=None)


def landmarks(count: int) -> Profile:
    """Return a profile whose price reads the share of so many landmarks visited."""
    return replace(profiles.RECOMMENDED, name="landmarks", landmarks=count, ceiling=None)


def of_guard(profile: Profile, calibration: Calibration, secret: bytes) -> Signal:
    """Return the signal that a profile's sketch holds."""
    guard = Guard(profile, calibration, secret=secret)

    def signal(embeddings: Embeddings) -> NDArray[np.float64]:
        return guard.signal(guard.empty(), embeddings)

    return signal


def chao1(calibration: Calibration, secret: bytes) -> Signal:
    """Return the Chao1 estimate of the buckets that the account is heading for, as a share.

    S + f1**2 / (2 f2) with S buckets seen and f1, f2 seen once and twice, mean over tables.
    Repeats must have been taken out. Source: Chao, "Nonparametric Estimation of the Number of
    Classes in a Population", Scandinavian Journal of Statistics 1984.
    """
    planes = Gaussian().draw(secret, calibration, _TABLES * _BITS, centered=True)
    places = 1 << np.arange(_BITS)

    def signal(embeddings: Embeddings) -> NDArray[np.float64]:
        cells = planes(embeddings).reshape(len(embeddings), _TABLES, _BITS) @ places
        total = np.zeros(len(embeddings))
        for table in cells.T:
            total += _chao1_curve(table)
        return np.minimum(total / (_TABLES << _BITS), 1)

    return signal


def _chao1_curve(cells: NDArray[np.intp]) -> NDArray[np.float64]:
    counts: dict[int, int] = {}
    once = twice = 0
    curve = np.empty(len(cells))
    for at, cell in enumerate(cells.tolist()):
        seen = counts.get(cell, 0)
        counts[cell] = seen + 1
        once += (seen == 0) - (seen == 1)
        twice += (seen == 1) - (seen == 2)
        # The form without bias, which needs no bucket seen twice.
        curve[at] = len(counts) + once * (once - 1) / (2 * (twice + 1))
    return curve


def trace(calibration: Calibration) -> Signal:
    """Return the trace of the account's covariance over the calibration's, at most 1."""
    whole = float(np.square(calibration.sample - calibration.mean).sum(axis=1).mean())

    def signal(embeddings: Embeddings) -> NDArray[np.float64]:
        rows = (embeddings - calibration.mean).astype(np.float64)
        counts = np.arange(1, len(rows) + 1)
        squares = np.cumsum(np.square(rows).sum(axis=1)) / counts
        means = np.cumsum(rows, axis=0) / counts[:, None]
        breadth: NDArray[np.float64] = (squares - np.square(means).sum(axis=1)) / whole
        return np.minimum(breadth, 1)

    return signal


def candidates(calibration: Calibration, secret: bytes) -> Mapping[str, Signal]:
    """Return every signal by name."""
    return {
        "raw_buckets": of_guard(buckets(centered=False), calibration, secret),
        "buckets": of_guard(buckets(centered=True), calibration, secret),
        "buckets8": of_guard(buckets(centered=True, bits=8), calibration, secret),
        "chao1": chao1(calibration, secret),
        "trace": trace(calibration),
        **{
            f"landmarks{count}": of_guard(landmarks(count), calibration, secret)
            for count in (128, 256, 384)
        },
    }
