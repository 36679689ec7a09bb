"""Conditions on what an attack achieves, such as `fidelity@5k>0.8`, for pipelines to fail on."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tollkeeper.errors import ConfigurationError

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*([^@\s]+)\s*@\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*")
_COUNT = re.compile(r"(\d+)(k?)")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; a run fails where it holds.

    Attributes:
        text: as the user wrote it.
        metric: name of a figure.
        budget: of the row that is meant.
        comparison: `>`, `>=`, `<` or `<=`.
        bound: what the figure is compared with.
    """

    text: str
    metric: str
    budget: int
    comparison: str
    bound: float

    def holds(self, value: float) -> bool:
        """Return whether a value meets the condition."""
        return _COMPARE[self.comparison](value, self.bound)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a condition.

    Attributes:
        condition: as the user wrote it.
        value: the figure; None if there is none.
        failed: whether the condition holds; None if that is not known.
    """

    condition: str
    value: float | None
    failed: bool | None


def parse_budgets(text: str) -> tuple[int, ...]:
    """Return budgets such as `1000,5k`, each once, rising.

    Raises:
        ConfigurationError: not whole numbers above 0.
    """
    budgets = sorted({_count(part) for part in text.split(",")})
    if budgets[0] < 1:
        raise ConfigurationError("expected budgets of at least 1 query, got 0")
    return tuple(budgets)


def parse_condition(text: str, *, metrics: Collection[str], budgets: Collection[int]) -> Condition:
    """Read a condition on a figure that is going to be measured.

    Args:
        text: METRIC@BUDGET, a comparison, and a number.
        metrics: names that there are.
        budgets: budgets that are run.

    Raises:
        ConfigurationError: another form, an unknown metric, or a budget that is not run.
    """
    found = _CONDITION.fullmatch(text)
    if not found:
        raise ConfigurationError(
            f"expected METRIC@BUDGET>NUMBER (or >=, <, <=) in --fail-on, got {text!r}"
        )
    metric, budget_text, comparison, bound_text = found.groups()
    if metric not in metrics:
        raise ConfigurationError(f"no metric {metric!r} in --fail-on; choose {', '.join(metrics)}")
    budget = _count(budget_text)
    if budget not in budgets:
        raise ConfigurationError(
            f"--fail-on asks for a budget of {budget:,}, which is not run; "
            f"--budget has {', '.join(f'{one:,}' for one in budgets)}"
        )
    try:
        bound = float(bound_text)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ConfigurationError(f"expected a finite number in --fail-on, got {bound_text!r}")
    return Condition(text, metric, budget, comparison, bound)


def judge(condition: Condition, value: float | None, *, is_whole: bool) -> Verdict:
    """Hold a condition against what was measured.

    A row that was cut short can fail a check, but not pass it: with all its queries the attack
    might have got further.

    Args:
        condition: that must not hold.
        value: the figure, None if there is none.
        is_whole: whether the row has all its runs, and none of them was cut short.
    """
    holds = value is not None and condition.holds(value)
    return Verdict(condition.text, value, holds if holds or is_whole else None)


def _count(text: str) -> int:
    found = _COUNT.fullmatch(text.strip())
    if not found:
        raise ConfigurationError(f"expected a whole number such as 5000 or 5k, got {text!r}")
    return int(found[1]) * (1000 if found[2] else 1)
