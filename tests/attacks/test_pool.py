"""Pools of accounts answer in one space, whoever is asked and whoever refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tollkeeper.attacks.sybil.disjoint import DisjointPool
from tollkeeper.attacks.sybil.mappers import RidgeMapper
from tollkeeper.attacks.sybil.matching import CoordinateMatcher
from tollkeeper.attacks.sybil.pool import SybilPool
from tollkeeper.attacks.sybil.roster import Roster
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.metered import Meter, MeteredEncoder
from tollkeeper.errors import (
    BudgetExhausted,
    ConfigurationError,
    EncoderError,
    InputError,
    SuspendedError,
    TollkeeperError,
)
from tollkeeper.testing import HashEncoder, check_encoder
from tollkeeper.types import Batch, Embeddings

DIM = 8
ANCHORS = DIM + 2
TEXTS = [f"text {number}" for number in range(700)]


class FakeAccount:
    """One account at a service: its own affine transform, a log, and refusals on demand."""

    name, accepts = "fake", frozenset({"text"})

    def __init__(
        self,
        seed: int = 0,
        *,
        limit: int | None = None,
        refusal: TollkeeperError | None = None,
        clean: Callable[[Batch], Embeddings] | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        self._clean = clean or HashEncoder(DIM).embed
        self._scale, self._shift = rng.uniform(0.5, 2, (2, DIM)).astype(np.float32)
        self._order = rng.permutation(DIM)
        self._limit, self._refusal = limit, refusal or SuspendedError("suspended")
        self.dim = DIM
        self.asked: list[str] = []
        self.calls = 0

    def embed(self, inputs: Batch) -> Embeddings:
        if self._limit is not None and len(self.asked) + len(inputs) > self._limit:
            raise self._refusal
        self.asked.extend(inputs)
        self.calls += 1
        return self.space(inputs)

    def space(self, inputs: Batch) -> Embeddings:
        """Return the answers without counting."""
        moved: Embeddings = self._clean(inputs) * self._scale + self._shift
        return moved[:, self._order]


def rng() -> np.random.Generator:
    """Return a generator."""
    return np.random.default_rng(0)


def pool_of(accounts: Sequence[Encoder], *, anchors: int = ANCHORS, turn: int = 1) -> SybilPool:
    """Return a pool with ridge maps."""
    return SybilPool(accounts, anchors=anchors, mapper=RidgeMapper(), rng=rng(), turn=turn)


def close(found: Embeddings, expected: Embeddings) -> bool:
    """Tell whether embeddings agree up to what a map fitted in float32 can do."""
    return np.allclose(found, expected, atol=2e-2)


@pytest.mark.parametrize("count", [2, 3, 25])
def test_all_answers_come_in_the_first_accounts_space(count: int) -> None:
    """Whoever answered, the rows are what the first account would have said, in input order."""
    accounts = [FakeAccount(seed) for seed in range(count)]

    found = pool_of(accounts).embed(TEXTS)

    assert close(found, accounts[0].space(TEXTS))
    assert found.dtype == np.float32


def test_the_pool_is_an_encoder() -> None:
    """It keeps the contract of encoders once it knows its accounts."""
    pool = pool_of([FakeAccount(seed) for seed in range(3)])
    pool.embed(TEXTS)

    check_encoder(pool, TEXTS[:40])


def test_one_account_is_passed_through() -> None:
    """The same bytes in the same call, with nothing mapped and nothing counted."""
    account = FakeAccount()
    pool = pool_of([account])

    found = pool.embed(TEXTS)

    assert np.array_equal(found, account.space(TEXTS))
    assert account.calls == 1
    assert account.asked == TEXTS


@pytest.mark.parametrize("step", [1, 7, 700])
def test_the_first_distinct_inputs_are_asked_everywhere_and_others_once(step: int) -> None:
    """In batches of any size the anchors are the first ones to come, duplicates left out."""
    accounts = [FakeAccount(seed) for seed in range(3)]
    pool = pool_of(accounts)
    stream = [text for text in TEXTS[:40] for _ in range(2)]
    for start in range(0, len(stream), step):
        pool.embed(stream[start : start + step])

    for text in TEXTS[:40]:
        asked = sum(text in account.asked for account in accounts)
        assert asked == (3 if text in TEXTS[:ANCHORS] else 1)


def test_batches_do_not_change_the_answers() -> None:
    """One call and many give the same rows, since maps are fitted on all anchors only."""
    whole = pool_of([FakeAccount(seed) for seed in range(3)]).embed(TEXTS)
    pool = pool_of([FakeAccount(seed) for seed in range(3)])

    parts = [pool.embed(TEXTS[start : start + 64]) for start in range(0, len(TEXTS), 64)]

    assert np.allclose(np.concatenate(parts), whole, atol=1e-5)


@pytest.mark.parametrize(("turn", "expected"), [(1, "singly"), (230, "in shards")])
def test_new_inputs_are_dealt_in_turns(turn: int, expected: str) -> None:
    """Turns of one deal singly, long turns give contiguous shards; all get their share."""
    accounts = [FakeAccount(seed) for seed in range(3)]
    pool = pool_of(accounts, turn=turn)

    pool.embed(TEXTS)

    rest = TEXTS[ANCHORS:]
    shares = [account.asked[ANCHORS:] for account in accounts]
    dealt = {"singly": [rest[0::3], rest[1::3], rest[2::3]]}
    dealt["in shards"] = [rest[:230], rest[230:460], rest[460:]]
    assert shares == dealt[expected]
    assert pool.roster.answered.tolist() == [len(account.asked) for account in accounts]


def test_repeats_go_to_the_account_that_answered_before() -> None:
    """Asking everything again adds no new input to any account."""
    accounts = [FakeAccount(seed) for seed in range(3)]
    pool = pool_of(accounts)
    pool.embed(TEXTS)
    before = [set(account.asked) for account in accounts]

    again = pool.embed(TEXTS[::-1])

    assert [set(account.asked) for account in accounts] == before
    assert close(again, accounts[0].space(TEXTS[::-1]))


@pytest.mark.parametrize("refusal", [SuspendedError("no"), EncoderError("down")])
@pytest.mark.parametrize("limit", [0, 5, ANCHORS, 100])
def test_the_share_of_an_account_that_refuses_goes_to_the_others(
    limit: int, refusal: TollkeeperError
) -> None:
    """Before, during and after the anchors: all inputs are answered, in the right space."""
    accounts = [
        FakeAccount(0),
        FakeAccount(1, limit=limit, refusal=refusal),
        FakeAccount(2),
    ]
    pool = pool_of(accounts)

    found = np.concatenate([pool.embed(TEXTS[at : at + 50]) for at in range(0, 700, 50)])

    assert close(found, accounts[0].space(TEXTS))
    assert pool.roster.left == [0, 2]
    assert len(accounts[1].asked) <= limit


class FakeTranscript(FakeAccount):
    """Answers at most 64 new inputs a call, but what it answered before always."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()

    def embed(self, inputs: Batch) -> Embeddings:
        new = [text for text in inputs if text not in self.known]
        self.known.update(new[:64])
        if len(new) > 64:
            raise EncoderError("gone")
        return super().embed(inputs)


class FakeBreaking(FakeAccount):
    """Fails in some of its calls."""

    def __init__(self, *failing: int) -> None:
        super().__init__()
        self.failing, self.tried = failing, 0

    def embed(self, inputs: Batch) -> Embeddings:
        self.tried += 1
        if self.tried in self.failing:
            raise EncoderError("broken")
        return super().embed(inputs)


def test_what_was_answered_before_a_failure_is_had_by_asking_again() -> None:
    """A call that failed after 64 answers loses none of them, and the account stays."""
    account = FakeTranscript()
    roster = Roster([account])

    found = roster.ask_one(0, TEXTS[:600])

    assert np.array_equal(found, account.space(TEXTS[:600]))
    assert roster.left == [0]
    assert roster.answered.tolist() == [600]


@pytest.mark.parametrize("count", [20, 600])
def test_an_account_that_fails_once_is_asked_again(count: int) -> None:
    """A small call too; an account whose small part fails again is out, with what it answered."""
    once, twice = FakeBreaking(1), FakeBreaking(1, 3)
    roster = Roster([once, twice])

    assert len(roster.ask_one(0, TEXTS[:count])) == count
    assert roster.left == [0, 1]
    assert len(roster.ask_one(1, TEXTS[:count])) == min(count, 32)
    assert roster.left == ([0, 1] if count == 20 else [0])


def test_the_first_account_may_leave_once_the_maps_are_known() -> None:
    """Its space stays the pool's when it refuses after the anchors."""
    accounts = [FakeAccount(0, limit=50), FakeAccount(1), FakeAccount(2)]
    pool = pool_of(accounts)

    found = np.concatenate([pool.embed(TEXTS[at : at + 30]) for at in range(0, 690, 30)])

    assert close(found, accounts[0].space(TEXTS[:690]))
    assert pool.roster.left == [1, 2]


def test_without_the_first_account_there_is_no_space() -> None:
    """When it refuses from the start its refusal is raised."""
    pool = pool_of([FakeAccount(0, limit=0, refusal=SuspendedError("first")), FakeAccount(1)])

    with pytest.raises(SuspendedError, match="first"):
        pool.embed(TEXTS)


def test_budgets_are_spent_to_the_last_query() -> None:
    """An account is asked for as much as its own budget still allows."""
    budgets = [400, 137, 11]
    accounts = [
        MeteredEncoder(FakeAccount(seed), budget=budget) for seed, budget in enumerate(budgets)
    ]
    pool = pool_of(accounts)

    pool.embed(TEXTS[: sum(budgets) - 2 * ANCHORS])

    assert [account.remaining for account in accounts] == [0, 0, 0]


def test_when_all_refuse_what_was_answered_is_kept() -> None:
    """The last refusal is raised, and the answers of that call are there without asking."""
    spent = BudgetExhausted("spent")
    accounts = [FakeAccount(seed, limit=60, refusal=spent) for seed in range(2)]
    pool = pool_of(accounts)

    with pytest.raises(BudgetExhausted, match="spent"):
        pool.embed(TEXTS[:200])
    asked = [text for account in accounts for text in account.asked]
    answered = sorted(set(asked), key=TEXTS.index)
    found = pool.embed(answered)

    assert len(answered) == 120 - ANCHORS
    assert close(found, accounts[0].space(answered))
    assert [text for account in accounts for text in account.asked] == asked


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("budget", [12, 20, 47, 50, 51, 90])
@pytest.mark.parametrize("before", [0, 3, 30])
def test_it_says_how_many_inputs_a_shared_budget_allows(
    count: int, budget: int, before: int
) -> None:
    """Exactly `remaining` more inputs are answered, anchors costing one query an account."""
    meter = Meter(budget)
    accounts = [
        MeteredEncoder(FakeAccount(seed), meter=meter, account=seed) for seed in range(count)
    ]
    pool = pool_of(accounts)
    started = min(before, pool.remaining)
    pool.embed(TEXTS[:started])
    allowed = pool.remaining

    pool.embed(TEXTS[started : started + allowed])

    total = started + allowed
    assert meter.queries_spent == total + (count - 1) * min(total, ANCHORS)
    assert meter.remaining < (count if total < ANCHORS else 1)


def test_accounts_in_one_space_need_no_map() -> None:
    """Without a mapper answers are passed on, and no input is asked twice."""
    accounts = [FakeAccount(0) for _ in range(3)]

    found = SybilPool(accounts, anchors=0, mapper=None, rng=rng()).embed(TEXTS)

    assert np.array_equal(found, accounts[0].space(TEXTS))
    assert sum(len(account.asked) for account in accounts) == len(TEXTS)


def test_settings_that_make_no_sense_are_refused() -> None:
    """Each gets one line that says what was expected."""
    one, wide = FakeAccount(), HashEncoder(DIM + 1)
    with pytest.raises(ConfigurationError, match="at least 2 anchors"):
        pool_of([one, one], anchors=1)
    with pytest.raises(ConfigurationError, match="0 without one"):
        SybilPool([one, one], anchors=5, mapper=None, rng=rng())
    with pytest.raises(ConfigurationError, match="different width"):
        SybilPool([one, wide], anchors=0, mapper=None, rng=rng())
    with pytest.raises(ConfigurationError, match="turns of at least 1"):
        pool_of([one], turn=0)
    for count in (0, 26):
        with pytest.raises(ConfigurationError, match="1 to 25 accounts"):
            pool_of([one] * count)
    with pytest.raises(ConfigurationError, match="metered"):
        _ = pool_of([one, one]).remaining


def test_images_are_told_apart_by_their_pixels() -> None:
    """Equal images are one input whatever array they lie in; another shape is another input."""
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    roster = Roster([HashEncoder(DIM)])

    roster.ask(image[None])

    assert roster.new([image.copy(), image.reshape(2, 8, 3), image + 1]).tolist() == [1, 2]


def factors(texts: Batch) -> Embeddings:
    """Return right-skewed correlated features of texts."""
    mixing = np.random.default_rng(5).uniform(0, 1, (DIM, DIM)) ** 2
    return (np.exp(HashEncoder(DIM).embed(texts) / 2) @ mixing).astype(np.float32)


def disjoint(count: int, *, limit: int | None = None) -> tuple[list[FakeAccount], DisjointPool]:
    """Return accounts of a matchable encoder, and their pool."""
    accounts = [FakeAccount(seed, clean=factors, limit=limit) for seed in range(count)]
    return accounts, DisjointPool(accounts, matcher=CoordinateMatcher(), rng=rng())


MANY = [f"another text {number}" for number in range(3000)]


def test_disjoint_accounts_share_no_input() -> None:
    """Each input is asked once, and the rows are close to the first account's."""
    accounts, pool = disjoint(3)

    found = pool.embed(MANY)

    truth = accounts[0].space(MANY)
    asked = [text for account in accounts for text in account.asked]
    assert sorted(asked) == sorted(MANY)
    assert np.square(found - truth).mean() < 0.01 * truth.var(axis=0).mean()


def test_what_was_collected_is_given_out_without_asking() -> None:
    """Maps use all collected answers, so batches afterwards get the same rows as one call."""
    accounts, pool = disjoint(2)
    _, whole = disjoint(2)
    expected = whole.embed(MANY)

    there = pool.collect(MANY)
    calls = [account.calls for account in accounts]
    parts = [pool.embed(MANY[start : start + 256]) for start in range(0, 3000, 256)]

    assert there.all()
    assert [account.calls for account in accounts] == calls
    assert np.array_equal(np.concatenate(parts), expected)


def test_maps_improve_as_answers_come() -> None:
    """Without collecting, accounts are matched anew each time their answers have doubled."""
    accounts, pool = disjoint(2)

    rows = [pool.embed(MANY[start : start + 50]) for start in range(0, 3000, 50)]

    errors = [
        float(np.square(found - accounts[0].space(MANY[at * 50 : at * 50 + 50])).mean())
        for at, found in enumerate(rows)
    ]
    assert np.mean(errors[-5:]) < 0.5 * np.mean(errors[:5])


def test_collecting_says_what_was_answered() -> None:
    """When all accounts refuse half-way, the rest is missing and the answers can be had."""
    accounts, pool = disjoint(2, limit=512)

    there = pool.collect(MANY)

    answered = [text for text, known in zip(MANY, there, strict=True) if known]
    assert len(answered) == 1024
    assert len(pool.embed(answered)) == 1024
    with pytest.raises(SuspendedError):
        pool.embed(MANY)
    assert sum(len(account.asked) for account in accounts) == 1024


def test_collected_inputs_count_as_remaining() -> None:
    """They can be asked for without a query."""
    meter = Meter(100)
    accounts = [MeteredEncoder(FakeAccount(seed), meter=meter, account=seed) for seed in range(2)]
    pool = DisjointPool(accounts, matcher=CoordinateMatcher(), rng=rng())

    pool.collect(MANY[:60])

    assert pool.remaining == 40 + 60


def test_a_disjoint_pool_needs_the_first_account_and_enough_answers() -> None:
    """Its refusal is raised when it never answered; too few rows are said to be too few."""
    silent = FakeAccount(0, limit=0, refusal=SuspendedError("first"))
    with pytest.raises(SuspendedError, match="first"):
        DisjointPool([silent, FakeAccount(1)], matcher=CoordinateMatcher(), rng=rng()).embed(MANY)
    with pytest.raises(InputError, match="at least 4 rows"):
        disjoint(2)[1].embed(MANY[:4])


def test_one_disjoint_account_needs_no_match() -> None:
    """Its answers are passed on, and what was collected is not asked again."""
    (account,), pool = disjoint(1)
    pool.collect(TEXTS)

    assert np.array_equal(pool.embed(TEXTS), account.space(TEXTS))
    assert account.asked == TEXTS
