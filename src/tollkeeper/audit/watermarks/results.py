"""What the tests of marks in text have in common when they say what they found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.base import OwnershipResult


def cosine_result(
    test: str,
    *,
    statistic: float,
    p_value: float,
    effect: float,
    interval: tuple[float, float],
    null: NDArray[np.float64] | None = None,
    alternative: str,
    **details: float,
) -> OwnershipResult:
    """Return a result whose effect is a difference of cosines, in [-2, 2].

    On unit vectors the difference of squared distances, which papers give too, is -2 times it.
    """
    return OwnershipResult(
        test=test,
        null="key",
        statistic=statistic,
        p_value=p_value,
        effect_size=effect,
        interval=interval,
        null_distribution=np.empty(0) if null is None else null,
        alternative=alternative,
        details={"delta_cos": effect, "delta_l2": -2 * effect, **details},
    )
