"""The Shapiro-Wilk statistic with numpy only."""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import DetectorError

# Polynomials in 1 / sqrt(n), lowest power last, for the two outermost weights.
_OUTERMOST = (-2.706056, 4.434685, -2.07119, -0.147981, 0.221157, 0.0)
_NEXT = (-3.582633, 5.682633, -1.752461, -0.293762, 0.042981, 0.0)


def shapiro_w(values: NDArray[np.float64]) -> float:
    """Return how normal a sample looks: W in (0, 1], 1 for a perfect normal sample.

    Args:
        values: (n,) finite, n at least 3, in any order.

    Returns:
        W; 1.0 where all values are equal, since such a sample has no shape.

    Raises:
        DetectorError: fewer than 3 values, or some not finite.

    Source: Royston, "Remark AS R94: A Remark on Algorithm AS 181: The W-test for Normality",
    Applied Statistics 44 (1995).
    Notes: the p-value is left out: PRADA compares W itself. Tested against scipy to 1e-6.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    if len(ordered) < 3 or not np.isfinite(ordered).all():
        raise DetectorError(f"expected at least 3 finite values, got {len(ordered)}")
    spread = ordered[-1] - ordered[0]
    if spread <= 0:
        return 1.0
    # In units of the range, as the algorithm does: small samples' squares do not vanish.
    centered = (ordered - ordered.mean()) / spread
    return min(1.0, float((_weights(len(ordered)) @ centered) ** 2 / (centered @ centered)))


@lru_cache(maxsize=16)
def _weights(n: int) -> NDArray[np.float64]:
    """Return the n antisymmetric weights of the order statistics, their squares' sum 1."""
    if n == 3:
        return np.array([-np.sqrt(0.5), 0.0, np.sqrt(0.5)])
    half = n // 2
    normal = NormalDist()
    scores = np.array([-normal.inv_cdf((i + 0.625) / (n + 0.25)) for i in range(half)])
    total = 2 * float(scores @ scores)
    upper = scores / np.sqrt(total)
    upper[0] += np.polyval(_OUTERMOST, n**-0.5)
    outer = 1
    if n > 5:
        upper[1] += np.polyval(_NEXT, n**-0.5)
        outer = 2
    left = total - 2 * float(scores[:outer] @ scores[:outer])
    room = 1 - 2 * float(upper[:outer] @ upper[:outer])
    upper[outer:] = scores[outer:] * np.sqrt(room / left)
    weights = np.zeros(n)
    weights[:half], weights[n - half :] = -upper, upper[::-1]
    weights.setflags(write=False)
    return weights
