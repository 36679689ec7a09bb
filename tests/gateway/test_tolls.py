"""Tolls in the service: who pays when, what is taken once, what is given back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.challenge.protocol import Issuer, body_digest
from tollkeeper.challenge.puzzle import SCRYPT, SHA_256, HashPuzzle, ScryptPuzzle
from tollkeeper.challenge.solve import solve
from tollkeeper.errors import (
    BudgetExhausted,
    ChallengeRequired,
    ConflictError,
    LedgerError,
    ProofError,
    RequestError,
    SuspendedError,
    ThrottledError,
)
from tollkeeper.client.offers import read_offers
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.assembly import make_service
from tollkeeper.gateway.desk import Desk
from tollkeeper.gateway.grants import Grant, Grants
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Plan
from tollkeeper.gateway.service import Service
from tollkeeper.guard import keys, profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.spent import MemorySpent, SpentStore, open_spent_store
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.types import Account, Entry

DIM = 16
ENCODER = hash_encoder(DIM)
SECRET = bytes(range(32))
SAMPLE = ENCODER.embed([f"sample {i}" for i in range(256)])
CALIBRATION = Calibration.fit(SAMPLE, rng=np.random.default_rng(0))
PROFILE = replace(profiles.get("cheapest"), ceiling=0.9)
GUARD = Guard(PROFILE, CALIBRATION, secret=SECRET)
RATES = {SHA_256: 1000.0, SCRYPT: 20.0}
PAYS = Plan(challenge=0.0, first_seconds=0.01, last_seconds=0.08, noise=None)
BODY = b"the body"
"""Requests of these tests need not be JSON: what a proof is bound to are bytes."""


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Shop:
    """A service with its desk and its clocks."""

    plan: Plan = PAYS
    ledger: Any = field(default_factory=MemoryLedger)
    spent: SpentStore = field(default_factory=MemorySpent)
    account: Account = Account("acme", "key_1", "acme")
    clock: Clock = field(default_factory=Clock)
    ticks: Clock = field(default_factory=Clock)
    guard: Guard = GUARD

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.service: Service = make_service(
            ENCODER,
            self.guard,
            self.ledger,
            clock=self.clock,
            ticks=self.ticks,
            rng=np.random.default_rng(0),
            metrics=self.metrics,
            plans={"plan": self.plan},
            plan="plan",
            spent=self.spent,
            secret=SECRET,
            rates=RATES,
        )
        self.desk = Desk(self.service)

    def ask(self, *texts: str, token: str = "", body: bytes = BODY, **who: Any) -> Any:
        """Let an account ask texts, with the header of a proof."""
        account = replace(self.account, **who)
        ask = Ask(account, texts, "text", request_id="req", body=body)
        if token:
            paid = self.desk.verify(token, account, body)
            ask.proof, ask.fault = paid.proof, paid.fault
        return self.service.answer(ask)

    def walk(self, count: int = 60, name: str = "walk", **who: Any) -> None:
        """Let the account pass the knee, for nothing: under an allowance of its plan's maker."""
        plans = self.service.admission.plans
        self.service.admission.replace_plans({"plan": Plan(noise=None, refuse=None)}, "plan")
        self.ask(*[f"{name} {i}" for i in range(count)], **who)
        self.service.admission.plans = plans

    def challenge(self, *texts: str, **options: Any) -> ChallengeRequired:
        """Ask without a proof, and get the challenge."""
        with pytest.raises(ChallengeRequired) as caught:
            self.ask(*texts, **options)
        return caught.value

    def records(self) -> list[Any]:
        """All records, the newest first."""
        self.service.journal.flush()
        return list(self.ledger.records())


def token_of(header: str) -> str:
    """Solve the challenge of a header."""
    (offer,) = read_offers([header])
    return offer.proof(solve(offer.puzzle))


def entry(shop: Shop, tenant: str = "acme") -> Entry:
    """What the ledger holds of a tenant."""
    found: Entry = shop.ledger.read(f"{tenant}@{GUARD.fingerprint}")
    return found


def test_nobody_pays_below_the_knee() -> None:
    """An account that stays narrow never meets a challenge, and its records say why."""
    shop = Shop()
    shop.ask("one")
    assert shop.records()[0].decision == "answered"


def test_a_challenge_charges_nothing_and_its_proof_is_taken_once() -> None:
    """Past the knee new inputs cost a proof; it is charged with the answer, and noted."""
    shop = Shop()
    shop.walk()
    before = entry(shop)
    error = shop.challenge("new a", "new b")
    assert error.code == "challenge_required"
    assert entry(shop) == before
    answer = shop.ask("new a", "new b", token=token_of(error.challenge))
    assert answer.receipt in error.challenge
    after = entry(shop)
    assert after.spent == before.spent + 2
    paid, challenged, *_ = shop.records()
    assert (paid.decision, paid.charge) == ("paid", 2)
    assert paid.paid_s == pytest.approx(2 * 0.01, rel=0.2)
    assert (challenged.decision, challenged.inputs, challenged.charge) == ("challenged", 0, 0)
    assert "coverage" in challenged.reason


def test_repeats_cost_nothing_on_any_rung() -> None:
    """What was asked before is answered without a proof, and a retry with a used one too."""
    shop = Shop()
    shop.walk()
    token = token_of(shop.challenge("new").challenge)
    first = shop.ask("new", token=token)
    again, without = shop.ask("new", token=token), shop.ask("new")
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    np.testing.assert_array_equal(first.embeddings, without.embeddings)
    assert (first.receipt is None, again.receipt) == (False, None)
    assert entry(shop).spent == 61


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
def test_proofs_that_never_hold_are_refused(change: Callable[[str], str], code: str) -> None:
    """A proof that is mangled, forged or no solution is an error of the request."""
    shop = Shop()
    shop.walk()
    token = token_of(shop.challenge("new").challenge)
    before = entry(shop)
    with pytest.raises(ProofError) as caught:
        shop.ask("new", token=change(token))
    assert caught.value.code == code
    assert entry(shop) == before


def test_proofs_are_bound_to_account_body_and_plan() -> None:
    """A proof counts for its account, its body and its prices."""
    shop = Shop()
    shop.walk()
    token = token_of(shop.challenge("new").challenge)
    with pytest.raises(ProofError) as caught:
        shop.ask("new", token=token, tenant="other", pool="acme")
    assert caught.value.code == "proof_wrong_account"
    with pytest.raises(ProofError) as caught:
        shop.ask("new", token=token, body=b"another body")
    assert caught.value.code == "proof_wrong_body"
    dearer = PAYS.model_copy(update={"last_seconds": 0.16})
    shop.service.admission.replace_plans({"plan": dearer}, "plan")
    assert shop.challenge("new", token=token).code == "proof_wrong_policy"


def test_an_expired_proof_gets_a_new_challenge() -> None:
    """A proof that comes late is no offense: the answer is a new challenge."""
    shop = Shop()
    shop.walk()
    token = token_of(shop.challenge("new").challenge)
    shop.clock.now += 3600
    late = shop.challenge("new", token=token)
    assert late.code == "proof_expired"
    shop.ask("new", token=token_of(late.challenge))


def test_a_clock_that_jumps_back_lets_no_old_proof_live_long() -> None:
    """A proof that expires further ahead than any is given counts as expired."""
    shop = Shop()
    shop.walk()
    token = token_of(shop.challenge("new").challenge)
    shop.clock.now -= 86400
    assert shop.challenge("new", token=token).code == "proof_expired"


def test_a_proof_far_below_the_price_is_not_enough() -> None:
    """A price that rose by one level is forgiven, one that rose by more is not, and costs nothing."""
    shop = Shop()
    shop.walk()
    token = token_of(shop.challenge("new").challenge)
    # The same body, as the digest goes, with many more inputs: only a fake client can do that.
    many = [f"more {i}" for i in range(8)]
    short = shop.challenge(*many, token=token)
    assert short.code == "proof_too_easy"
    shop.ask("new", token=token)


def test_a_pass_pays_until_it_is_used_up() -> None:
    """A prepaid pass covers new inputs of any body, then no more, and is charged by price."""
    shop = Shop()
    shop.walk()
    header = shop.desk.prepay(shop.account, 3)
    assert header is not None
    assert "digest" not in header
    token = token_of(header)
    shop.ask("a", "b", token=token, body=b"1")
    assert shop.challenge("c", "d", token=token, body=b"2").code == "proof_spent"
    shop.ask("c", token=token, body=b"3")
    assert shop.challenge("e", token=token, body=b"4").code == "proof_spent"


def test_prepaying_has_limits() -> None:
    """Nothing is sold where nothing is to pay, nor what would not live long enough."""
    shop = Shop(plan=Plan())
    assert shop.desk.prepay(shop.account, 5) is None
    shop = Shop()
    with pytest.raises(RequestError, match="at most") as caught:
        shop.desk.prepay(shop.account, 10**9)
    assert caught.value.param == "inputs"
    assert shop.desk.prepay(shop.account, 5) is not None


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_one_pass_on_two_replicas_is_spent_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Requests with one pass, at once and on two replicas, get no more than it pays for."""
    url = {
        "memory": lambda: "memory://",
        "sqlite": lambda: str(tmp_path / "spent.sqlite3"),
        "redis": lambda: str(request.getfixturevalue("redis_url")),
    }[kind]()
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3")
    spent = open_spent_store(url)
    stores = [spent, spent if kind == "memory" else open_spent_store(url)]
    shops = [Shop(ledger=ledger, spent=store) for store in stores]
    shops[0].walk()
    token = token_of(shops[0].desk.prepay(shops[0].account, 4) or "")
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
    assert entry(shops[0]).spent == 64
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


def test_what_is_not_answered_is_not_paid() -> None:
    """A ledger that fails gives the proof back; a conflict takes it only once."""
    shop = Shop(ledger=Failing())
    shop.walk()
    token = token_of(shop.desk.prepay(shop.account, 1) or "")
    shop.ledger.faults = [LedgerError("down")]
    with pytest.raises(LedgerError):
        shop.ask("new", token=token)
    shop.ledger.faults = [ConflictError("acme", expected=1, found=2)]
    shop.ask("new", token=token)
    assert shop.challenge("newer", token=token).code == "proof_spent"


def test_a_store_of_proofs_that_fails_answers_nothing() -> None:
    """Without the store nobody could tell a used proof: nothing is answered or charged."""
    shop = Shop()
    shop.walk()
    token = token_of(shop.challenge("new").challenge)
    before = entry(shop)
    shop.spent.close()
    with pytest.raises(LedgerError):
        shop.ask("new", token=token)
    assert entry(shop) == before


def test_a_shadow_tells_what_would_have_been() -> None:
    """In shadow everyone is answered with clean embeddings, and the records name the refusal."""
    shop = Shop(plan=PAYS.model_copy(update={"mode": "shadow", "canary": ("canary",)}))
    shop.walk()
    answer = shop.ask("new")
    np.testing.assert_array_equal(answer.embeddings, ENCODER.embed(["new"]))
    record = shop.records()[0]
    assert (record.decision, record.shadow, record.paid_s) == ("challenged", True, 0.0)
    shop.walk(tenant="canary", pool="canary")
    assert shop.challenge("new", tenant="canary", pool="canary").code == "challenge_required"
    assert shop.challenge("newer", mode="enforce").code == "challenge_required"


def test_rations_are_given_out_evenly() -> None:
    """Past its rung an account gets its inputs per minute, is told when to return, and repeats."""
    shop = Shop(plan=Plan(throttle=0.0, inputs_per_minute=6, noise=None))
    shop.walk()
    for number in range(6):
        shop.ask(f"new {number}")
    with pytest.raises(ThrottledError) as caught:
        shop.ask("new 6")
    assert caught.value.retry_after_s == pytest.approx(10)
    shop.ask("new 5")
    shop.ticks.now += 10.01
    shop.ask("new 6")
    assert shop.records()[1].decision == "throttled" or shop.records()[2].decision == "throttled"


def test_a_throttled_request_pays_nothing() -> None:
    """Rations are looked at before the toll is taken: no proof is used for a refusal."""
    plan = PAYS.model_copy(update={"throttle": 0.0, "inputs_per_minute": 1.0})
    shop = Shop(plan=plan)
    shop.walk()
    token = token_of(shop.desk.prepay(shop.account, 2) or "")
    shop.ask("new", token=token)
    with pytest.raises(ThrottledError):
        shop.ask("newer", token=token)
    shop.ticks.now += 60.1
    shop.ask("newer", token=token)


def test_challenges_left_unsolved_are_bounded() -> None:
    """A client that only collects challenges is told to wait, until a minute or a payment passes."""
    shop = Shop(plan=PAYS.model_copy(update={"unpaid_per_minute": 3}))
    shop.walk()
    error = [shop.challenge(f"new {i}", body=b"%d" % i) for i in range(3)][-1]
    with pytest.raises(ThrottledError) as caught:
        shop.desk.check(shop.account, "req")
    assert 1 <= caught.value.retry_after_s <= 60
    shop.ask("new 2", token=token_of(error.challenge), body=b"2")
    shop.desk.check(shop.account, "req")
    shop.challenge("new 3")
    shop.ticks.now += 61
    shop.desk.check(shop.account, "req")


def test_suspension_is_recorded() -> None:
    """A suspended tenant is refused before its body is read, and the operator sees it try."""
    shop = Shop()
    with pytest.raises(SuspendedError):
        shop.desk.check(replace(shop.account, suspended=True), "req_9")
    record = shop.records()[0]
    assert (record.decision, record.request_id) == ("suspended", "req_9")


def granted(shop: Shop, inputs: int, days: float = 1.0) -> str:
    """Return a signed grant for the shop's tenant, from now."""
    now = shop.clock.now
    grants = Grants(keys.derive(SECRET, "grants"))
    return grants.sign(Grant(f"g{inputs}", "acme", inputs, now, now + days * 86400))


def test_a_grant_is_free_and_leaves_the_account_where_it_was() -> None:
    """Granted inputs meet no rung, and afterwards the account stands as if they were not there."""
    shop = Shop(plan=PAYS.model_copy(update={"throttle": 0.1, "inputs_per_minute": 1.0}))
    shop.ask("one")
    grant = granted(shop, 50)
    for start in range(0, 50, 10):
        shop.ask(*[f"bulk {i}" for i in range(start, start + 10)], grant=grant)
    assert shop.records()[0].decision == "granted"
    shop.ask("two", grant=grant)
    assert shop.records()[0].decision == "answered"
    assert shop.service.exposure(shop.account) < 0.2 < GUARD.fraction(shop_sketch(shop))


def shop_sketch(shop: Shop) -> Any:
    """The sketch that the ledger holds of the tenant."""
    return GUARD.load(entry(shop).sketch[: GUARD.sketch_bytes])


def test_a_grant_ends_with_its_inputs_and_its_time() -> None:
    """What is over the grant, or after it, meets the plan; a request is covered whole or not."""
    shop = Shop()
    shop.walk()
    grant = granted(shop, 5)
    shop.ask(*[f"bulk {i}" for i in range(4)], grant=grant)
    shop.challenge("more a", "more b", grant=grant)
    shop.ask("more a", grant=grant)
    shop.challenge("more b", grant=grant)
    later = granted(shop, 7)
    shop.clock.now += 2 * 86400
    shop.challenge("later", grant=later)


def test_a_grant_does_not_clean_old_answers() -> None:
    """A request without anything new is answered at the account's own level, grant or not."""
    noisy = Plan(noise=0.0, refuse=None)
    shop = Shop(plan=noisy)
    shop.walk(150)
    before = shop.ask("walk 1").embeddings
    clean = ENCODER.embed(["walk 1"])
    after = shop.ask("walk 1", grant=granted(shop, 100)).embeddings
    np.testing.assert_array_equal(before, after)
    assert not np.allclose(np.linalg.norm(clean @ clean.T), 0)


def test_a_refusal_looks_through_the_relief() -> None:
    """A ceiling moves with what was granted: a customer is not refused for a job it was allowed."""
    shop = Shop(plan=Plan(noise=None))
    shop.ask("one")
    shop.ask(*[f"bulk {i}" for i in range(300)], grant=granted(shop, 300))
    assert GUARD.fraction(shop_sketch(shop)) > 0.9
    shop.ask(*[f"own {i}" for i in range(3)])
    strict = Shop(plan=Plan(noise=None))
    strict.walk(300)
    with pytest.raises(BudgetExhausted):
        strict.ask(*[f"own {i}" for i in range(40)])


def test_noise_waits_for_its_rung() -> None:
    """A plan that puts noise late leaves answers exact until then."""
    early, late = Shop(plan=Plan(refuse=None)), Shop(plan=Plan(noise=1.0, refuse=None))
    for shop in (early, late):
        shop.ask(*[f"walk {i}" for i in range(60)])
    assert early.records()[0].noise_scale > 0
    assert late.records()[0].noise_scale == 0


def test_scrypt_puzzles_come_from_stock_and_verify_without_scrypt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plan of scrypt takes puzzles made ahead, hashes where there are none, and checks cheaply."""
    shop = Shop(plan=PAYS.model_copy(update={"puzzle": "scrypt", "first_seconds": 0.08}))
    shop.walk()
    (offer,) = read_offers([shop.challenge("a").challenge])
    assert isinstance(offer.puzzle, HashPuzzle)
    shop.desk.restock()
    (offer,) = read_offers([shop.challenge("b").challenge])
    assert isinstance(offer.puzzle, ScryptPuzzle)
    token = offer.proof(solve(offer.puzzle))
    monkeypatch.setattr("tollkeeper.challenge.puzzle.scrypt", None)
    shop.ask("b", token=token)


def test_linked_tenants_pay_the_price_of_their_pool() -> None:
    """What a pool covered counts for each of its tenants, each with proofs of its own."""
    shop = Shop()
    shop.walk(tenant="other", pool="joint")
    error = shop.challenge("new", pool="joint")
    with pytest.raises(ProofError):
        shop.ask("new", token=token_of(error.challenge), tenant="other", pool="joint")
    shop.ask("new", token=token_of(error.challenge), pool="joint")


def test_a_meter_is_shown_where_the_plan_says_so() -> None:
    """An answer carries what is left of the free allowance, in steps, and only if it may."""
    shop = Shop(plan=Plan(shows_meter=True))
    assert shop.ask("one").allowance == 100
    assert Shop().ask("one").allowance is None


def test_issuers_with_one_secret_understand_each_other() -> None:
    """A replica takes the proof of a challenge that another one issued."""
    one, other = Shop(), Shop()
    for shop in (one, other):
        shop.walk()
    other.ask("new", token=token_of(one.challenge("new").challenge))
    assert Issuer(SECRET, entropy=bytes).salt()
    assert body_digest(b"").startswith("sha-256=:")
