"""Several p-values or e-values at once: corrections and combinations that keep their promise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.errors import AuditRefused

PValues = NDArray[np.float64]


def holm(p_values: ArrayLike) -> PValues:
    """Return (m,) adjusted p-values: rejecting those <= alpha errs anywhere with at most alpha.

    Valid under any dependence.

    Args:
        p_values: (m,) of one family: suspects x statistics x modes x looks.

    References:
        Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
        Statistics 1979.
    """
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def bonferroni(p_values: ArrayLike) -> PValues:
    """Return (m,) p-values times their number; the smallest is a valid combined p-value."""
    p = _checked(p_values)
    return np.minimum(p * p.size, 1)


def twice_mean(p_values: ArrayLike) -> float:
    """Return twice the arithmetic mean: one p-value, valid under any dependence.

    References:
        Rueschendorf, "Random variables with maximum sums", Advances in Applied Probability 1982;
        Vovk and Wang, "Combining p-values via averaging", Biometrika 2020.
    """
    p = _checked(p_values)
    return float(p[0]) if p.size == 1 else min(1.0, 2 * float(p.mean()))


def harmonic_mean(p_values: ArrayLike) -> float:
    """Return the harmonic mean of p-values, which is NOT a p-value.

    Dataset inference of classifiers publishes it (Maini et al., ICLR 2021); independent uniform
    p-values fall below .05 in 6 to 8 of 100 cases (method spec, section 2.5). `harmonic` is valid.
    """
    p = _checked(p_values)
    return float(p.size / (1 / p).sum())


def harmonic(p_values: ArrayLike) -> float:
    """Return the harmonic mean times e ln K, valid under any dependence.

    Notes: for K = 2, where e ln 2 is too little, the factor is 2 (Bonferroni's, since the harmonic
    mean is at least the smallest p-value).

    References:
        Vovk and Wang, "Combining p-values via averaging", Biometrika 2020.
    """
    p = _checked(p_values)
    factor = 1.0 if p.size == 1 else max(2.0, math.e * math.log(p.size))
    return min(1.0, factor * harmonic_mean(p))


def e_product(e_values: ArrayLike) -> float:
    """Return the product: an e-value if the factors are independent, or each is one given the past.

    References:
        Vovk and Wang, "E-values: calibration, combination and applications", Annals of Statistics
        2021.
    """
    with np.errstate(over="ignore"):  # infinite evidence is still evidence; stated as the largest
        found = float(np.prod(_checked_e(e_values)))
    return min(found, np.finfo(np.float64).max)


def e_average(e_values: ArrayLike) -> float:
    """Return the arithmetic mean: an e-value under any dependence."""
    return float(_checked_e(e_values).mean())


def e_from_p(p: float) -> float:
    """Return 1 / (2 sqrt(p)), the e-value that a p-value is worth.

    References:
        Vovk and Wang, "E-values", Annals of Statistics 2021, equation 1 with kappa = 1/2.
    """
    return float(0.5 / math.sqrt(_checked([p])[0]))


def p_from_e(e: float) -> float:
    """Return min(1, 1 / e), a p-value by Markov's inequality."""
    value = float(_checked_e([e])[0])
    return 1.0 if value <= 1 else 1 / value


def _checked(p_values: ArrayLike) -> PValues:
    p = np.atleast_1d(np.asarray(p_values, np.float64))
    if p.ndim != 1 or p.size == 0 or not ((p > 0) & (p <= 1)).all():
        raise AuditRefused(f"expected one or more p-values in (0, 1], got {p_values!r}")
    return p


def _checked_e(e_values: ArrayLike) -> NDArray[np.float64]:
    e = np.atleast_1d(np.asarray(e_values, np.float64))
    if e.ndim != 1 or e.size == 0 or not ((e >= 0) & np.isfinite(e)).all():
        raise AuditRefused(f"expected one or more finite e-values of at least 0, got {e_values!r}")
    return e
