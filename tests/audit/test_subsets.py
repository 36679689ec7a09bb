"""Sums of subsets are counted exactly, however they are cut in two."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tollkeeper.audit.watermarks import subsets
from tollkeeper.audit.watermarks.subsets import subset_p


@pytest.mark.parametrize(("count", "chosen"), [(9, 1), (9, 8), (8, 3), (10, 4), (12, 5), (11, 6)])
def test_all_subsets_are_counted(count: int, chosen: int) -> None:
    """Against every combination written out, ties among them."""
    values = np.random.default_rng(count).integers(0, 6, count) / 7
    least = sum(values[:chosen]) - 1e-9
    hits = sum(sum(one) >= least for one in itertools.combinations(values, chosen))

    found, _ = subset_p(values, chosen, draws=99, rng=np.random.default_rng(0))

    assert found == hits / math.comb(count, chosen)


def test_the_largest_values_reach_the_floor() -> None:
    """Five of a hundred groups above all others: one subset in C(100, 5)."""
    values = np.arange(100.0)[::-1].copy()

    found, means = subset_p(values, 5, draws=500, rng=np.random.default_rng(0))

    assert found == 1 / math.comb(100, 5)
    assert means.shape == (500,)
    assert abs(means.mean() - 49.5) < 2.5  # four standard errors


def test_too_many_subsets_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn p-values are those counted, up to chance, and never zero."""
    values = np.random.default_rng(3).normal(size=12)
    values[:4] += 0.5
    exact, _ = subset_p(values, 4, draws=99, rng=np.random.default_rng(0))
    monkeypatch.setattr(subsets, "MOST", 10)

    drawn, _ = subset_p(values, 4, draws=20_000, rng=np.random.default_rng(0))
    least, _ = subset_p(
        np.r_[9 + np.arange(4.0), values], 4, draws=99, rng=np.random.default_rng(0)
    )

    assert drawn == pytest.approx(exact, abs=4 * (exact / 20_000) ** 0.5)
    assert least == 1 / 100
