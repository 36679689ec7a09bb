"""Tolls in the service: who pays when, what is taken once, what is given back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.errors import (
    ChallengeRequired,
    ConflictError,
    LedgerError,
    ProofError,
    RequestError,
)
from tollkeeper.gateway.plans import Plan
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.spent import open_spent_store
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.types import Entry

PAYS = Plan(challenge=0.0, first_seconds=0.01, last_seconds=0.08, noise=None)


def test_nobody_pays_below_the_knee(open_shop: Any) -> None:
    """An account that stays narrow never meets a challenge, and its records say why."""
    shop = open_shop()
    shop.ask("one")
    assert shop.records()[0].decision == "answered"


def test_a_challenge_charges_nothing_and_its_proof_is_taken_once(open_shop: Any) -> None:
    """Past the knee new inputs cost a proof; it is charged with the answer, and noted."""
    shop = open_shop()
    shop.walk()
    before = shop.entry()
    error = shop.challenge("new a", "new b")
    assert error.code == "challenge_required"
    assert shop.entry() == before
    answer = shop.ask("new a", "new b", token=shop.token(error.challenge))
    assert answer.receipt in error.challenge
    after = shop.entry()
    assert after.spent == before.spent + 2
    paid, challenged = (shop.record(word) for word in ("paid", "challenged"))
    assert paid.charge == 2
    assert paid.paid_s == pytest.approx(2 * 0.01, rel=0.2)
    assert (challenged.inputs, challenged.charge) == (0, 0)
    assert "coverage" in challenged.reason


def test_a_challenge_makes_no_answer(open_shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused needs its price only: no noise is drawn, nothing is transformed."""
    shop = open_shop()
    shop.walk()
    made: list[int] = []
    weigh = shop.service.guard.weigh

    def spied(*given: Any, **named: Any) -> Any:
        verdict, answer = weigh(*given, **named)

        def noted() -> Any:
            made.append(len(given[1]))
            return answer()

        return verdict, noted

    monkeypatch.setattr(shop.service.guard, "weigh", spied)
    error = shop.challenge("new")
    assert not made
    shop.ask("new", token=shop.token(error.challenge))
    assert made == [1]


def test_repeats_cost_nothing_on_any_rung(open_shop: Any) -> None:
    """What was asked before is answered without a proof, and a retry with a used one too."""
    shop = open_shop()
    shop.walk()
    token = shop.token(shop.challenge("new").challenge)
    first = shop.ask("new", token=token)
    again, without = shop.ask("new", token=token), shop.ask("new")
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    np.testing.assert_array_equal(first.embeddings, without.embeddings)
    assert (first.receipt is None, again.receipt) == (False, None)
    assert shop.entry().spent == 61


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda token: token[:-1] + "x", "proof_unsolved"),
        (lambda token: token[:40], "proof_malformed"),
        (lambda token: "f" * 64 + token[64:], "proof_forged"),
        (lambda token: token + "1" * 3000, "proof_too_large"),
        (lambda token: token.replace(".2027", ".2028"), "proof_forged"),
    ],
)
def test_proofs_that_never_hold_are_refused(
    open_shop: Any, change: Callable[[str], str], code: str
) -> None:
    """A proof that is mangled, forged or no solution is an error of the request."""
    shop = open_shop()
    shop.walk()
    token = shop.token(shop.challenge("new").challenge)
    before = shop.entry()
    with pytest.raises(ProofError) as caught:
        shop.ask("new", token=change(token))
    assert caught.value.code == code
    assert shop.entry() == before


def test_proofs_are_bound_to_account_body_and_plan(open_shop: Any) -> None:
    """A proof counts for its account, its body and its prices."""
    shop = open_shop()
    shop.walk()
    token = shop.token(shop.challenge("new").challenge)
    with pytest.raises(ProofError) as caught:
        shop.ask("new", token=token, tenant="other", pool="acme")
    assert caught.value.code == "proof_wrong_account"
    with pytest.raises(ProofError) as caught:
        shop.ask("new", token=token, body=b"another body")
    assert caught.value.code == "proof_wrong_body"
    dearer = PAYS.model_copy(update={"last_seconds": 0.16})
    shop.change(dearer)
    assert shop.challenge("new", token=token).code == "proof_wrong_policy"


def test_an_expired_proof_gets_a_new_challenge(open_shop: Any) -> None:
    """A proof that comes late is no offense: the answer is a new challenge."""
    shop = open_shop()
    shop.walk()
    token = shop.token(shop.challenge("new").challenge)
    shop.clock.now += 3600
    late = shop.challenge("new", token=token)
    assert late.code == "proof_expired"
    shop.ask("new", token=shop.token(late.challenge))


def test_a_clock_that_jumps_back_lets_no_old_proof_live_long(open_shop: Any) -> None:
    """A proof that expires further ahead than any is given counts as expired."""
    shop = open_shop()
    shop.walk()
    token = shop.token(shop.challenge("new").challenge)
    shop.clock.now -= 86400
    assert shop.challenge("new", token=token).code == "proof_expired"


def test_a_proof_far_below_the_price_is_not_enough(open_shop: Any) -> None:
    """A price that rose by one level is forgiven, one that rose by more is not, and costs nothing."""
    shop = open_shop()
    shop.walk()
    token = shop.token(shop.challenge("new").challenge)
    # The same body, as the digest goes, with many more inputs: only a fake client can do that.
    many = [f"more {i}" for i in range(8)]
    short = shop.challenge(*many, token=token)
    assert short.code == "proof_too_easy"
    shop.ask("new", token=token)


def test_a_pass_pays_until_it_is_used_up(open_shop: Any) -> None:
    """A prepaid pass covers new inputs of any body, then no more, and is charged by price."""
    shop = open_shop()
    shop.walk()
    header = shop.desk.prepay(shop.account, 3)
    assert header is not None
    assert "digest" not in header
    token = shop.token(header)
    shop.ask("a", "b", token=token, body=b"1")
    assert shop.challenge("c", "d", token=token, body=b"2").code == "proof_spent"
    shop.ask("c", token=token, body=b"3")
    assert shop.challenge("e", token=token, body=b"4").code == "proof_spent"


def test_prepaying_has_limits(open_shop: Any) -> None:
    """Nothing is sold where nothing is to pay, nor what would not live long enough."""
    shop = open_shop(plan=Plan())
    assert shop.desk.prepay(shop.account, 5) is None
    shop = open_shop()
    with pytest.raises(RequestError, match="at most") as caught:
        shop.desk.prepay(shop.account, 10**9)
    assert caught.value.param == "inputs"
    assert shop.desk.prepay(shop.account, 5) is not None


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_one_pass_on_two_replicas_is_spent_once(
    open_shop: Any, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Requests with one pass, at once and on two replicas, get no more than it pays for."""
    url = "memory://" if kind == "memory" else str(tmp_path / "spent.sqlite3")
    if kind == "redis":
        url = request.getfixturevalue("redis_url")
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3")
    spent = open_spent_store(url)
    stores = [spent, spent if kind == "memory" else open_spent_store(url)]
    shops = [open_shop(ledger=ledger, spent=store) for store in stores]
    shops[0].walk()
    token = shops[0].token(shops[0].desk.prepay(shops[0].account, 4) or "")
    start = threading.Barrier(12)

    def one(number: int) -> str:
        start.wait()
        try:
            shops[number % 2].ask(f"new {number}", token=token, body=b"%d" % number)
        except ChallengeRequired as error:
            return error.code
        return "answered"

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(one, range(12)))
    assert found.count("answered") == 4
    assert found.count("proof_spent") == 8
    assert shops[0].entry().spent == 64
    for store in {id(store): store for store in stores}.values():
        store.close()
    ledger.close()


class Failing(MemoryLedger):
    """A fake ledger whose next commits fail in a given way."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Exception] = []

    def submit(self, submissions: Any) -> list[Future[Entry]]:
        if not self.faults:
            return super().submit(submissions)
        future: Future[Entry] = Future()
        future.set_exception(self.faults.pop())
        return [future for _ in submissions]


def test_what_is_not_answered_is_not_paid(open_shop: Any) -> None:
    """A ledger that fails gives the proof back; a conflict takes it only once."""
    shop = open_shop(ledger=Failing())
    shop.walk()
    token = shop.token(shop.desk.prepay(shop.account, 1) or "")
    shop.ledger.faults = [LedgerError("down")]
    with pytest.raises(LedgerError):
        shop.ask("new", token=token)
    shop.ledger.faults = [ConflictError("acme", expected=1, found=2)]
    shop.ask("new", token=token)
    assert shop.challenge("newer", token=token).code == "proof_spent"


def test_a_store_of_proofs_that_fails_answers_nothing(open_shop: Any) -> None:
    """Without the store nobody could tell a used proof: nothing is answered or charged."""
    shop = open_shop()
    shop.walk()
    token = shop.token(shop.challenge("new").challenge)
    before = shop.entry()
    shop.spent.close()
    with pytest.raises(LedgerError):
        shop.ask("new", token=token)
    assert shop.entry() == before
