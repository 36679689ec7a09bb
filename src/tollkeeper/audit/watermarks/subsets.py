"""How often a random subset has a sum as large as the one that was chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MOST = 10**8
"""Subsets that are counted one by one, in about a second; beyond, they are drawn."""

_CELLS = 10**7


def subset_p(
    values: NDArray[np.float64], chosen: int, *, draws: int, rng: np.random.Generator
) -> tuple[float, NDArray[np.float64]]:
    """Return the p-value of the first `chosen` values having the largest sum.

    Whether subsets are counted or drawn depends on their number alone, never on the values.

    Args:
        values: (n,); exchangeable under the null.
        chosen: size of the subset, from 1 to n - 1.
        draws: how many subsets are drawn for the null distribution, and for the p-value where there
            are more than `MOST` of them.
        rng: draws them.

    Returns:
        Share of all subsets with at least that sum, the chosen one among them; or
        (1 + hits) / (1 + draws). And (draws,) means of drawn subsets.
    """
    # A sum in another order may differ in its last bits; ties count against the accuser.
    slack = 1e-12 * (1 + float(np.abs(values).sum()))
    least = float(values[:chosen].sum()) - slack
    drawn = np.concatenate(list(_drawn(values, chosen, draws=draws, rng=rng)))
    total = math.comb(len(values), chosen)
    if total > MOST:
        return (1 + int(np.count_nonzero(drawn >= least))) / (1 + draws), drawn / chosen
    return _counted(values, chosen, least) / total, drawn / chosen


def _drawn(
    values: NDArray[np.float64], chosen: int, *, draws: int, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Yield sums of random subsets, in parts that fit into memory."""
    step = max(1, _CELLS // len(values))
    for start in range(0, draws, step):
        noise = rng.random((min(step, draws - start), len(values)))
        yield values[np.argpartition(noise, chosen - 1, axis=1)[:, :chosen]].sum(axis=1)


def _counted(values: NDArray[np.float64], chosen: int, least: float) -> int:
    """Return how many subsets sum to `least` or more.

    Each subset is cut in two at its `low`-th smallest position: every low part that ends at a
    position is paired with all high parts beyond it, whose sums are sorted.
    """
    low, high = chosen // 2, chosen - chosen // 2
    if low == 0:
        return int(np.count_nonzero(values >= least))
    ending = _ending_at(values, low)
    beyond: list[NDArray[np.float64]] = [np.zeros(1)] + [np.empty(0)] * high
    count = 0
    for at in range(len(values) - 1, low - 2, -1):
        sums = np.sort(beyond[high])
        count += int((len(sums) - np.searchsorted(sums, least - ending[at], "left")).sum())
        for size in range(high, 0, -1):
            beyond[size] = np.concatenate([beyond[size], values[at] + beyond[size - 1]])
    return count


def _ending_at(values: NDArray[np.float64], size: int) -> list[NDArray[np.float64]]:
    """Return for each position the sums of all subsets of `size` with it as their last."""
    before: list[NDArray[np.float64]] = [np.zeros(1)] + [np.empty(0)] * size
    found = []
    for value in values:
        found.append(value + before[size - 1])
        for count in range(size, 0, -1):
            before[count] = np.concatenate([before[count], value + before[count - 1]])
    return found
