"""Promises of the metered encoder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.encoders.metered import MeteredEncoder
from tollkeeper.errors import BudgetExhausted, ConfigurationError, InputError
from tollkeeper.testing import HashEncoder


def victim() -> CallableEncoder:
    """Return an encoder of anything: the number of elements."""
    return CallableEncoder(
        lambda batch: [[np.size(item)] for item in batch],
        dim=1,
        name="victim",
        accepts=frozenset({"text", "tokens", "image"}),
    )


def test_it_looks_like_its_victim() -> None:
    """Name, width and modalities are the victim's, and it is an Encoder."""
    metered = MeteredEncoder(victim(), budget=3)
    assert isinstance(metered, Encoder)
    assert (metered.name, metered.dim, metered.accepts) == ("victim", 1, victim().accepts)
    assert not metered.rows_independent
    assert MeteredEncoder(HashEncoder(8), budget=3).rows_independent


def test_repeats_are_counted_apart_and_are_free() -> None:
    """The same input is one query, in one call or in two; repeats still get their answer."""
    metered = MeteredEncoder(victim(), budget=2)
    assert metered.embed(["a", "b", "a"]).shape == (3, 1)
    assert metered.embed(["b"]).shape == (1, 1)
    assert (metered.queries_spent, metered.repeats, metered.calls) == (2, 2, 2)
    assert metered.remaining == 0


def test_a_call_over_the_budget_asks_nothing() -> None:
    """When a call would go over, nothing of it is asked and nothing is counted."""
    asked: list[object] = []

    def remember(batch: object) -> list[list[float]]:
        assert isinstance(batch, list)
        asked.extend(batch)
        return [[0.0]] * len(batch)

    metered = MeteredEncoder(CallableEncoder(remember, dim=1), budget=2)
    metered.embed(["a"])
    with pytest.raises(BudgetExhausted, match="2 new inputs but 1 of 2"):
        metered.embed(["b", "c"])
    assert asked == ["a"]
    assert (metered.queries_spent, metered.calls, metered.remaining) == (1, 1, 1)
    metered.embed(["b"])
    assert metered.remaining == 0


def test_a_failed_call_counts_nothing() -> None:
    """What the victim refuses is not spent."""
    metered = MeteredEncoder(CallableEncoder(lambda _: [[0.0]], dim=1), budget=1)
    with pytest.raises(InputError):
        metered.embed([[1, 2]])
    assert (metered.queries_spent, metered.calls) == (0, 0)


def test_kinds_of_input_never_collide() -> None:
    """Equal bytes as text, tokens or image of another shape are different queries."""
    metered = MeteredEncoder(victim(), budget=10)
    image = np.zeros((2, 4, 3), np.uint8)
    metered.embed(["\x01\x00\x00\x00\x00\x00\x00\x00"])
    metered.embed([[1]])
    metered.embed([image])
    metered.embed([image.reshape(4, 2, 3)])
    assert (metered.queries_spent, metered.repeats) == (4, 0)


def test_the_container_of_tokens_does_not_matter() -> None:
    """A list, a tuple and an array of the same ids are one query."""
    metered = MeteredEncoder(victim(), budget=1)
    metered.embed([[7, 8], (7, 8), np.array([7, 8], np.int32)])
    assert (metered.queries_spent, metered.repeats) == (1, 2)


def test_a_view_of_an_image_is_the_same_input() -> None:
    """Memory layout does not make a new query."""
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    metered = MeteredEncoder(victim(), budget=1)
    metered.embed([image, np.asfortranarray(image)])
    assert metered.queries_spent == 1


def test_an_empty_call_is_no_call() -> None:
    """No inputs give (0, d) and count nothing, even with no budget."""
    metered = MeteredEncoder(victim(), budget=0)
    assert metered.embed([]).shape == (0, 1)
    assert metered.calls == 0


def test_a_negative_budget_is_a_configuration_error() -> None:
    """A budget is a count."""
    with pytest.raises(ConfigurationError, match="-1"):
        MeteredEncoder(victim(), budget=-1)


@given(st.lists(st.lists(st.text(max_size=2), max_size=5), max_size=8), st.integers(0, 10))
def test_the_meter_agrees_with_a_set_of_inputs(calls: list[list[str]], budget: int) -> None:
    """Counts equal those of a plain set that skips every call that would go over."""
    metered = MeteredEncoder(victim(), budget=budget)
    seen: set[str] = set()
    repeats = 0
    for inputs in calls:
        if len(seen | set(inputs)) > budget:
            with pytest.raises(BudgetExhausted):
                metered.embed(inputs)
            continue
        metered.embed(inputs)
        repeats += len(inputs) - len(set(inputs) - seen)
        seen |= set(inputs)
    assert (metered.queries_spent, metered.repeats) == (len(seen), repeats)
