"""The service without HTTP: charge before reply, union under concurrency, pools, fallbacks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import BudgetExhausted, InputError, LedgerError
from tollkeeper.gateway.asks import Ask, Charge
from tollkeeper.gateway.assembly import make_service as assemble
from tollkeeper.gateway.backlog import Piece
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.pools import pool_key
from tollkeeper.gateway.service import Guarded
from tollkeeper.gateway.view import View
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.base import Submission
from tollkeeper.ledger.commits import new_commit
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.types import Account, Entry, Record

DIM = 16
ENCODER = hash_encoder(DIM)


def make_guard(profile: str = "cheapest") -> Guard:
    """A guard with a calibration of the toy encoder."""
    sample = ENCODER.embed([f"sample {i}" for i in range(256)])
    calibration = Calibration.fit(sample, rng=np.random.default_rng(0))
    return Guard(profiles.get(profile), calibration, secret=bytes(range(32)))


GUARD = make_guard()


def make_service(ledger: Any = None, guard: Guard = GUARD, **options: Any) -> Guarded:
    """A service over a memory ledger, with a clock that stands still."""
    return assemble(
        ENCODER,
        guard,
        ledger or MemoryLedger(),
        clock=lambda: 1000.0,
        rng=np.random.default_rng(0),
        metrics=Metrics(),
        **options,
    )


def account(tenant: str = "acme", pool: str | None = None, budget: float | None = None) -> Account:
    """An account of a tenant, charged on its own pool unless another is named."""
    return Account(tenant=tenant, key_id="key_1", pool=pool or tenant, budget=budget)


def ask(*texts: str, who: Account | None = None, dimensions: int | None = None) -> Ask:
    """A request for texts."""
    return Ask(who or account(), texts, "text", dimensions, "req_1")


def whole(asks: list[Ask]) -> list[Piece]:
    """Each ask as one piece."""
    return [Piece(one, slice(0, len(one.inputs))) for one in asks]


def entry(service: Guarded, pool: str = "acme") -> Entry:
    """What the ledger holds of a pool."""
    return service.ledger.read(pool_key(pool, service.guard.fingerprint))


def sketch_of(texts: list[str]) -> Any:
    """The sketch of an account that asked these texts."""
    return GUARD.admit(
        GUARD.empty(), ENCODER.embed(texts), key=bytes(32), rng=np.random.default_rng(0)
    ).sketch


def failing_submit(submissions: Sequence[Submission]) -> list[Future[Entry]]:
    """Commits that the store refused."""
    futures: list[Future[Entry]] = [Future() for _ in submissions]
    for future in futures:
        future.set_exception(LedgerError("disk full"))
    return futures


class Stalled(MemoryLedger):
    """A memory ledger that makes commits durable only when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], None]] = []

    def submit(self, submissions: Sequence[Submission]) -> list[Future[Entry]]:
        futures: list[Future[Entry]] = [Future() for _ in submissions]

        def finish() -> None:
            done = super(Stalled, self).submit(submissions)
            for future, entry in zip(futures, done, strict=True):
                future.set_result(entry.result())

        self.waiting.append(finish)
        return futures


def test_no_answer_before_the_commit_is_durable() -> None:
    """A request waits for its commit; only then is there an answer (law 1)."""
    ledger = Stalled()
    service = make_service(ledger)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(service.answer(ask("a"))))
    thread.start()
    while not ledger.waiting:
        pass
    thread.join(timeout=0.05)
    assert answers == []
    ledger.waiting.pop()()
    thread.join(timeout=10)
    assert len(answers) == 1


def test_repeats_cost_nothing_and_answer_the_same() -> None:
    """The same question gets the same bytes, no charge and no coverage (law 2)."""
    service = make_service()
    first = service.answer(ask("a", "b"))
    before = entry(service)
    again = service.answer(ask("b", "a"))
    after = entry(service)
    np.testing.assert_array_equal(again.embeddings, first.embeddings[::-1])
    assert after.sketch == before.sketch
    assert after.spent == before.spent == 2
    assert after.queries == 4


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pq"), st.integers(0, 60)), min_size=1, max_size=60))
def test_pool_is_charged_like_one_account(asked: list[tuple[str, int]]) -> None:
    """Two tenants on one pool are charged like one account that asked everything (law 4)."""
    service = make_service()
    for tenant, number in asked:
        service.answer(ask(f"text {number}", who=account(tenant, pool="shared")))
    assert entry(service, "shared").sketch == sketch_of([f"text {n}" for _, n in asked]).tobytes()


def test_concurrent_requests_of_two_replicas_lose_nothing(tmp_path: Path) -> None:
    """Two services on one file, many threads, one tenant: the sketch is the union of all."""
    services = [make_service(SqliteLedger(tmp_path / "ledger.sqlite3")) for _ in range(2)]
    texts = [f"text {i}" for i in range(120)]

    def send(number: int) -> None:
        services[number % 2].answer(ask(texts[number]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(120)))
    final = entry(services[0])
    assert final.sketch == sketch_of(texts).tobytes()
    assert final.queries == 120
    assert sum(service.metrics.conflicts._value.get() for service in services) > 0
    for service in services:
        service.ledger.close()  # type: ignore[attr-defined]  # not part of the service's view


def test_gathered_asks_equal_single_ones() -> None:
    """Charging many asks of several tenants and widths at once equals one after another."""
    asks = [
        ask("a", "b"),
        ask("c", who=account("rival")),
        ask("d", dimensions=5),
        ask("b", "e"),
        ask("f", dimensions=5),
    ]
    together, alone = make_service(), make_service()
    assert together.embedder.embed(whole(asks)) == [None] * 5
    outcome = {}
    for charge in together.charge(asks):
        answers, again = together.settle(charge)
        assert again == []
        outcome.update({id(a): answer for a, answer in zip(charge.asks, answers, strict=True)})
    for one in asks:
        expected = alone.answer(Ask(one.account, one.inputs, one.modality, one.dimensions))
        got = outcome[id(one)]
        assert not isinstance(got, Exception)
        np.testing.assert_array_equal(got.embeddings, expected.embeddings)
    for pool in ("acme", "rival"):
        assert entry(together, pool).sketch == entry(alone, pool).sketch
        assert entry(together, pool).spent == entry(alone, pool).spent


def test_noise_follows_the_price_and_stays_with_the_account() -> None:
    """Past the knee answers carry the price's noise; another tenant's stay clean."""
    service = make_service()
    for i in range(150):
        service.answer(ask(f"walk {i}"))
    coverage = GUARD.fraction(GUARD.load(entry(service).sketch))
    scale = float(GUARD.profile.price(np.array([coverage]))[0]) * GUARD.calibration.feature_std
    assert scale > 0
    record = next(iter(service.ledger.records()))
    assert record.noise_scale == pytest.approx(scale)
    clean = ENCODER.embed(["walk 0", "walk 1"])
    cosine = float(clean[0] @ clean[1])
    noisy = service.answer(ask("walk 0", "walk 1")).embeddings
    assert abs(float(noisy[0] @ noisy[1]) - cosine) > 1e-3
    other = service.answer(ask("walk 0", "walk 1", who=account("rival"))).embeddings
    assert float(other[0] @ other[1]) == pytest.approx(cosine, abs=1e-4)


def test_a_hard_budget_is_exact() -> None:
    """A request that would go over is refused whole and uncharged; repeats stay free."""
    service = make_service()
    who = account(budget=3)
    service.answer(ask("a", "b", who=who))
    with pytest.raises(BudgetExhausted):
        service.answer(ask("c", "d", who=who))
    assert entry(service).spent == 2
    service.answer(ask("c", "a", who=who))
    assert entry(service).spent == 3
    with pytest.raises(BudgetExhausted):
        service.answer(ask("d", who=who))
    service.answer(ask("a", "b", "c", who=who))
    assert (entry(service).spent, entry(service).queries) == (3, 7)


def capped_guard() -> Guard:
    """A guard whose ceiling a few dozen texts reach."""
    profile = replace(profiles.CHEAPEST, ceiling=0.3)
    return Guard(profile, GUARD.calibration, secret=bytes(range(32)))


def test_at_the_ceiling_what_is_new_is_refused_and_free() -> None:
    """The account keeps what it has, pays nothing more, and hears what a spent budget says."""
    service = make_service(guard=capped_guard())
    known: list[str] = []
    refusal = ""
    while not refusal and len(known) < 200:
        try:
            service.answer(ask(f"text {len(known)}"))
            known.append(f"text {len(known)}")
        except BudgetExhausted as error:
            refusal = str(error)
    assert "more quota than this account has left" in refusal
    assert len(known) > 5
    spent = entry(service).spent
    assert len(service.answer(ask(*known)).embeddings) == len(known)
    # Charged together, what is known is answered and what is new is not.
    asks = [ask(*known[:3]), ask("never asked")]
    assert service.embedder.embed(whole(asks)) == [None, None]
    (charge,) = service.charge(asks)
    answers, again = service.settle(charge)
    assert (len(charge.asks), again) == (2, [])
    outcome = {id(one): answer for one, answer in zip(charge.asks, answers, strict=True)}
    assert isinstance(outcome[id(asks[1])], BudgetExhausted)
    assert not isinstance(outcome[id(asks[0])], Exception)
    assert entry(service).spent == spent


@pytest.mark.parametrize("options", [{"shadow": True}, {"refuses": False}])
def test_a_shadow_server_has_no_ceiling(options: Any) -> None:
    """In shadow everyone is answered, so everything is charged and seen; a setting does it too."""
    low = Guard(replace(profiles.get("cheapest"), ceiling=0.3), GUARD.calibration, secret=bytes(32))
    strict, lenient = make_service(guard=low), make_service(guard=low, **options)
    for i in range(150):
        lenient.answer(ask(f"walk {i}"))
    strict.answer(ask(*[f"walk {i}" for i in range(40)]))
    with pytest.raises(BudgetExhausted):
        strict.answer(ask(*[f"more {i}" for i in range(40)]))


def test_shadow_records_what_it_would_have_done() -> None:
    """In shadow mode answers stay clean while the records hold the noise they would carry."""
    service = make_service(shadow=True)
    for i in range(150):
        answer = service.answer(ask(f"walk {i}"))
    np.testing.assert_array_equal(answer.embeddings, ENCODER.embed(["walk 149"]))
    record = next(iter(service.ledger.records()))
    assert record.shadow
    assert record.noise_scale > 0


def test_profile_none_stores_nothing() -> None:
    """Without a guard answers are the encoder's own and the ledger is not touched."""
    service = make_service(guard=make_guard("none"))
    np.testing.assert_array_equal(service.answer(ask("a")).embeddings, ENCODER.embed(["a"]))
    assert list(service.ledger.records()) == []


def test_fallback_open_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered while the ledger was down is in the sketch once it is back."""
    service = make_service(on_ledger_failure="open")
    service.answer(ask("a"))

    def broken(*_: Any, **__: Any) -> Any:
        raise LedgerError("down")

    monkeypatch.setattr(service.ledger, "submit", failing_submit)
    monkeypatch.setattr(service.ledger, "read", broken)
    for text in "bcd":
        service.answer(ask(text))
    monkeypatch.undo()
    service.answer(ask("e"))
    assert entry(service).sketch == sketch_of(list("abcde")).tobytes()


def test_failed_commit_is_not_built_upon() -> None:
    """After a commit that failed, the next request starts from what is stored."""

    class Flaky(MemoryLedger):
        fail = True

        def submit(self, submissions: Sequence[Submission]) -> list[Future[Entry]]:
            return failing_submit(submissions) if self.fail else super().submit(submissions)

    ledger = Flaky()
    service = make_service(ledger)
    with pytest.raises(LedgerError):
        service.answer(ask("a"))
    ledger.fail = False
    service.answer(ask("b"))
    assert entry(service).sketch == sketch_of(["b"]).tobytes()


def test_view_is_an_encoder() -> None:
    """The guarded victim is an encoder whose calls are charged to its account."""
    service = make_service()
    view = View(service, account())
    assert view.dim == DIM
    assert view.embed(["a", "b"]).shape == (2, DIM)
    assert view.embed([]).shape == (0, DIM)
    assert entry(service).queries == 2


def test_wrong_dimensions_are_the_clients_mistake() -> None:
    """More dimensions than the encoder has is an InputError before any work."""
    with pytest.raises(InputError, match="at most 16"):
        make_service().check(ask("a", dimensions=17))


def test_records_hold_no_input() -> None:
    """Nothing in a record is or depends on the text of an input."""
    service = make_service()
    service.answer(ask("very secret text"))
    (record,) = service.ledger.records()
    assert isinstance(record, Record)
    assert "secret" not in repr(record)


def test_a_failed_commit_does_not_lock_a_budget() -> None:
    """What a refused commit would have spent is not held against the tenant."""

    class Flaky(MemoryLedger):
        fail = True

        def submit(self, submissions: Sequence[Submission]) -> list[Future[Entry]]:
            return failing_submit(submissions) if self.fail else super().submit(submissions)

    ledger = Flaky()
    service = make_service(ledger)
    who = account(budget=2)
    with pytest.raises(LedgerError):
        service.answer(ask("a", "b", who=who))
    ledger.fail = False
    assert service.answer(ask("c", who=who)).embeddings.shape == (1, DIM)
    assert entry(service).spent == 1


def test_a_budget_is_kept_under_gathering() -> None:
    """Sixty-four requests charged at once spend a budget of three inputs once."""
    service = make_service()
    asks = [ask(f"text {i}", who=account(budget=3)) for i in range(64)]
    service.embedder.embed(whole(asks))
    (charge,) = service.charge(asks)
    refused = [answer for answer in charge.answers if isinstance(answer, BudgetExhausted)]
    assert len(refused) == 61
    assert entry(service).spent == 3


def test_metrics_count_what_was_stored(tmp_path: Path) -> None:
    """With two replicas in conflict, counters add up to the ledger's totals."""
    services = [make_service(SqliteLedger(tmp_path / "ledger.sqlite3")) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: services[i % 2].answer(ask(f"text {i}")), range(80)))
    inputs = sum(s.metrics.inputs.labels("text")._value.get() for s in services)
    charged = sum(s.metrics.charged._value.get() for s in services)
    final = entry(services[0])
    assert (inputs, charged) == (final.queries, final.spent) == (80, final.spent)
    for service in services:
        service.ledger.close()  # type: ignore[attr-defined]  # not part of the service's view


def test_absurd_numbers_fail_their_own_request_only() -> None:
    """An embedding too large to hash is refused alone; its neighbors are answered."""

    class Odd(type(ENCODER)):  # type: ignore[misc]  # the class behind the shared instance
        def embed(self, inputs: Any) -> Any:
            rows = super().embed(inputs)
            rows[[text == "odd" for text in inputs]] = 3e38
            return rows

    service = assemble(
        Odd(DIM),
        GUARD,
        MemoryLedger(),
        clock=lambda: 0.0,
        rng=np.random.default_rng(0),
        metrics=Metrics(),
    )
    errors = service.embedder.embed(whole([ask("a"), ask("odd"), ask("b")]))
    assert [type(error).__name__ for error in errors] == ["NoneType", "EncoderError", "NoneType"]


def test_callbacks_of_a_foreign_writer_do_not_deadlock(tmp_path: Path) -> None:
    """A failing group that another thread writes cannot lock the service against itself."""
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3")
    service = make_service(ledger)
    entered, leave = threading.Event(), threading.Event()

    def occupy(_: Any) -> None:
        entered.set()
        leave.wait(20)

    writer = threading.Thread(target=ledger._writer.call, args=(occupy,))
    writer.start()
    assert entered.wait(20)
    # Both commits wait behind the writer; P will conflict, for another process was first.
    pools = [ask("p", who=account("P")), ask("q", who=account("Q"))]
    service.embedder.embed(whole(pools))
    settled: list[Any] = []

    def settle(charge: Charge, _: Future[Entry]) -> None:
        settled.append(service.settle(charge))

    for charge in service.charge(pools):
        assert charge.future is not None
        charge.future.add_done_callback(partial(settle, charge))
    pool = pool_key("P", service.guard.fingerprint)
    record = Record(0.0, "P", "k", "r", "m", 1, 1, 1.0, 0.1, 0.0, "cheapest/1")
    with ledger._writer._lock:
        ledger._writer._waiting.insert(
            0, new_commit(Submission(pool, [record], sketch_of(["x"]).tobytes(), 0))
        )
    again = [ask("q2", who=account("Q"))]
    service.embedder.embed(whole(again))
    second = threading.Thread(target=lambda: service.charge(again))
    second.start()
    leave.set()
    writer.join(20)
    second.join(20)
    assert not writer.is_alive()
    assert not second.is_alive()
    assert len(settled) == 2
    ledger.close()


def test_a_failed_read_never_overwrites_a_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `open`, a conflict followed by a failed read keeps the other process's coverage."""
    ledger = MemoryLedger()
    service = make_service(ledger, on_ledger_failure="open")
    service.answer(ask("mine"))
    other = make_service(ledger)
    other.answer(ask(*[f"theirs {i}" for i in range(10)]))
    real, failures = ledger.read, [1]

    def flaky(pool: str) -> Entry:
        if failures[0]:
            failures[0] -= 1
            raise LedgerError("one bad read")
        return real(pool)

    monkeypatch.setattr(ledger, "read", flaky)
    service.answer(ask("more"))
    expected = sketch_of(["mine", "more", *[f"theirs {i}" for i in range(10)]])
    np.testing.assert_array_equal(GUARD.load(entry(service).sketch), expected)


def test_repeats_are_free_even_above_the_budget() -> None:
    """A pool that others took over a tenant's budget still answers what it knows."""
    service = make_service()
    service.answer(ask("a", who=account("A", pool="shared", budget=3)))
    service.answer(ask("b", "c", "d", "e", who=account("B", pool="shared")))
    service.answer(ask("a", "b", who=account("A", pool="shared", budget=3)))
    with pytest.raises(BudgetExhausted):
        service.answer(ask("new", who=account("A", pool="shared", budget=3)))
