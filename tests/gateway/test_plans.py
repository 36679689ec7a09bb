"""Plans: where rungs are, what they cost, and when a challenge stops counting."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.plans import BUILT_IN, Ladder, Plan, Plans, Scale

SCALE = Scale(0.8, 0.9, refuses=True)
TOLL = Plan(meter=0.5, challenge=0.0, throttle=0.25, noise=0.5, first_seconds=1, last_seconds=8)


def ladder(plan: Plan = TOLL, scale: Scale = SCALE) -> Ladder:
    """A plan on the scale of these tests."""
    return Ladder.of(plan, scale)


@pytest.mark.parametrize(
    ("coverage", "rung"),
    [
        (0.0, "free"),
        (0.39, "free"),
        (0.4, "metered"),
        (0.8, "metered"),
        (0.801, "challenged"),
        (0.826, "throttled"),
        (0.851, "pays"),
        (0.9, "refused"),
    ],
)
def test_rungs_lie_between_knee_and_ceiling(coverage: float, rung: str) -> None:
    """A meter counts from nothing to the knee; the other rungs from the knee to the ceiling."""
    assert ladder().rung(coverage) == rung


def test_what_is_not_used_is_no_rung() -> None:
    """A plan without rungs leaves every account free."""
    free = ladder(Plan(noise=None, refuse=None))
    assert {free.rung(share / 10) for share in range(11)} == {"free"}
    assert free.forgiven == 1.0
    assert free.refuses_at is None
    assert free.seconds(0.99) == 0.0


def test_the_default_is_the_guard_alone() -> None:
    """Without a plan there is noise from the knee on and refusal at the very ceiling."""
    plain = ladder(BUILT_IN["guard"])
    assert plain.forgiven == 0.0
    assert plain.refuses_at == SCALE.ceiling
    assert not plain.charges


def test_nothing_is_refused_where_the_guard_refuses_nothing() -> None:
    """Without a ceiling in force, the last rung is not reached."""
    assert ladder(scale=Scale(0.8, 0.9, refuses=False)).rung(0.95) == "pays"


@given(st.floats(0, 1), st.floats(0, 1))
def test_prices_never_fall(one: float, other: float) -> None:
    """Who has come further pays at least as much, a power of two times the first price."""
    low, high = sorted((one, other))
    cheap, dear = ladder().seconds(low), ladder().seconds(high)
    assert cheap <= dear
    assert dear in {0.0, 1.0, 2.0, 4.0, 8.0}


def test_prices_double_from_the_first_rung_to_the_ceiling() -> None:
    """The first price holds at the rung, the last below the ceiling; at the rung itself nothing."""
    assert ladder().seconds(0.8) == 0.0
    assert ladder().seconds(0.8001) == 1.0
    assert ladder().seconds(0.8999) == 8.0
    one = ladder(Plan(challenge=0.5, first_seconds=3, last_seconds=3))
    assert one.seconds(0.8501) == one.seconds(1.0) == 3.0


def test_a_meter_is_shown_coarsely_or_not_at_all() -> None:
    """What is left to the knee comes in steps of a quarter, and only if the operator shows it."""
    shown = ladder(Plan(shows_meter=True))
    assert [shown.left(share * 0.8) for share in (0, 0.3, 0.74, 0.76, 1, 2)] == [
        100,
        75,
        50,
        25,
        0,
        0,
    ]
    assert ladder(Plan()).left(0.1) is None


def test_versions_follow_prices_and_nothing_else() -> None:
    """A challenge outlives a change of canary or patience, and no change of price or scale."""
    base = ladder().version
    same = TOLL.model_copy(update={"mode": "shadow", "canary": ("a",), "unpaid_per_minute": 3})
    assert ladder(same).version == base
    assert ladder(TOLL.model_copy(update={"last_seconds": 16})).version != base
    assert ladder(scale=Scale(0.7, 0.9, refuses=True)).version != base


@pytest.mark.parametrize(
    "fields",
    [
        {"challenge": 1.1},
        {"meter": -0.1},
        {"noise": float("nan")},
        {"first_seconds": 0},
        {"first_seconds": 2, "last_seconds": 1},
        {"canary": ["a"]},
        {"mode": "maybe"},
        {"inputs_per_minute": float("inf")},
        {"unpaid_per_minute": 0},
        {"puzzle": "md5"},
        {"chalenge": 0.1},
    ],
)
def test_impossible_plans_are_refused(fields: dict[str, Any]) -> None:
    """A field out of range, unknown or at odds with another is an error when it is read."""
    with pytest.raises(ValidationError):
        Plan(**fields)


def test_plans_by_name_and_mode() -> None:
    """Tenants without a plan, or with one that is gone, have the default; a canary is enforced."""
    plans = Plans({"try": Plan(mode="shadow", canary=("acme",))}, "toll", SCALE)
    assert plans.of("").plan == plans.of("gone").plan == BUILT_IN["toll"]
    assert plans.mode("acme", "try", "") == "enforce"
    assert plans.mode("other", "try", "") == "shadow"
    assert plans.mode("other", "try", "enforce") == "enforce"
    assert plans.mode("acme", "try", "shadow") == "shadow"
    with pytest.raises(ConfigurationError, match="expected plan to be one of"):
        Plans({}, "gone", SCALE)


def test_a_plan_of_a_built_in_name_changes_what_it_writes() -> None:
    """Where it writes nothing, the built-in plan's fields hold."""
    plans = Plans({"toll": Plan(mode="shadow"), "own": Plan(mode="shadow")}, "toll", SCALE)
    assert plans.of("").plan == BUILT_IN["toll"].model_copy(update={"mode": "shadow"})
    assert plans.of("own").plan == Plan(mode="shadow")
    with pytest.raises(ValidationError, match="below refuse"):
        Plans({"toll": Plan(refuse=0.1)}, "toll", SCALE)
    with pytest.raises(ConfigurationError, match="means no plan"):
        Plans({"default": Plan()}, "toll", SCALE)


def test_rations_count_what_lies_above_their_rung() -> None:
    """New inputs below the rung are free of it, also those of the request that reaches it."""
    assert ladder().rationed([0.1, 0.82, 0.825, 0.826, 0.9]) == 2
    assert ladder(Plan()).rationed([0.9]) == 0


@pytest.mark.parametrize(
    ("profile_scale", "told"),
    [
        (Scale(1.0, 1.0, refuses=False), "measures no coverage"),
        (Scale(0.0, 1.0, refuses=False), "the first input pays"),
    ],
)
def test_doubtful_plans_are_named(profile_scale: Scale, told: str) -> None:
    """A plan that cannot do what it says under a profile is named; the default guard never is."""
    assert told in Plans({"mine": TOLL}, "mine", profile_scale).warnings()[0]
    assert Plans({}, "guard", profile_scale).warnings() == []
    assert Plans({"mine": TOLL}, "mine", SCALE).warnings() == []
