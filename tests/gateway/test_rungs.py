"""Rungs of the ladder in the service: shadow, rations, patience, grants, refusal, noise."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.challenge.puzzle import ScryptPuzzle
from tollkeeper.challenge.solve import solve
from tollkeeper.client.offers import offered
from tollkeeper.errors import (
    BudgetExhausted,
    ConflictError,
    LedgerError,
    ProofError,
    SuspendedError,
    ThrottledError,
)
from tollkeeper.gateway.archive import Archive, Kept
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.plans import Plan
from tollkeeper.guard.layout import Layout
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.testing.encoders import hash_encoder

PAYS = Plan(challenge=0.0, first_seconds=0.01, last_seconds=0.08, noise=None)


def test_a_shadow_tells_what_would_have_been(open_shop: Any) -> None:
    """In shadow everyone is answered without noise, and the records name the refusal."""
    shop = open_shop(plan=PAYS.model_copy(update={"mode": "shadow", "canary": ("canary",)}))
    shop.walk()
    answer = shop.ask("new")
    key = shop.guard.tenant_key("acme")
    clean = hash_encoder(16).embed(["new"])
    np.testing.assert_array_equal(answer.embeddings, shop.guard.view(clean, key=key))
    record = shop.records()[0]
    assert (record.decision, record.shadow, record.paid_s) == ("challenged", True, 0.0)
    shop.walk(tenant="canary", pool="canary")
    assert shop.challenge("new", tenant="canary", pool="canary").code == "challenge_required"
    assert shop.challenge("newer", mode="enforce").code == "challenge_required"


def test_a_shadow_tells_who_would_have_been_refused(open_shop: Any) -> None:
    """At the ceiling the records say `refused` in shadow too, and the client is answered."""
    plan = Plan(mode="shadow", challenge=0.0, throttle=0.0, noise=None, refuse=0.01)
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
    """Who only collects challenges gets no more of them, but may pay, and repeats are answered."""
    shop = open_shop(plan=PAYS.model_copy(update={"unpaid_per_minute": 3}))
    shop.walk()
    error = [shop.challenge(f"new {i}", body=b"%d" % i) for i in range(3)][-1]
    with pytest.raises(ThrottledError) as caught:
        shop.ask("new 3")
    assert 1 <= caught.value.retry_after_s <= 60
    shop.ask("walk 1")
    shop.ask("new 2", token=shop.token(error.challenge), body=b"2")
    shop.challenge("new 3")
    with pytest.raises(ThrottledError):
        shop.ask("new 4")
    shop.ticks.now += 61
    shop.challenge("new 4")


def test_patience_follows_a_changed_plan(open_shop: Any) -> None:
    """A bound that the operator raises still is one."""
    shop = open_shop(plan=PAYS.model_copy(update={"unpaid_per_minute": 1}))
    shop.walk()
    shop.challenge("new 0")
    raised = PAYS.model_copy(update={"unpaid_per_minute": 3})
    shop.change(raised)
    shop.challenge("new 1")
    shop.challenge("new 2")
    with pytest.raises(ThrottledError):
        shop.ask("new 3")


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


def test_what_was_allowed_moves_no_ceiling_closer(open_shop: Any) -> None:
    """A customer is not refused for a job that it was allowed."""
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
    open_shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan of scrypt takes puzzles made ahead and no others, and checks them cheaply."""
    shop = open_shop(plan=PAYS.model_copy(update={"puzzle": "scrypt", "first_seconds": 0.08}))
    shop.walk()
    with pytest.raises(ThrottledError):
        shop.ask("a")
    assert shop.desk.wants_stock
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


def test_a_shadow_shows_and_refuses_nothing(open_shop: Any) -> None:
    """In shadow no meter is shown, and a proof of before, or garbage for one, is passed over."""
    plan = PAYS.model_copy(update={"mode": "shadow", "shows_meter": True, "refuse": 1.0})
    shop = open_shop(plan=plan)
    assert shop.ask("one", token="garbage").allowance is None
    shop.ask(*[f"walk {i}" for i in range(300)])
    shop.ask(*[f"more {i}" for i in range(5)])
    assert shop.record("refused").shadow


def test_an_allowance_counts_in_shadow_too(open_shop: Any) -> None:
    """A job that was agreed to before enforcement does not lock its customer out afterwards."""
    shop = open_shop(plan=PAYS.model_copy(update={"mode": "shadow"}))
    shop.ask(*[f"bulk {i}" for i in range(100)], grant=shop.grant(100))
    assert shop.record("granted").shadow
    assert shop.service.exposure(shop.account) == pytest.approx(0.0, abs=0.01)
    assert shop.covered() > 0.03


def test_a_pardon_forgets_what_was_allowed_with_the_rest(open_shop: Any) -> None:
    """After a pardon an account stands at nothing, and what it asks then counts."""
    shop = open_shop()
    shop.ask(*[f"bulk {i}" for i in range(100)], grant=shop.grant(100))
    shop.keep_tenant()
    shop.links().pardon(shop.ledger.find_tenant("acme"))
    assert shop.service.exposure(shop.account) == 0.0
    shop.walk(name="bulk")
    assert shop.service.exposure(shop.account) > 0.03


def test_a_granted_customer_can_still_be_charged(open_shop: Any) -> None:
    """However broad an allowance was, what is asked beside it counts as it always does."""
    shop, plain = open_shop(), open_shop()
    shop.ask(*[f"bulk {i}" for i in range(2000)], grant=shop.grant(2000))
    for one in (shop, plain):
        one.walk(200)
    # Not quite as far: what is near a granted input is no longer new.
    assert shop.service.exposure(shop.account) > 0.5 * plain.service.exposure(plain.account)
    shop.challenge("new")


LAYOUT = Layout(8, 10)
BITS = st.sets(st.integers(0, LAYOUT.buckets - 1), max_size=40)


def kept_of(counting: set[int], allowed: set[int]) -> Kept:
    """A sketch with places that count and places reached under an allowance."""
    bits = np.zeros(LAYOUT.buckets, np.bool_)
    bits[list(counting)] = True
    seen = bits.copy()
    seen[list(allowed)] = True
    sketch = np.packbits(seen)
    return Kept(sketch, spared=LAYOUT.spare(bits, sketch))


@given(st.lists(st.tuples(BITS, BITS), min_size=3, max_size=3))
def test_unions_keep_their_laws_beside_allowances(parts: list[tuple[set[int], set[int]]]) -> None:
    """Commutative, associative, idempotent; what counted for one of them counts for all."""
    archive = Archive(LAYOUT, None, "")
    one, two, three = (kept_of(*part) for part in parts)
    union = archive.united(one, two, three)
    for other in (
        archive.united(three, one, two),
        archive.united(archive.united(one, two), three),
        archive.united(union, two),
    ):
        assert archive.dump(other) == archive.dump(union)
    counted = set[int]().union(*(counting for counting, _ in parts))
    assert archive.reached(union) == pytest.approx(len(counted) / LAYOUT.buckets)
    assert archive.dump(archive.load(archive.dump(union), at=1.0)) == archive.dump(union)


def test_a_grant_covers_a_request_whoever_came_beside_it(open_shop: Any) -> None:
    """What is gathered with a granted request changes neither its answer nor the others'."""
    shop = open_shop(plan=Plan(noise=0.0, refuse=None))
    shop.walk(150)
    alone = shop.ask("walk 1").embeddings
    account = replace(shop.account, grant=shop.grant(3))
    asks = [Ask(account, (text,), "text", body=b"") for text in ("new", "walk 1", "x", "y", "z")]
    for one in asks:
        one.embeddings = shop.service.encoder.embed(one.inputs)
    (charge,) = shop.service.charge(asks)
    answers, _ = shop.service.settle(charge)
    np.testing.assert_array_equal(answers[1].embeddings, alone)
    decided = [row.decision for row in shop.records()[:5]]
    assert decided.count("granted") == 3


def test_a_lost_commit_gives_the_ration_back(open_shop: Any) -> None:
    """An account that got nothing is not rationed for it."""

    class Losing(MemoryLedger):
        """A fake ledger that loses the next commits."""

        losses = 0

        def submit(self, submissions: Any) -> Any:
            if not self.losses:
                return super().submit(submissions)
            self.losses -= 1
            future: Future[Any] = Future()
            future.set_exception(ConflictError("acme", expected=1, found=2))
            return [future for _ in submissions]

    shop = open_shop(plan=Plan(throttle=0.0, inputs_per_minute=1.0, noise=None), ledger=Losing())
    shop.walk()
    shop.ledger.losses = 3
    shop.ask("new")
    with pytest.raises(ThrottledError):
        shop.ask("newer")


def test_enforcing_a_plan_changes_no_embedding(open_shop: Any) -> None:
    """Below the first noise a tenant sees the same bytes in shadow and enforced."""
    shadow, enforced = (
        open_shop(plan=Plan(mode=mode, challenge=0.5)) for mode in ("shadow", "enforce")
    )
    for dimensions in (None, 4):
        answers = [
            shop.service.answer(Ask(shop.account, ("a", "b"), "text", dimensions)).embeddings
            for shop in (shadow, enforced)
        ]
        np.testing.assert_array_equal(*answers)


def test_repeats_need_no_store_of_used_proofs(open_shop: Any) -> None:
    """While that store is down, an account with an allowance is answered what it asked before."""
    shop = open_shop()
    grant = shop.grant(5)
    first = shop.ask("one", grant=grant).embeddings
    shop.spent.close()
    np.testing.assert_array_equal(shop.ask("one", grant=grant).embeddings, first)
    with pytest.raises(LedgerError):
        shop.ask("two", grant=grant)
