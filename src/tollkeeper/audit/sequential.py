"""Evidence that may be looked at after every pair and stopped at will: an e-process.

Under the null the sign of each difference y_i is a fair coin, given all before it and given |y_i|.
A gambler who bets a share of her money on positive signs then has, on average, never more than she
began with; having a thousand times as much ever happens with probability 1/1000 at most (Ville's
inequality), however the moment to stop is chosen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.errors import AuditRefused
from tollkeeper.types import Scores

LAMBDAS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
"""Shares of her money that gamblers bet; the e-value is their average (method spec, 10.2)."""

THRESHOLD = 1000.0
"""Evidence at which to stop at level .001."""


def bet_scale(reference: ArrayLike) -> float:
    """Return s = 2 median |r| of a reference's scores, by which differences are cut off.

    Raises:
        AuditRefused: no scores, NaN, or half of them 0.
    """
    scores = np.asarray(reference, np.float64)
    if scores.size == 0 or not np.isfinite(scores).all():
        raise AuditRefused("expected one or more finite reference scores to scale the bets by")
    scale = 2 * float(np.median(np.abs(scores)))
    if scale == 0:
        raise AuditRefused("the median reference score is 0; bets have no scale")
    return scale


def log_wealth(y: ArrayLike, *, s: float, lambdas: tuple[float, ...] = LAMBDAS) -> Scores:
    """Return (m, len(lambdas)) logarithms of what each gambler has after each pair.

    Args:
        y: (m,) differences trained twin minus held twin, in the order in which they are revealed.
        s: positive; fixed beforehand, or a function of what does not tell the signs.
        lambdas: shares in [0, 1).

    Raises:
        AuditRefused: NaN, or a scale or a share out of range.
    """
    values = np.asarray(y, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise AuditRefused(f"expected a list of finite differences, got shape {values.shape}")
    if not (s > 0 and math.isfinite(s)):
        raise AuditRefused(f"expected a positive finite bet scale, got {s}")
    shares = np.asarray(lambdas, np.float64)
    if shares.size == 0 or not ((shares >= 0) & (shares < 1)).all():
        raise AuditRefused(f"expected shares to bet in [0, 1), got {lambdas}")
    return np.cumsum(np.log1p(np.tanh(values / s)[:, np.newaxis] * shares), axis=0)


def e_process(y: ArrayLike, *, s: float, lambdas: tuple[float, ...] = LAMBDAS) -> Scores:
    """Return (m,) E_t = mean over lambda of prod_{i<=t} (1 + lambda tanh(y_i / s)).

    Under the null the probability that it ever reaches 1/alpha is at most alpha.

    Args:
        y: (m,) differences in the order in which they are revealed.
        s: positive scale of the bets, from `bet_scale`.
        lambdas: shares in [0, 1).

    References:
        Method spec, section 10.2; Ville, "Etude critique de la notion de collectif", 1939;
        Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
        2024.
    """
    wealth = log_wealth(y, s=s, lambdas=lambdas)
    if not wealth.size:
        return np.empty(0)
    with np.errstate(over="ignore"):
        means = np.exp(wealth).mean(axis=1)
    found: Scores = np.minimum(means, np.finfo(np.float64).max)
    return found


def crossed(e_values: NDArray[np.float64], threshold: float = THRESHOLD) -> int | None:
    """Return after how many pairs the evidence first reached the threshold, or None."""
    places = np.flatnonzero(e_values >= threshold)
    return int(places[0]) + 1 if places.size else None
