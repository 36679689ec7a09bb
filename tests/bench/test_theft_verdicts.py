"""Budgets and conditions as a user writes them."""

from __future__ import annotations

import pytest

from tollkeeper.bench.theft.verdicts import judge, parse_budgets, parse_condition
from tollkeeper.errors import ConfigurationError

METRICS = ("fidelity", "accuracy.cifar10")
BUDGETS = (1000, 5000)


def test_budgets_rise_and_come_once() -> None:
    """Budgets are whole numbers with an optional k, in any order."""
    assert parse_budgets("5k, 1000,5000,2") == (2, 1000, 5000)
    for text in ("", "0", "1000,", "-5", "5e3", "1.5k", "5K", "5,000k k"):
        with pytest.raises(ConfigurationError):
            parse_budgets(text)


@pytest.mark.parametrize(
    ("text", "holds", "fails"),
    [
        ("fidelity@5000>0.8", 0.9, 0.8),
        ("fidelity@5k>=0.8", 0.8, 0.79),
        ("fidelity@5k<.8", 0.7, 0.8),
        (" accuracy.cifar10 @ 1k <= 8e-1", 0.8, 0.81),
    ],
)
def test_conditions_compare(text: str, holds: float, fails: float) -> None:
    """All four comparisons, on any budget that is run."""
    condition = parse_condition(text, metrics=METRICS, budgets=BUDGETS)
    assert condition.holds(holds)
    assert not condition.holds(fails)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("fidelity>0.8", "METRIC@BUDGET"),
        ("fidelity@5k=0.8", "METRIC@BUDGET"),
        ("fidelty@5k>0.8", "choose fidelity, accuracy.cifar10"),
        ("fidelity@4k>0.8", "4,000, which is not run"),
        ("fidelity@many>0.8", "'many'"),
        ("fidelity@5k>nan", "finite"),
        ("fidelity@5k>high", "finite"),
    ],
)
def test_bad_conditions_are_refused(text: str, named: str) -> None:
    """A condition that could never be checked does not pass in silence."""
    with pytest.raises(ConfigurationError, match=named):
        parse_condition(text, metrics=METRICS, budgets=BUDGETS)


def test_a_row_that_was_cut_short_can_fail_but_not_pass() -> None:
    """Only a whole row lets a check pass."""
    condition = parse_condition("fidelity@5k>0.8", metrics=METRICS, budgets=BUDGETS)
    assert judge(condition, 0.9, is_whole=True).failed is True
    assert judge(condition, 0.9, is_whole=False).failed is True
    assert judge(condition, 0.7, is_whole=True).failed is False
    assert judge(condition, 0.7, is_whole=False).failed is None
    assert judge(condition, None, is_whole=False).failed is None
