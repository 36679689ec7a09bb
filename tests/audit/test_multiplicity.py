"""Corrections keep their level, and the published harmonic mean does not."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.audit import multiplicity as many
from tollkeeper.errors import AuditRefused


def test_holm_steps_down() -> None:
    """Adjusted p-values are the textbook's, in the order given, and never fall."""
    assert many.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert many.holm([0.9, 0.8]) == pytest.approx([1, 1])


def test_holm_is_never_weaker_than_bonferroni() -> None:
    """Holm rejects whatever Bonferroni rejects."""
    p = np.random.default_rng(0).random((200, 6))

    assert all((many.holm(row) <= many.bonferroni(row)).all() for row in p)


def test_levels_under_independence() -> None:
    """The raw harmonic mean errs in 7 of 100 cases at .05; the valid combinations in 5 at most."""
    p = np.random.default_rng(1).random((8000, 40))
    raw = np.mean([many.harmonic_mean(row) <= 0.05 for row in p])
    valid = [
        np.mean([combine(row) <= 0.05 for row in p[:2000]])
        for combine in (many.harmonic, many.twice_mean, lambda row: many.bonferroni(row).min())
    ]

    assert 0.062 < raw < 0.082
    assert max(valid) <= 0.05 + 0.015


def test_levels_under_full_dependence() -> None:
    """Where all p-values are one number, no valid combination is smaller than it."""
    for p in (0.001, 0.03, 0.5):
        same = [p] * 7
        assert min(many.harmonic(same), many.twice_mean(same), *many.bonferroni(same)) >= p


def test_one_p_value_stays_as_it_is() -> None:
    """A family of one needs no correction."""
    one = [0.02]
    found = many.harmonic(one), many.twice_mean(one), many.holm(one)[0], many.bonferroni(one)[0]

    assert found == pytest.approx((0.02,) * 4)


def test_two_p_values_get_bonferronis_factor() -> None:
    """For two p-values e ln 2 would be too little."""
    assert many.harmonic([0.01, 1.0]) == pytest.approx(2 * 2 / 101)


def test_e_values_combine() -> None:
    """Products and averages of e-values, and the way from p-values and back."""
    assert many.e_product([2, 3, 0.5]) == 3
    assert many.e_average([2, 4]) == 3
    assert many.e_from_p(0.0001) == 50
    assert many.p_from_e(1000) == 0.001
    assert many.p_from_e(0.5) == 1
    assert np.isfinite(many.e_product([1e300, 1e300]))


def test_e_values_of_p_values_are_fair() -> None:
    """The e-value of a uniform p-value is 1 on average: evidence out of nothing costs as much."""
    grid = (np.arange(20_000) + 0.5) / 20_000

    assert np.mean([many.e_from_p(p) for p in grid]) == pytest.approx(1, abs=0.02)


def test_what_is_no_p_value_is_refused() -> None:
    """Zero, NaN, more than 1, none at all, and negative evidence."""
    for bad in ([0.0], [np.nan], [1.2], []):
        with pytest.raises(AuditRefused, match="p-values in"):
            many.holm(bad)
    with pytest.raises(AuditRefused, match="e-values"):
        many.e_average([-1.0])
