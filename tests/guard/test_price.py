"""Price curves: the published one to the last constant, and the geometric one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.errors import ConfigurationError
from tollkeeper.guard.price import Exponential, Free, Geometric, PriceCurve

CURVES = [Free(), Exponential(1e-6, 1.0, 0.8), Geometric(0.3, 0.25, 0.04, 8), Geometric(0, 1, 1, 1)]

# Coverage 10 % ... 100 % of the method spec's table (section 8.2), two digits each.
TABLE = {
    (1e-6, 1.0): [4.6e-6, 3.1e-5, 1.8e-4, 1.0e-3, 5.6e-3, 3.2e-2, 0.18, 1.00, 5.6, 31.6],
    (1e-7, 1.0): [6.5e-7, 5.5e-6, 4.2e-5, 3.2e-4, 2.4e-3, 1.8e-2, 0.13, 1.00, 7.5, 56],
    (1e-6, 0.8): [4.5e-6, 2.9e-5, 1.6e-4, 8.9e-4, 4.9e-3, 2.7e-2, 0.15, 0.80, 4.4, 24],
}


def published(c: float, *, flatness: float, level: float, beta: float) -> float:
    """Return B4B's cost as the paper writes it: c and beta in percent."""
    return max(0.0, flatness * (math.exp(math.log(level / flatness) * c / beta) - 1))


@pytest.mark.parametrize("constants", TABLE)
def test_the_published_cost_table_is_reproduced(constants: tuple[float, float]) -> None:
    """Every entry of the table agrees to its printed digits."""
    curve = Exponential(constants[0], constants[1], 0.80)
    found = curve(np.arange(10, 101, 10) / 100)
    np.testing.assert_allclose(found, TABLE[constants], rtol=0.03)


@given(c=st.floats(0, 1), flatness=st.floats(1e-9, 1e-2), beta=st.floats(0.05, 1))
def test_exponential_agrees_with_the_formula(c: float, flatness: float, beta: float) -> None:
    """The vectorized curve is the paper's formula."""
    found = Exponential(flatness, 1.0, beta)(np.array([c]))[0]
    expected = published(100 * c, flatness=flatness, level=1.0, beta=100 * beta)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("curve", CURVES)
def test_nothing_costs_nothing(curve: PriceCurve) -> None:
    """At coverage 0, and up to `free_until`, the price is exactly 0."""
    assert np.array_equal(curve(np.array([0.0, curve.free_until])), [0.0, 0.0])


@pytest.mark.parametrize("curve", CURVES)
@given(fractions=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_prices_never_fall(curve: PriceCurve, fractions: list[float]) -> None:
    """More coverage never makes an answer cleaner."""
    prices = curve(np.sort(fractions))
    assert (np.diff(prices) >= 0).all()
    assert (prices >= 0).all()


def test_geometric_levels_double_up_to_the_ceiling() -> None:
    """Just above the knee the first level, one step later twice that, then the ceiling."""
    curve = Geometric(knee=0.25, first=0.5, step=0.125, levels=3)
    found = curve(np.array([0.25, 0.2500001, 0.37, 0.375, 0.5, 0.625, 1.0]))
    assert found.tolist() == [0.0, 0.5, 0.5, 1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "constants", [(0, 1, 0.8), (1, 1, 0.8), (1e-6, 1, 0), (1e-6, math.inf, 0.8), (1e-6, 1, 1.2)]
)
def test_exponential_refuses_impossible_constants(constants: tuple[float, float, float]) -> None:
    """A curve that would not rise from 0 cannot be built."""
    with pytest.raises(ConfigurationError, match="flatness"):
        Exponential(*constants)


@pytest.mark.parametrize(
    "constants",
    [(-0.1, 1, 0.1, 3), (0.5, 0, 0.1, 3), (0.5, 1, 0, 3), (0.5, 1, 0.1, 0), (math.nan, 1, 0.1, 3)],
)
def test_geometric_refuses_impossible_constants(
    constants: tuple[float, float, float, int],
) -> None:
    """Levels need a knee, a size, a step and a number."""
    with pytest.raises(ConfigurationError, match="knee"):
        Geometric(*constants)
