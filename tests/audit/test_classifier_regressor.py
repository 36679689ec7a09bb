"""The regressor: its gradients, what it learns, what it refuses."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from tollkeeper.audit.classifiers.regressor import Fitting, Regressor, slopes
from tollkeeper.errors import AuditRefused


def _rows(count: int, shift: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, 6))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients_are_slopes_of_the_loss(activation: Literal["relu", "tanh"]) -> None:
    """Each agrees with a difference quotient of the published loss."""
    rng = np.random.default_rng(0)
    rows, signs = rng.normal(size=(9, 3)), np.repeat([-1.0, 1.0, 1.0], 3)
    first, last = rng.normal(size=(4, 5)), rng.normal(size=6)

    def loss(one: np.ndarray, two: np.ndarray) -> float:
        return float(-np.mean(signs * Regressor(one, two, activation)(rows)))

    found = slopes(Regressor(first, last, activation), rows, signs)
    for number, weights in enumerate((first, last)):
        for at in np.ndindex(weights.shape):
            step = np.zeros_like(weights)
            step[at] = 1e-6
            ends = [
                loss(first + sign * step, last) if number == 0 else loss(first, last + sign * step)
                for sign in (-1, 1)
            ]
            assert found[number][at] == pytest.approx((ends[1] - ends[0]) / 2e-6, abs=1e-6)


def test_public_rows_score_high() -> None:
    """Fresh rows of both sides are told apart; scores stay in [-1, 1]."""
    fitted = Fitting(steps=200)(
        _rows(200, -0.5, 1), _rows(200, 0.5, 2), rng=np.random.default_rng(0)
    )
    private, public = fitted(_rows(300, -0.5, 3)), fitted(_rows(300, 0.5, 4))
    assert public.mean() - private.mean() > 1
    assert np.abs(np.concatenate([private, public])).max() <= 1


def test_fits_are_reproducible() -> None:
    """The generator decides the start, and nothing else is random."""
    one, again, other = (
        Fitting(steps=20)(_rows(30, -1, 1), _rows(30, 1, 2), rng=np.random.default_rng(seed))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.first, again.first)
    assert not np.array_equal(one.first, other.first)


def test_rows_that_cannot_be_fitted_are_refused() -> None:
    """Too few, of different widths, or not finite."""
    rng, fit = np.random.default_rng(0), Fitting(steps=1)
    with pytest.raises(AuditRefused, match="at least 20 pictures of each side"):
        fit(_rows(19, 0, 0), _rows(40, 0, 0), rng=rng)
    with pytest.raises(AuditRefused, match="of one width"):
        fit(_rows(30, 0, 0), _rows(30, 0, 0)[:, :5], rng=rng)
    broken = _rows(30, 0, 0)
    broken[3, 3] = np.nan
    with pytest.raises(AuditRefused, match="finite"):
        fit(broken, _rows(30, 0, 0), rng=rng)
