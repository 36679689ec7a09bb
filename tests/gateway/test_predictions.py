"""The service of predictions without HTTP: who is answered, what is charged, what is kept."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.challenge.puzzle import SCRYPT, SHA_256
from tollkeeper.challenge.solve import solve
from tollkeeper.client.offers import offered
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.errors import (
    BudgetExhausted,
    ChallengeRequired,
    ConfigurationError,
    DetectorError,
    EncoderError,
    InputError,
    InputRefused,
    RequestError,
    ThrottledError,
)
from tollkeeper.gateway.archive import Kept
from tollkeeper.gateway.asks import Answer, Ask
from tollkeeper.gateway.desk import Door
from tollkeeper.gateway.grants import Grant, Grants
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Plan, Plans, Scale
from tollkeeper.gateway.predict_archive import Past
from tollkeeper.gateway.predict_assembly import make_predictions
from tollkeeper.gateway.predict_plan import Predictions
from tollkeeper.gateway.predict_tariff import Evidence
from tollkeeper.gateway.view import ClassifierView
from tollkeeper.guard import keys
from tollkeeper.guard.windows import DAY_S, Windows
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.spent import MemorySpent
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.testing.predictions import (
    BrightnessCounter,
    BrightnessDetector,
    ToyClassifier,
    pictures,
)
from tollkeeper.types import Account, Entry, Images, Probabilities, Record, Scores

TOY = ToyClassifier()
SECRET = bytes(range(32))
HONEST = np.linspace(0.2, 0.4, 400)
EVIDENCE = Evidence("p-toy", BrightnessDetector(), HONEST, BrightnessCounter())
QUERYWISE = replace(EVIDENCE, account=None)
RATES = {SHA_256: 1000.0, SCRYPT: 20.0}
SCALE = Scale(0.05, 0.2, refuses=True)
ACCOUNT = Account("acme", "key_1", "acme")
BODY = b"the body"
OFF: dict[str, Any] = {"alarm": None}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def bright(n: int, seed: int = 0) -> Images:
    """Pictures that the toy detectors find suspicious."""
    return pictures(n, mean=0.89, seed=seed)


@dataclass
class Shop:
    """A service of predictions under one plan."""

    plan: Plan = field(default_factory=Plan)
    evidence: Evidence = EVIDENCE
    classifier: Any = TOY
    ledger: Any = field(default_factory=MemoryLedger)
    clock: Clock = field(default_factory=Clock)
    windows: Windows | None = None
    shadow: bool = False

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.service = make_predictions(
            self.classifier,
            self.evidence,
            self.ledger,
            plans=Plans({"plan": self.plan}, "plan", SCALE),
            clock=self.clock,
            metrics=self.metrics,
            shadow=self.shadow,
            windows=self.windows,
            spent=MemorySpent(),
            secret=SECRET,
            rates=RATES,
            ticks=self.clock,
        )

    def ask(self, inputs: Any, *, token: str = "", **who: Any) -> Answer:
        """Let an account ask tensors, with the header of a proof."""
        account = replace(ACCOUNT, **who)
        ask = Ask(account, tuple(inputs), "tensor", request_id="req", body=BODY)
        if token:
            paid = Door(self.service).verify(token, account, BODY)
            ask.proof, ask.fault = paid.proof, paid.fault
        return self.service.answer(ask)

    def entry(self, pool: str = "acme") -> Entry:
        """What the ledger holds of a pool."""
        found: Entry = self.ledger.read(f"{pool}@p-toy")
        return found

    def suspicion(self, pool: str = "acme") -> float:
        """How suspicious the ledger says a pool is."""
        return Past.of(Kept(np.frombuffer(self.entry(pool).sketch, np.uint8))).suspicion

    def records(self) -> list[Any]:
        """All records, the newest first."""
        self.service.journal.flush()
        return list(self.ledger.records())

    def sample(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        found: float = self.metrics.registry.get_sample_value(name, labels) or 0.0
        return found


def plan(**predictions: Any) -> Plan:
    """A plan of which only what it says of predictions matters."""
    return Plan(predictions=Predictions(**predictions))


def test_what_is_new_is_charged_and_repeats_are_free() -> None:
    """Each different input counts once, and asked again it gets the same answer for nothing."""
    shop = Shop()
    first, second = pictures(2)
    answer = shop.ask([first, second, first])
    assert shop.entry().spent == 2
    again = shop.ask([first])
    assert again.embeddings.tobytes() == answer.embeddings[:1].tobytes()
    assert (shop.entry().spent, shop.entry().queries) == (2, 4)
    assert [row.decision for row in shop.records()] == ["answered", "answered"]
    assert shop.records()[0].reason == "nothing new"


def test_a_repeat_is_known_in_another_process(tmp_path: Path) -> None:
    """Another process on the same ledger answers the same bytes, noise included, and for free."""
    path = tmp_path / "ledger.sqlite3"
    noisy = plan(outputs=[{"noise": 0.1}, {"decimals": 3}])
    shop = Shop(noisy, ledger=SqliteLedger(path))
    answer = shop.ask(pictures(3))
    assert not np.array_equal(answer.embeddings, TOY.embed(pictures(3)))
    shop.ledger.close()
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_predictions as t\n"
        "shop = t.Shop(t.plan(outputs=[{'noise': 0.1}, {'decimals': 3}]), "
        f"ledger=t.SqliteLedger({str(path)!r}))\n"
        "print(shop.ask(t.pictures(3)).embeddings.tobytes().hex(), shop.entry().spent)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [answer.embeddings.tobytes().hex(), "3.0"]


def test_the_detector_scores_what_the_classifier_answers() -> None:
    """A picture of bytes becomes one tensor, and both see it; as a tensor it is the same input."""
    seen: list[bytes] = []

    class Spy(BrightnessDetector):
        def score(self, inputs: Images, outputs: Probabilities) -> Scores:
            seen.append(inputs.tobytes())
            return super().score(inputs, outputs)

    class Watched(ToyClassifier):
        def embed(self, inputs: Any) -> Probabilities:
            seen.append(np.stack(inputs).tobytes())
            return super().embed(inputs)

    shop = Shop(evidence=replace(QUERYWISE, detector=Spy()), classifier=Watched())
    picture = np.random.default_rng(0).integers(0, 100, (4, 4, 3), dtype=np.uint8)
    shop.service.answer(Ask(ACCOUNT, (picture,), "image"))
    assert len(seen) == 2
    assert seen[0] == seen[1]
    shop.ask([np.frombuffer(seen[0], np.float32).reshape(1, 4, 4)])
    assert shop.entry().spent == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((1, 5, 4), np.float32), "4 x 4"),
        (np.zeros((3, 4, 4), np.float32), "4 x 4"),
        (np.full((1, 4, 4), np.nan, np.float32), "no NaN"),
        (np.full((1, 4, 4), 1.5, np.float32), "from 0 to 1"),
    ],
)
def test_what_the_classifier_cannot_take_is_refused(given: Any, words: str) -> None:
    """Wrong sizes, channels and values are errors of the request, and nothing is charged."""
    shop = Shop()
    with pytest.raises(InputError, match=words) as caught:
        shop.ask([given])
    assert caught.value.param == "input"
    assert shop.entry().version == 0


def test_text_is_refused_where_pictures_are_classified() -> None:
    """A modality that the classifier does not take is named."""
    shop = Shop()
    with pytest.raises(InputError, match="takes image or tensor"):
        shop.service.answer(Ask(ACCOUNT, ("text",), "text"))


def test_an_input_of_too_high_a_rank_is_refused() -> None:
    """The client learns which input it was and nothing else; the record holds its rank."""
    shop = Shop(plan(refuse_rank=0.99, **OFF), evidence=QUERYWISE)
    mixed = [*pictures(2), *bright(1)]
    with pytest.raises(InputRefused, match=r"^input\[2\] is not answered by this API") as caught:
        shop.ask(mixed)
    assert not set("0123456789") & set(str(caught.value).replace("[2]", ""))
    assert shop.entry().spent == 0
    (record,) = shop.records()
    assert (record.decision, record.inputs, record.charge) == ("refused", 0, 0.0)
    assert "rank 0.9975" in record.reason
    shop.ask(mixed[:2])
    assert shop.entry().spent == 2
    assert shop.sample("tollkeeper_predictions_total", decision="refused", mode="enforce") == 1


def test_refused_inputs_count_for_the_alarm() -> None:
    """Asking what is refused teaches the account detector, so it is no free oracle."""
    shop = Shop(plan(refuse_rank=0.99, alarm=0.01))
    for seed in range(3):
        with pytest.raises(InputRefused):
            shop.ask(bright(1, seed))
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1))
    assert shop.entry().spent == 0


def test_asking_a_refused_input_again_is_no_further_suspicion() -> None:
    """A client that repeats what was refused is not driven into the alarm by it."""
    shop = Shop(plan(refuse_rank=0.99, alarm=0.01))
    for _ in range(5):
        with pytest.raises(InputRefused):
            shop.ask(bright(2))
    assert shop.entry().version == 1
    assert [row.decision for row in shop.records()] == ["refused"] * 5
    shop.ask(pictures(2))
    with pytest.raises(InputRefused):
        shop.ask([*bright(2), *bright(1, seed=5)])
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1, seed=3))


def test_an_account_is_followed_by_scores_that_are_known() -> None:
    """Where the account detector looks at the same scores, no query is scored twice."""
    seen: list[int] = []

    def follow(state: bytes, scores: Scores) -> tuple[Scores, bytes]:
        seen.append(len(scores))
        return np.cumsum(scores > 0.8).astype(np.float64), state

    shop = Shop(plan(alarm=0.01), evidence=replace(EVIDENCE, follow=follow))
    first = pictures(2)
    shop.ask(first)
    shop.ask([*first, *pictures(1, seed=4)])
    assert seen == [2, 1]


def test_an_account_in_alarm_gets_nothing_new() -> None:
    """From the alarm on new inputs are refused like at the ceiling; what was asked stays free."""
    shop = Shop(plan(alarm=0.01))
    for seed in range(3):
        shop.ask(bright(1, seed))
    version = shop.entry().version
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1))
    assert shop.entry().version == version
    shop.ask(bright(1))
    shop.ask(pictures(1), tenant="other", pool="other")
    assert shop.entry().spent == 3


def test_a_request_does_not_run_past_the_alarm() -> None:
    """One request with inputs behind the alarm is refused whole, and the alarm stays."""
    shop = Shop(plan(alarm=0.01))
    with pytest.raises(BudgetExhausted):
        shop.ask(bright(4))
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1))
    assert (shop.entry().spent, shop.entry().queries) == (0, 0)


class Wave(BrightnessCounter):
    """Finds an account suspicious for as long as what it asks is bright."""

    def update(self, state: bytes, inputs: Images, outputs: Probabilities) -> tuple[Scores, bytes]:
        return 4.0 * (inputs.mean(axis=(1, 2, 3), dtype=np.float64) > 0.8), state


def test_the_alarm_holds_in_the_middle_of_a_request() -> None:
    """What is asked behind the alarm is refused, though suspicion falls again, and it stays."""
    shop = Shop(plan(alarm=0.01), evidence=replace(EVIDENCE, account=Wave()))
    with pytest.raises(BudgetExhausted):
        shop.ask([*bright(1), *pictures(2)])
    assert (shop.suspicion(), shop.entry().spent) == (4, 0)
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1, seed=5))


def test_an_account_detector_sees_what_is_new_and_nothing_else() -> None:
    """Of old and new inputs together it gets the new ones, in their order, with their answers."""
    seen = []

    class Spy(BrightnessCounter):
        def update(
            self, state: bytes, inputs: Images, outputs: Probabilities
        ) -> tuple[Scores, bytes]:
            seen.append((inputs.tobytes(), outputs.tobytes()))
            return super().update(state, inputs, outputs)

    shop = Shop(evidence=replace(EVIDENCE, account=Spy()))
    old, new = pictures(2), pictures(2, seed=1)
    shop.ask(old)
    shop.ask([old[0], new[0], old[1], new[1], new[0]])
    assert seen == [(one.tobytes(), TOY.embed(one).tobytes()) for one in (old, new)]


def test_a_linked_tenant_takes_along_what_it_was_refused() -> None:
    """Parted from its pool, it is as suspicious as what it asked itself made it."""
    shop = Shop(plan(refuse_rank=0.99, alarm=0.01))
    for seed in range(2):
        with pytest.raises(InputRefused):
            shop.ask(bright(1, seed), tenant="a", pool="a/1")
    shop.ask(pictures(1), tenant="b", pool="a/1")
    assert [shop.suspicion(pool) for pool in ("a/1", "a", "b")] == [2, 2, 0]
    with pytest.raises(InputRefused):
        shop.ask(bright(1, seed=7), tenant="a", pool="a")
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1, seed=3), tenant="a", pool="a")


def test_an_alarm_without_an_account_detector_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Where the plan does not write an alarm, its absence is one line in the log."""
    Shop(evidence=QUERYWISE)
    assert [row.message.split()[0] for row in caplog.records] == ["predictions.unfollowed:"]


def test_suspicion_of_linked_accounts_adds_to_what_is_found() -> None:
    """What others brought into a pool stays on it while its own suspicion moves."""
    shop = Shop(plan(alarm=0.01))
    past = Past(suspicion=2.5, burden=1.5, account=(1).to_bytes(4, "little"))
    record = _record(shop)
    shop.ledger.commit(shop.entry().pool, record, past.kept(0.0).sketch.tobytes(), expected=0)
    shop.ask(pictures(1))
    assert shop.suspicion() == 2.5
    shop.ask(bright(1))
    assert shop.suspicion() == 3.5
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1, seed=2))


def _record(shop: Shop) -> Record:
    """A record that charges nothing."""
    return shop.service._blank(0.0, ACCOUNT, "r")


def token(header: str) -> str:
    """Solve the challenge of a header."""
    offer = offered(header)
    assert offer is not None
    return offer.proof(solve(offer.puzzle))


def test_suspicious_inputs_cost_a_puzzle() -> None:
    """A challenge charges nothing, its proof pays once, and repeats need none."""
    shop = Shop(plan(challenge_rank=0.95, ceiling_bits=10, **OFF), evidence=QUERYWISE)
    shop.ask(pictures(3))
    with pytest.raises(ChallengeRequired) as caught:
        shop.ask(bright(2))
    assert shop.entry().spent == 3
    answer = shop.ask(bright(2), token=token(caught.value.challenge))
    assert answer.receipt is not None
    assert answer.receipt in caught.value.challenge
    assert shop.entry().spent == 5
    shop.ask(bright(2))
    # Refusals are written later than what is answered.
    challenged, repeat, paid, _ = shop.records()
    assert (repeat.decision, repeat.paid_s) == ("answered", 0.0)
    # Two inputs above all honest traffic, at 2^10 hashes each.
    assert (paid.decision, paid.charge) == ("paid", 2.0)
    assert paid.paid_s == pytest.approx(2 * 2**10 / RATES[SHA_256], rel=0.01)
    assert challenged.decision == "challenged"
    # Without an account detector nothing is kept of what was not answered.
    assert shop.sample("tollkeeper_prediction_rank_count") == 3 + 2 + 2
    assert "due" in challenged.reason


def test_a_proof_holds_for_one_request_at_its_prices() -> None:
    """A used proof and one of a former plan lead to a new challenge."""
    shop = Shop(plan(challenge_rank=0.95, ceiling_bits=9, **OFF), evidence=QUERYWISE)
    with pytest.raises(ChallengeRequired) as caught:
        shop.ask(bright(1))
    proof = token(caught.value.challenge)
    shop.ask(bright(1), token=proof)
    with pytest.raises(ChallengeRequired) as caught:
        shop.ask(bright(1, seed=1), token=proof)
    assert caught.value.code == "proof_spent"
    dearer = plan(challenge_rank=0.9, ceiling_bits=9, **OFF)
    shop.service.admission.plans = Plans({"plan": dearer}, "plan", SCALE)
    with pytest.raises(ChallengeRequired) as caught:
        shop.ask(bright(1, seed=1), token=proof)
    assert caught.value.code == "proof_wrong_policy"


def test_a_price_that_is_not_paid_teaches_what_an_answer_would() -> None:
    """Asking for prices leads into the alarm, charges nothing, and counts each input once."""
    shop = Shop(plan(challenge_rank=0.95, ceiling_bits=9, alarm=0.01))
    for seed in (0, 0, 1):
        with pytest.raises(ChallengeRequired):
            shop.ask(bright(1, seed))
    assert (shop.suspicion(), shop.entry().spent, shop.entry().queries) == (2, 0, 0)
    assert shop.entry().version == 2
    assert [row.decision for row in shop.records()] == ["challenged"] * 3
    assert shop.sample("tollkeeper_predictions_total", decision="challenged", mode="enforce") == 3
    assert shop.sample("tollkeeper_prediction_rank_count") == 2
    with pytest.raises(ChallengeRequired):
        shop.ask(bright(1, seed=2))
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1))


def test_what_is_paid_for_counts_once_and_is_answered() -> None:
    """The challenge that raises the alarm can still be paid, once; what comes after it cannot."""
    shop = Shop(plan(challenge_rank=0.95, ceiling_bits=9, alarm=0.01))
    proofs = []
    for seed in range(3):
        with pytest.raises(ChallengeRequired) as caught:
            shop.ask(bright(1, seed))
        proofs.append(token(caught.value.challenge))
    assert shop.suspicion() == 3
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1))  # and so the pool is looked at before the classifier
    assert shop.ask(bright(1, seed=2), token=proofs[2]).receipt is not None
    assert shop.ask(bright(1, seed=1), token=proofs[1]).receipt is not None
    assert (shop.suspicion(), shop.entry().spent) == (3, 2)
    assert shop.sample("tollkeeper_prediction_rank_count") == 3
    # A used proof, and one of another request.
    for proof, seed in ((proofs[1], 0), (proofs[0], 9)):
        with pytest.raises(BudgetExhausted):
            shop.ask(bright(1, seed), token=proof)
    assert shop.sample("tollkeeper_predictions_total", decision="paid", mode="enforce") == 2


def test_a_payment_that_is_not_due_any_more_lifts_no_alarm() -> None:
    """Plans that change between the check of a proof and its use give nothing away."""
    shop = Shop(plan(challenge_rank=0.95, ceiling_bits=9, alarm=0.01))
    for seed in range(3):
        with pytest.raises(ChallengeRequired) as caught:
            shop.ask(bright(1, seed))
    proof = Door(shop.service).verify(token(caught.value.challenge), ACCOUNT, BODY).proof
    shop.service.admission.plans = Plans({"plan": plan(alarm=0.01)}, "plan", SCALE)
    with pytest.raises(BudgetExhausted):
        shop.service.answer(Ask(ACCOUNT, tuple(bright(1, 2)), "tensor", body=BODY, proof=proof))


def test_too_many_unpaid_challenges_teach_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told to wait, or to send less, has learned that there is a price."""
    steep = plan(challenge_rank=0.95, ceiling_bits=26, alarm=0.01)
    shop = Shop(steep)
    with pytest.raises(RequestError, match="fewer inputs"):
        shop.ask(bright(2))
    assert (shop.suspicion(), shop.entry().spent) == (2, 0)
    busy = Shop(steep.model_copy(update={"unpaid_per_minute": 1}))
    monkeypatch.setattr("tollkeeper.gateway.booth.LONGEST_S", 1e9)
    with pytest.raises(ChallengeRequired):
        busy.ask(bright(1))
    with pytest.raises(ThrottledError):
        busy.ask(bright(1, seed=1))
    assert busy.suspicion() == 2


@pytest.mark.parametrize("told", [{"refuse_rank": 0.99}, {"challenge_rank": 0.95}])
def test_a_refusal_on_a_stale_replica_is_kept(tmp_path: Path, told: dict[str, Any]) -> None:
    """Two servers on one ledger: what one refuses behind the other's back is learned, recorded."""
    path = tmp_path / "ledger.sqlite3"
    one, two = (Shop(plan(alarm=0.01, **told), ledger=SqliteLedger(path)) for _ in range(2))
    honest = pictures(1)
    for seed in range(3):
        two.ask(honest)
        one.ask(honest)
        with pytest.raises((InputRefused, ChallengeRequired)):
            two.ask(bright(1, seed))
        assert two.suspicion() == seed + 1
    assert two.sample("tollkeeper_ledger_conflicts_total") >= 3
    words = [row.decision for row in one.records() if row.decision != "answered"]
    assert words in (["refused"] * 3, ["challenged"] * 3)
    assert two.sample("tollkeeper_predictions_total", decision=words[0], mode="enforce") == 3
    with pytest.raises(BudgetExhausted):
        one.ask(pictures(1, seed=9))


def test_an_account_in_alarm_costs_no_prediction() -> None:
    """New inputs of an account in alarm or over its budget are not even classified."""
    calls = []

    class Counting(ToyClassifier):
        def embed(self, inputs: Any) -> Probabilities:
            calls.append(len(inputs))
            return super().embed(inputs)

    shop = Shop(plan(alarm=0.01), classifier=Counting())
    shop.ask(bright(3))
    for seed in range(4):
        with pytest.raises(BudgetExhausted):
            shop.ask(pictures(100, seed=seed))
    # The first after the alarm is looked at.
    assert calls == [3, 100]
    assert [row.decision for row in shop.records()] == ["refused"] * 4 + ["answered"]
    shop.ask(bright(3))
    for seed in range(2):
        with pytest.raises(BudgetExhausted):
            shop.ask(pictures(50, seed=seed), budget=3.0, mode="shadow")
    assert calls == [3, 100, 3, 50]


def test_a_grant_or_a_pardon_ends_the_wait_of_an_account_in_alarm() -> None:
    """What is known of an account is read anew before it is refused unseen."""
    shop = Shop(plan(alarm=0.01))
    shop.ask(bright(3))
    for _ in range(2):
        with pytest.raises(BudgetExhausted):
            shop.ask(pictures(1))
    now = shop.clock.now
    grant = Grants(keys.derive(SECRET, "grants")).sign(Grant("g", "acme", 1, now, now + DAY_S))
    shop.ask(pictures(1), grant=grant)
    for _ in range(2):
        with pytest.raises(BudgetExhausted):
            shop.ask(pictures(1, seed=1))
    entry = shop.entry()
    past = Past.of(Kept(np.frombuffer(entry.sketch, np.uint8))).pardoned()
    record = replace(shop.records()[-1], charge=0.0, inputs=0)
    shop.ledger.commit(entry.pool, record, past.kept(0.0).sketch.tobytes(), expected=entry.version)
    shop.ask(pictures(1, seed=1))


def test_a_price_that_no_challenge_covers_is_an_error_of_the_request() -> None:
    """More than a challenge can be for is refused by name, and leaves no trace."""
    steep = plan(challenge_rank=0.95, ceiling_bits=26, **OFF)
    shop = Shop(steep, evidence=QUERYWISE)
    with pytest.raises(RequestError, match="fewer inputs"):
        shop.ask(bright(1))
    assert shop.entry().version == 0


@pytest.mark.parametrize("how", ["plan", "server", "tenant"])
def test_shadow_only_records(how: str) -> None:
    """In shadow every answer is clean and free, and the records say what would have been."""
    told = plan(refuse_rank=0.99, challenge_rank=0.5, alarm=0.01, outputs=[{"decimals": 1}])
    who = {"mode": "shadow"} if how == "tenant" else {}
    shop = Shop(
        told.model_copy(update={"mode": "shadow"}) if how == "plan" else told,
        shadow=how == "server",
    )
    dim = pictures(1, mean=0.35)
    for asked in (dim, bright(2), bright(2, seed=1)):
        np.testing.assert_array_equal(shop.ask(asked, **who).embeddings, TOY.embed(asked))
    assert shop.entry().spent == 5
    rows = shop.records()
    assert [row.decision for row in rows] == ["refused", "refused", "challenged"]
    assert all(row.shadow and row.paid_s == 0 for row in rows)


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """What was asked, and how suspicious the account is, is durable."""
    path = tmp_path / "ledger.sqlite3"
    shop = Shop(plan(alarm=0.01), ledger=SqliteLedger(path))
    shop.ask(bright(2))
    shop.ask(bright(1, seed=7))
    shop.ledger.close()
    after = Shop(plan(alarm=0.01), ledger=SqliteLedger(path))
    after.ask(bright(2))
    assert after.entry().spent == 3
    with pytest.raises(BudgetExhausted):
        after.ask(pictures(1))


def test_other_detectors_know_nothing_of_an_account() -> None:
    """Accounts are kept under the classifier and its detectors; others begin anew."""
    shop = Shop(plan(alarm=0.01))
    shop.ask(bright(3, seed=3))
    other = replace(EVIDENCE, fingerprint="p-other")
    Shop(plan(alarm=0.01), evidence=other, ledger=shop.ledger).ask(pictures(1))


def test_two_replicas_lose_no_charge(tmp_path: Path) -> None:
    """Requests to two servers on one ledger are all charged, and a shared input once."""
    path = tmp_path / "ledger.sqlite3"
    shops = [Shop(ledger=SqliteLedger(path)) for _ in range(2)]
    barrier = threading.Barrier(2)

    def walk(number: int) -> None:
        barrier.wait()
        for seed in range(10):
            shops[number].ask([*pictures(2, seed=100 * number + seed), *pictures(1, seed=999)])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(walk, range(2)))
    assert shops[0].entry().spent == 41
    assert shops[0].entry().queries == 60


def test_a_hard_budget_holds_for_what_is_new() -> None:
    """A request over the budget is refused whole; repeats are answered beyond it."""
    shop = Shop()
    shop.ask(pictures(2), budget=2.0)
    shop.ask(pictures(2), budget=2.0)
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1, seed=5), budget=2.0)
    assert shop.entry().spent == 2


def test_an_allowance_lifts_puzzles_refusals_and_suspicion() -> None:
    """What is asked under a grant is answered whatever its rank, and does not count as suspicion."""
    shop = Shop(plan(refuse_rank=0.99, challenge_rank=0.5, alarm=0.01))
    grants = Grants(keys.derive(SECRET, "grants"))
    now = shop.clock.now
    grant = grants.sign(Grant("g", "acme", 5, now, now + DAY_S))
    shop.ask(bright(5), grant=grant)
    shop.ask(bright(5))
    with pytest.raises(InputRefused):
        shop.ask(bright(1, seed=9), grant=grant)
    answered = [row.decision for row in shop.records()]
    assert answered == ["refused", "answered", "granted"]
    shop.ask(pictures(1, mean=0.2))


def test_linked_tenants_are_one_account_and_can_part() -> None:
    """A pool's alarm holds for all its tenants; each keeps what it asked itself."""
    shop = Shop(plan(alarm=0.01))
    shop.ask(bright(1), tenant="a", pool="a/1")
    shop.ask(bright(2), tenant="b", pool="a/1")
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1), tenant="a", pool="a/1")
    assert [shop.entry(pool).spent for pool in ("a/1", "a", "b")] == [3, 1, 2]
    shop.ask(bright(1), tenant="a", pool="a")
    assert shop.entry("a").spent == 1
    shop.ask(pictures(1), tenant="a", pool="a")


def test_a_new_window_forgets_suspicion_and_not_what_is_free() -> None:
    """After the window turned the alarm is over, and what was asked is still free."""
    shop = Shop(plan(alarm=0.01), windows=Windows(30.0, 0.75))
    shop.ask(bright(3))
    with pytest.raises(BudgetExhausted):
        shop.ask(pictures(1))
    shop.clock.now += 31 * DAY_S
    shop.ask([*bright(3), *pictures(1)])
    assert shop.entry().spent == 4


class Broken(BrightnessDetector):
    """A detector that fails."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self._answer = answer

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        found: Scores = self._answer(len(inputs))
        return found


def _raise(n: int) -> Any:
    raise ZeroDivisionError(n)


@pytest.mark.parametrize(
    "answer", [_raise, lambda n: np.full(n, np.nan), lambda n: np.zeros(n + 1)]
)
def test_a_detector_that_fails_answers_nobody(answer: Callable[[int], Any]) -> None:
    """Without a score there is no answer and no charge."""
    shop = Shop(evidence=replace(EVIDENCE, detector=Broken(answer)))
    with pytest.raises(DetectorError):
        shop.ask(pictures(1))
    assert shop.entry().version == 0
    assert shop.records() == []


def test_an_account_detector_that_fails_answers_nobody() -> None:
    """The same holds where the account's state cannot be read."""

    class Forgetful(BrightnessCounter):
        def update(self, *_: Any) -> Any:
            raise ZeroDivisionError

    shop = Shop(evidence=replace(EVIDENCE, account=Forgetful()))
    with pytest.raises(DetectorError, match="ZeroDivisionError"):
        shop.ask(pictures(1))
    assert shop.entry().version == 0


def test_a_classifier_that_returns_no_probabilities_answers_nobody() -> None:
    """Rows that do not sum to one are the classifier's failure, and nothing is charged."""

    class Logits(ToyClassifier):
        def embed(self, inputs: Any) -> Probabilities:
            return super().embed(inputs) * np.float32(2)

    shop = Shop(classifier=Logits())
    with pytest.raises(EncoderError, match="sum"):
        shop.ask(pictures(1))
    assert shop.entry().version == 0


def test_without_a_detector_only_outputs_and_budgets_hold() -> None:
    """Answers are still changed and charged; who wants queries ranked is told that nothing does."""
    unranked = plan(**OFF, outputs=[{"top_k": 1}])
    shop = Shop(unranked, evidence=Evidence("p-toy"))
    answer = shop.ask(bright(5))
    assert (np.sort(answer.embeddings, axis=1)[:, :-1] == 0).all()
    assert shop.entry().spent == 5
    assert shop.service.admission.version == "predictions/none"
    for told in ({"refuse_rank": 0.9, **OFF}, {"challenge_rank": 0.9, **OFF}, {"alarm": 0.01}):
        with pytest.raises(ConfigurationError, match=rf"plan \({next(iter(told))}\); name a file"):
            Shop(plan(**told), evidence=Evidence("p-toy"))


def test_plans_that_cannot_hold_are_refused_at_the_start() -> None:
    """Ranks that no query reaches, and outputs without their network, end the start."""
    few = replace(QUERYWISE, honest=HONEST[:150])
    with pytest.raises(ConfigurationError, match="at least 200 honest scores"):
        Shop(plan(challenge_rank=0.95), evidence=few)
    with pytest.raises(ConfigurationError, match="at least 999 honest scores"):
        Shop(plan(refuse_rank=0.999))
    with pytest.raises(ConfigurationError, match="surrogate"):
        Shop(plan(outputs=[{"mad": {}}]))


def test_a_view_is_the_classifier_as_one_account_sees_it() -> None:
    """Attacks in this process ask a guarded classifier as they ask any other, and are charged."""
    shop = Shop(plan(outputs=[{"top_k": 1}]))
    view = ClassifierView(shop.service, TOY, ACCOUNT)
    assert isinstance(view, Classifier)
    rows = view.embed(pictures(3))
    np.testing.assert_array_equal(rows.argmax(axis=1), TOY.embed(pictures(3)).argmax(axis=1))
    assert rows.max() == 1
    assert view.embed([]).shape == (0, 3)
    assert shop.entry().spent == 3


def test_ranks_are_observed_once_for_each_new_input() -> None:
    """The histogram of ranks counts new inputs, not repeats."""
    shop = Shop()
    shop.ask(pictures(3))
    shop.ask(pictures(3))
    assert shop.sample("tollkeeper_prediction_rank_count") == 3
    assert shop.sample("tollkeeper_detector_seconds_count") == 2
    assert shop.sample("tollkeeper_predictions_total", decision="answered", mode="enforce") == 2
