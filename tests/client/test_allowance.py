"""Promises of caps: exact, shared, and kept before anything is sent."""

from __future__ import annotations

import threading
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.client.allowance import Allowance, Caps, Spend, Tariff
from tollkeeper.errors import BudgetExhausted, ConfigurationError

NAMES = [field.name for field in fields(Caps)]


@pytest.mark.parametrize("name", NAMES)
def test_a_cap_lets_pass_what_fits_exactly_and_nothing_more(name: str) -> None:
    """Each cap is reached to the last unit, and one unit more is refused and not counted."""
    allowance = Allowance(Caps(**{name: 10}), Tariff(per_call=1.0))
    need = replace(Spend(), **{name: 5})
    for _ in range(2):
        allowance.check(need)
        allowance.hold(need)
    with pytest.raises(BudgetExhausted, match=r"cap of 10 .*10 spent or in flight and 1 more"):
        allowance.hold(replace(Spend(), **{name: 1}))
    for _ in range(2):
        allowance.settle(need, need)
    assert getattr(allowance.spend(), name) == 10
    with pytest.raises(BudgetExhausted):
        allowance.check(replace(Spend(), **{name: 1}))


def test_a_cap_on_one_thing_does_not_touch_the_others() -> None:
    """What has no cap is counted and never refused."""
    allowance = Allowance(Caps(repeats=0))
    need = Spend(calls=9, distinct=9, tokens=9, money=9.0, seconds=9.0)
    allowance.hold(need)
    allowance.settle(need, need)
    assert allowance.spend() == need


def test_ten_dimes_are_a_dollar() -> None:
    """Rounding of floats does not refuse the last call that fits."""
    allowance = Allowance(Caps(money=1.0), Tariff(per_call=0.1))
    for _ in range(10):
        allowance.hold(Spend(money=0.1))
        allowance.settle(Spend(money=0.1), Spend(money=0.1))
    with pytest.raises(BudgetExhausted):
        allowance.hold(Spend(money=0.1))


def test_what_a_call_did_not_cost_is_free_again() -> None:
    """Settling replaces the worst case by what a call has really cost."""
    allowance = Allowance(Caps(money=1.0), Tariff(per_call=1.0))
    allowance.hold(Spend(money=0.9))
    with pytest.raises(BudgetExhausted):
        allowance.hold(Spend(money=0.2))
    allowance.settle(Spend(money=0.9), Spend(money=0.1))
    allowance.hold(Spend(money=0.9))


def test_threads_together_never_go_over() -> None:
    """Of many threads that hold at once exactly as many succeed as fit."""
    allowance = Allowance(Caps(calls=100))
    granted: list[int] = []

    def ask() -> None:
        for _ in range(50):
            try:
                allowance.hold(Spend(calls=1))
            except BudgetExhausted:
                continue
            granted.append(1)
            allowance.settle(Spend(calls=1), Spend(calls=1))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == allowance.spend().calls == 100


def test_an_earlier_run_counts_once() -> None:
    """What a transcript brings along is added the first time that it is opened."""
    allowance = Allowance()
    allowance.carry("a", Spend(calls=3))
    allowance.carry("a", Spend(calls=3))
    allowance.carry("b", Spend(calls=2))
    assert allowance.spend() == Spend(calls=5)


def test_a_cap_on_money_needs_a_price() -> None:
    """A cap that could never hold is refused."""
    with pytest.raises(ConfigurationError, match="needs a price"):
        Allowance(Caps(money=5.0))


def test_all_bad_limits_are_named_together() -> None:
    """Negative and not-a-number caps and prices are refused in one line that names each."""
    with pytest.raises(ConfigurationError, match=r"each cap .* distinct=-1, seconds=nan"):
        Caps(distinct=-1, calls=3, seconds=float("nan"))
    with pytest.raises(ConfigurationError, match=r"each price .* per_call=-0.5"):
        Tariff(per_call=-0.5)


def test_a_tariff_adds_its_three_prices() -> None:
    """Inputs, calls and thousands of tokens each have their price."""
    tariff = Tariff(per_input=0.5, per_call=10.0, per_1k_tokens=2.0)
    assert tariff.money(inputs=4, tokens=500, calls=3) == 4 * 0.5 + 3 * 10.0 + 0.5 * 2.0


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_no_tokenizer_costs_more_than_the_most(texts: list[str]) -> None:
    """A token for each byte and two marks for each text are within what is held for a call."""
    allowance = Allowance(tariff=Tariff(per_input=1.0, per_call=1.0, per_1k_tokens=1.0))
    tokens = sum(len(text.encode()) + 2 for text in texts)
    worst = len(texts) * 1.0 + 1.0 + tokens / 1000
    assert allowance.most(texts) >= worst
    assert allowance.estimate(texts, calls=1) <= allowance.most(texts)


def test_spends_add_and_subtract_field_by_field() -> None:
    """Sums of accounts and what is left after a difference are exact."""
    one = Spend(1, 2, 3, 4, 5.0, 6.0, 7, 8.0)
    two = Spend(10, 20, 30, 40, 50.0, 60.0, 70, 80.0)
    assert one + two == Spend(11, 22, 33, 44, 55.0, 66.0, 77, 88.0)
    assert (one + two) - two == one
