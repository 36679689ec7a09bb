"""The border every attack has: budgets, metering, partial results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.asking import Asker, remaining, take
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.recovery.base import AsAnswered
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.metered import Price
from tollkeeper.errors import ConfigurationError, EncoderError, ThrottledError
from tollkeeper.lab.progress import Progress
from tollkeeper.testing import FakeClock, hash_encoder
from tollkeeper.types import Batch, Embeddings

TEXTS = [f"text {number}" for number in range(600)]


class FakeFailing:
    """Answers some calls, then does something else; counts calls."""

    name, dim, accepts = "failing", 4, frozenset({"text"})

    def __init__(self, good: int, then: Any, clock: FakeClock | None = None) -> None:
        self.good, self.then, self.calls, self.clock = good, then, 0, clock

    def embed(self, inputs: Batch) -> Embeddings:
        self.calls += 1
        if self.clock is not None:
            self.clock.advance(2.0)
        if self.calls > self.good:
            if isinstance(self.then, Exception):
                raise self.then
            bad: Embeddings = self.then(len(inputs))
            return bad
        return np.ones((len(inputs), self.dim), np.float32)


@dataclass(frozen=True)
class AskAll(Attack):
    """Asks for the whole pool as far as the budget goes and keeps the victim's answers."""

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        asker = Asker(victim, queries, recovery=AsAnswered(), rng=rng, progress=progress)
        asker.ask(np.arange(remaining(victim)))
        return FakeFailing(0, asker.answered().embeddings)


def steal(victim: Encoder, *, budget: int = 600, pool: Sequence[str] = TEXTS, **kwargs: Any) -> Any:
    """Run the test attack."""
    clock = kwargs.pop("clock", FakeClock())
    rng = np.random.default_rng(0)
    return AskAll()(victim, pool, budget=budget, rng=rng, clock=clock, **kwargs)


def test_a_theft_says_what_it_cost() -> None:
    """Queries, calls, money and the seconds that the victim took are counted at the border."""
    clock = FakeClock()
    theft = steal(FakeFailing(9, None, clock), price=Price(per_input=0.5, per_call=1), clock=clock)
    assert (theft.queries_spent, theft.repeats, theft.calls) == (600, 0, 3)
    assert theft.charge == 600 * 0.5 + 3
    assert theft.asking_s == 6.0
    assert theft.partial == ""


@pytest.mark.parametrize("budget", [0, -1, 601])
def test_a_budget_must_fit_the_pool(budget: int) -> None:
    """Nothing, less than nothing and more than the pool are refused before any query."""
    victim = FakeFailing(9, None)
    with pytest.raises(ConfigurationError, match="between 1 and 600"):
        steal(victim, budget=budget)
    assert victim.calls == 0


def test_the_budget_is_kept() -> None:
    """Of a pool of 600 only the budget is asked."""
    assert steal(FakeFailing(9, None), budget=300).queries_spent == 300


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (ThrottledError("slow down", retry_after_s=1.0), "slow down"),
        (EncoderError("down"), "down"),
        (ConnectionResetError("gone"), "gone"),
        (lambda n: np.full((n, 4), np.nan, np.float32), "NaN"),
        (lambda n: np.ones((n, 5), np.float32), "width 4, got 5"),
        (lambda n: np.ones((n - 1, 4), np.float32), r"expected embeddings of shape \(32, d\)"),
        (lambda _: np.ones(4, np.float32), "shape"),
    ],
)
def test_a_victim_that_stops_leaves_a_partial_theft(then: Any, reason: str) -> None:
    """What was answered is kept, with one line that says why there is no more."""
    theft = steal(FakeFailing(1, then))
    assert theft.queries_spent == 256
    assert len(theft.surrogate.then) == 256
    assert theft.partial
    assert "\n" not in theft.partial
    assert re.search(reason, theft.partial)


def test_a_victim_that_never_answers_is_an_error() -> None:
    """Without a single answer there is no copy to speak of."""
    with pytest.raises(EncoderError, match="down"):
        steal(FakeFailing(0, EncoderError("down")))


def test_accounts_are_metered_apart_and_together() -> None:
    """The same text asked by two accounts is two queries of one budget."""
    accounts = Accounts([hash_encoder(4), hash_encoder(4)])

    @dataclass(frozen=True)
    class AskTwice(Attack):
        def most_queries(self, inputs: int, accounts: int) -> int:
            return inputs * accounts

        def run(
            self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
        ) -> Encoder:
            assert isinstance(victim, Accounts)
            for account in victim.accounts:
                account.embed(queries)
                account.embed(queries)
            return victim

    theft = AskTwice()(
        accounts, TEXTS[:10], budget=20, rng=np.random.default_rng(0), clock=FakeClock()
    )
    assert (theft.queries_spent, theft.repeats, theft.calls) == (20, 20, 4)


@dataclass(frozen=True)
class AskInTurn(Attack):
    """Asks every account for its share of the pool."""

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        assert isinstance(victim, Accounts)
        count = len(victim.accounts)
        for number, account in enumerate(victim.accounts):
            asker = Asker(account, queries, recovery=AsAnswered(), rng=rng)
            asker.ask(np.arange(number, len(queries), count))
        return victim


def test_an_account_that_stopped_is_told_though_others_answer() -> None:
    """One account that is cut short makes the theft partial, wherever it stands."""
    for number in range(3):
        accounts: list[Encoder] = [FakeFailing(9, None) for _ in range(3)]
        accounts[number] = FakeRequests(3)
        theft = AskInTurn()(
            Accounts(accounts), TEXTS, budget=600, rng=np.random.default_rng(0), clock=FakeClock()
        )
        assert theft.queries_spent == 400 + 96
        assert theft.partial == f"account {number + 1} of 3: gone"


def test_time_with_all_accounts_counts() -> None:
    """The seconds that accounts took are added up."""
    clock = FakeClock()
    accounts = Accounts([FakeFailing(9, None, clock) for _ in range(3)])
    theft = AskInTurn()(accounts, TEXTS, budget=600, rng=np.random.default_rng(0), clock=clock)
    assert (theft.asking_s, theft.partial) == (6.0, "")


def test_accounts_do_not_raise_a_budget_that_cannot_be_spent() -> None:
    """An attack that asks each input once has no use for a budget of one an account."""
    accounts = [FakeFailing(9, None), FakeFailing(9, None)]
    with pytest.raises(ConfigurationError, match="between 1 and 600"):
        steal(Accounts(accounts), budget=601)
    assert [one.calls for one in accounts] == [0, 0]


@pytest.mark.parametrize("count", [0, 26])
def test_accounts_are_one_to_twentyfive(count: int) -> None:
    """No account and more than twenty-five are refused."""
    with pytest.raises(ConfigurationError, match="1 to 25"):
        Accounts([hash_encoder(4)] * count)


def test_an_unmetered_victim_is_refused() -> None:
    """Calling run() instead of the attack cannot get around the budget."""
    with pytest.raises(ConfigurationError, match="metered"):
        remaining(hash_encoder(4))


def test_asker_asks_each_position_once() -> None:
    """Positions that come again are answered from memory, in the order asked for."""
    victim = FakeFailing(2, EncoderError("asked a third time"))
    asker = Asker(victim, TEXTS, recovery=AsAnswered(), rng=np.random.default_rng(0))
    asker(np.array([3, 1, 3]))
    asker(np.array([1, 5]))
    assert asker(np.array([5, 3])).shape == (2, 4)
    assert asker.answered().index.tolist() == [3, 1, 5]


def test_asker_gives_no_answer_that_it_does_not_have() -> None:
    """A selection that depends on answers is told when the victim stopped."""
    asker = Asker(
        FakeFailing(1, EncoderError("down")),
        TEXTS,
        recovery=AsAnswered(),
        rng=np.random.default_rng(0),
    )
    with pytest.raises(ConfigurationError, match="stopped answering"):
        asker(np.arange(300))
    assert asker.stopped


def test_take_keeps_the_kind_of_batch() -> None:
    """Arrays stay arrays and lists stay lists."""
    index = np.array([2, 0])
    assert take(TEXTS, index) == [TEXTS[2], TEXTS[0]]
    assert isinstance(take(np.zeros((3, 2, 2, 3), np.uint8), index), np.ndarray)


class FakeRequests:
    """Answers at most 32 inputs a request, and breaks for good after some requests."""

    name, dim, accepts = "requests", 4, frozenset({"text"})

    def __init__(self, good: int) -> None:
        self.left, self.known = good, set[str]()

    def embed(self, inputs: Batch) -> Embeddings:
        for start in range(0, len(inputs), 32):
            part = set(inputs[start : start + 32])
            if not part <= self.known:
                self.left -= 1
                if self.left < 0:
                    raise EncoderError("gone")
                self.known |= part
        return np.ones((len(inputs), self.dim), np.float32)


def test_a_break_inside_a_call_loses_nothing_that_was_answered() -> None:
    """A live target answers a call in several requests; those before the break count."""
    theft = steal(FakeRequests(3))
    assert theft.queries_spent == 96
    assert theft.partial == "gone"


def test_a_failure_that_passes_is_not_partial() -> None:
    """One lost request is asked for again, and the theft is whole."""

    class FakeHiccup(FakeFailing):
        def embed(self, inputs: Batch) -> Embeddings:
            self.calls += 1
            if self.calls == 2:
                raise EncoderError("once")
            return np.ones((len(inputs), self.dim), np.float32)

    theft = steal(FakeHiccup(9, None))
    assert (theft.queries_spent, theft.partial) == (600, "")
