"""Shares with intervals that know what was drawn together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import betaincinv, stdtrit

from tollkeeper.bench.experiment import Direction, Metric

_TAIL = 0.025


def exact_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the 95% interval of a share of independent draws.

    References:
        Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of
        the binomial", Biometrika 1934.
    """
    low = 0.0 if hits == 0 else float(betaincinv(hits, count - hits + 1, _TAIL))
    high = 1.0 if hits == count else float(betaincinv(hits + 1, count - hits, 1 - _TAIL))
    return low, high


def share(flags: Sequence[bool], direction: Direction) -> Metric:
    """Return the share of true flags of independent draws."""
    hits = sum(flags)
    interval = exact_interval(hits, len(flags))
    return Metric(hits / len(flags), "ratio", direction, interval)


def clustered(hits: Sequence[int], each: int, direction: Direction) -> Metric:
    """Return a share over encoders, of which every one was judged `each` times.

    The interval is as wide as the wider of two: that of as many independent draws, and Student's t
    over the encoders' own shares. The second alone would be a point where no encoder has a hit.

    Args:
        hits: of each encoder.
        each: judgments of each encoder.
        direction: which way is better.
    """
    shares = np.asarray(hits, np.float64) / each
    mean, count = float(shares.mean()), len(shares)
    low, high = exact_interval(int(np.sum(hits)), count * each)
    if count > 1:
        half = float(stdtrit(count - 1, 1 - _TAIL) * shares.std(ddof=1) / np.sqrt(count))
        low, high = min(low, max(0.0, mean - half)), max(high, min(1.0, mean + half))
    return Metric(mean, "ratio", direction, (low, high))
