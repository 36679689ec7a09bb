"""What stands before the ladder: suspension and hard budgets."""

from __future__ import annotations

import pytest

from tollkeeper.errors import BudgetExhausted, SuspendedError
from tollkeeper.gateway.policy import check_budget, check_standing
from tollkeeper.types import Account


def test_standing_and_budget() -> None:
    """Suspended tenants and spent budgets are refused; no budget is no limit."""
    with pytest.raises(SuspendedError):
        check_standing(Account("a", "k", "a", suspended=True))
    check_standing(Account("a", "k", "a"))
    with pytest.raises(BudgetExhausted):
        check_budget(4, 3)
    check_budget(3, 3)
    check_budget(1e9, None)
