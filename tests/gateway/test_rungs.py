"""Rungs of the ladder in the service: shadow, rations, patience, grants, refusal, noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.challenge.solve import solve
from tollkeeper.client.offers import offered
from tollkeeper.errors import (
    BudgetExhausted,
    ProofError,
    SuspendedError,
    ThrottledError,
)
from tollkeeper.gateway.plans import Plan
from tollkeeper.testing.encoders import hash_encoder

PAYS = Plan(challenge=0.0, first_seconds=0.01, last_seconds=0.08, noise=None)


def test_a_shadow_tells_what_would_have_been(open_shop: Any) -> None:
    """In shadow everyone is answered with clean embeddings, and the records name the refusal."""
    shop = open_shop(plan=PAYS.model_copy(update={"mode": "shadow", "canary": ("canary",)}))
    shop.walk()
    answer = shop.ask("new")
    np.testing.assert_array_equal(answer.embeddings, hash_encoder(16).embed(["new"]))
    record = shop.records()[0]
    assert (record.decision, record.shadow, record.paid_s) == ("challenged", True, 0.0)
    shop.walk(tenant="canary", pool="canary")
    assert shop.challenge("new", tenant="canary", pool="canary").code == "challenge_required"
    assert shop.challenge("newer", mode="enforce").code == "challenge_required"


def test_a_shadow_tells_who_would_have_been_refused(open_shop: Any) -> None:
    """At the ceiling the records say `refused` in shadow too, and the client is answered."""
    plan = Plan(mode="shadow", challenge=0.0, throttle=0.0, noise=None, refuse=0.0)
    shop = open_shop(plan=plan)
    shop.walk()
    shop.ask("new")
    assert (shop.records()[0].decision, shop.records()[0].shadow) == ("refused", True)
    shop.ask("new")
    assert shop.records()[0].decision == "answered"
    with pytest.raises(BudgetExhausted):
        shop.ask("newer", mode="enforce")


def test_rations_are_given_out_evenly(open_shop: Any) -> None:
    """Past its rung an account gets its inputs per minute, is told when to return, and repeats."""
    shop = open_shop(plan=Plan(throttle=0.0, inputs_per_minute=6, noise=None))
    shop.walk()
    for number in range(6):
        shop.ask(f"new {number}")
    with pytest.raises(ThrottledError) as caught:
        shop.ask("new 6")
    assert caught.value.retry_after_s == pytest.approx(10)
    shop.ask("new 5")
    shop.ticks.now += 10.01
    shop.ask("new 6")
    assert shop.record("throttled").charge == 0


def test_a_throttled_request_pays_nothing(open_shop: Any) -> None:
    """Rations are looked at before the toll is taken: no proof is used for a refusal."""
    plan = PAYS.model_copy(update={"throttle": 0.0, "inputs_per_minute": 1.0})
    shop = open_shop(plan=plan)
    shop.walk()
    token = shop.token(shop.desk.prepay(shop.account, 2) or "")
    shop.ask("new", token=token)
    with pytest.raises(ThrottledError):
        shop.ask("newer", token=token)
    shop.ticks.now += 60.1
    shop.ask("newer", token=token)


def test_challenges_left_unsolved_are_bounded(open_shop: Any) -> None:
    """A client that only collects challenges is told to wait, until a minute or a payment passes."""
    shop = open_shop(plan=PAYS.model_copy(update={"unpaid_per_minute": 3}))
    shop.walk()
    error = [shop.challenge(f"new {i}", body=b"%d" % i) for i in range(3)][-1]
    with pytest.raises(ThrottledError) as caught:
        shop.desk.check(shop.account, "req")
    assert 1 <= caught.value.retry_after_s <= 60
    shop.ask("new 2", token=shop.token(error.challenge), body=b"2")
    shop.desk.check(shop.account, "req")
    shop.challenge("new 3")
    shop.ticks.now += 61
    shop.desk.check(shop.account, "req")


def test_suspension_is_recorded(open_shop: Any) -> None:
    """A suspended tenant is refused before its body is read, and the operator sees it try."""
    shop = open_shop()
    with pytest.raises(SuspendedError):
        shop.desk.check(replace(shop.account, suspended=True), "req_9")
    record = shop.records()[0]
    assert (record.decision, record.request_id) == ("suspended", "req_9")


def test_a_grant_is_free_and_leaves_the_account_where_it_was(open_shop: Any) -> None:
    """Granted inputs meet no rung, and afterwards the account stands as if they were not there."""
    shop = open_shop(plan=PAYS.model_copy(update={"throttle": 0.1, "inputs_per_minute": 1.0}))
    shop.ask("one")
    grant = shop.grant(50)
    for start in range(0, 50, 10):
        shop.ask(*[f"bulk {i}" for i in range(start, start + 10)], grant=grant)
    assert shop.records()[0].decision == "granted"
    shop.ask("two", grant=grant)
    assert shop.records()[0].decision == "answered"
    assert shop.service.exposure(shop.account) < 0.03 < shop.covered()


def test_a_grant_ends_with_its_inputs_and_its_time(open_shop: Any) -> None:
    """What is over the grant, or after it, meets the plan; a request is covered whole or not."""
    shop = open_shop()
    shop.walk()
    grant = shop.grant(5)
    shop.ask(*[f"bulk {i}" for i in range(4)], grant=grant)
    shop.challenge("more a", "more b", grant=grant)
    shop.ask("more a", grant=grant)
    shop.challenge("more b", grant=grant)
    later = shop.grant(7)
    shop.clock.now += 2 * 86400
    shop.challenge("later", grant=later)


def test_a_grant_does_not_clean_old_answers(open_shop: Any) -> None:
    """A request without anything new is answered at the account's own level, grant or not."""
    noisy = Plan(noise=0.0, refuse=None)
    shop = open_shop(plan=noisy)
    shop.walk(150)
    before = shop.ask("walk 1").embeddings
    assert shop.records()[0].noise_scale > 0
    after = shop.ask("walk 1", grant=shop.grant(100)).embeddings
    np.testing.assert_array_equal(before, after)


def test_a_refusal_looks_through_the_relief(open_shop: Any) -> None:
    """A ceiling moves with what was granted: a customer is not refused for a job it was allowed."""
    shop = open_shop(plan=Plan(noise=None))
    shop.ask("one")
    shop.ask(*[f"bulk {i}" for i in range(300)], grant=shop.grant(300))
    assert shop.covered() > 0.2
    shop.ask(*[f"own {i}" for i in range(3)])
    strict = open_shop(plan=Plan(noise=None))
    strict.walk(300)
    with pytest.raises(BudgetExhausted):
        strict.ask(*[f"own {i}" for i in range(40)])


def test_noise_waits_for_its_rung(open_shop: Any) -> None:
    """A plan that puts noise late leaves answers exact until then."""
    early, late = open_shop(plan=Plan(refuse=None)), open_shop(plan=Plan(noise=1.0, refuse=None))
    for shop in (early, late):
        shop.ask(*[f"walk {i}" for i in range(60)])
    assert early.records()[0].noise_scale > 0
    assert late.records()[0].noise_scale == 0


def test_scrypt_puzzles_come_from_stock_and_verify_without_scrypt(
    open_shop: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plan of scrypt takes puzzles made ahead, hashes where there are none, and checks cheaply."""
    shop = open_shop(plan=PAYS.model_copy(update={"puzzle": "scrypt", "first_seconds": 0.08}))
    shop.walk()
    offer = offered(shop.challenge("a").challenge)
    assert offer is not None
    assert isinstance(offer.puzzle, HashPuzzle)
    shop.desk.restock()
    offer = offered(shop.challenge("b").challenge)
    assert offer is not None
    assert isinstance(offer.puzzle, ScryptPuzzle)
    token = offer.proof(solve(offer.puzzle))
    monkeypatch.setattr("tollkeeper.challenge.puzzle.scrypt", None)
    shop.ask("b", token=token)


def test_linked_tenants_pay_the_price_of_their_pool(open_shop: Any) -> None:
    """What a pool covered counts for each of its tenants, each with proofs of its own."""
    shop = open_shop()
    shop.walk(tenant="other", pool="joint")
    error = shop.challenge("new", pool="joint")
    with pytest.raises(ProofError):
        shop.ask("new", token=shop.token(error.challenge), tenant="other", pool="joint")
    shop.ask("new", token=shop.token(error.challenge), pool="joint")


def test_a_meter_is_shown_where_the_plan_says_so(open_shop: Any) -> None:
    """An answer carries what is left of the free allowance, in steps, and only if it may."""
    shop = open_shop(plan=Plan(shows_meter=True))
    assert shop.ask("one").allowance == 100
    assert open_shop().ask("one").allowance is None


def test_issuers_with_one_secret_understand_each_other(open_shop: Any) -> None:
    """A replica takes the proof of a challenge that another one issued."""
    one, other = open_shop(), open_shop()
    for shop in (one, other):
        shop.walk()
    other.ask("new", token=shop.token(one.challenge("new").challenge))
    assert other.record("paid").charge == 1
