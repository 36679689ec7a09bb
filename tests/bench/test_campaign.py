"""A campaign: what is asked at which budget, what is kept when the victim stops, what rows say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.attacks.asking import Asker, remaining  # noqa: E402
from tollkeeper.attacks.base import Attack  # noqa: E402
from tollkeeper.attacks.direct import Direct  # noqa: E402
from tollkeeper.attacks.networks.convnet import ConvNet  # noqa: E402
from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.objectives import SupCon  # noqa: E402
from tollkeeper.attacks.recovery.base import AsAnswered  # noqa: E402
from tollkeeper.attacks.selection.random import Random  # noqa: E402
from tollkeeper.attacks.sybil.mapped import Mapped  # noqa: E402
from tollkeeper.bench.experiment import BenchError  # noqa: E402
from tollkeeper.bench.theft.campaign import Campaign, Row, Run, check_plan, rows  # noqa: E402
from tollkeeper.bench.theft.gauge import (  # noqa: E402
    HELD_OUT,
    Gauge,
    blank_copy,
    figure_names,
    gauge_for,
    hold_out,
    yardstick,
)
from tollkeeper.bench.theft.pools import Pool  # noqa: E402
from tollkeeper.bench.theft.tasks import Task  # noqa: E402
from tollkeeper.bench.theft.victims import Victim, in_process  # noqa: E402
from tollkeeper.client import Spend  # noqa: E402
from tollkeeper.encoders.base import Encoder  # noqa: E402
from tollkeeper.encoders.metered import Price  # noqa: E402
from tollkeeper.errors import ConfigurationError, EncoderError, ThrottledError  # noqa: E402
from tollkeeper.lab.fit import SGD, Schedule  # noqa: E402
from tollkeeper.lab.progress import Progress, Step  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.victims import ToyTextVictim, blobs, sentences  # noqa: E402
from tollkeeper.types import Batch, Embeddings  # noqa: E402

POOL = Pool("toy", list(dict.fromkeys(sentences(700))), None)
HELD = sentences(120, seed=9)
NGRAM = NGram(buckets=64, width=8, hidden=8)
CONV = ConvNet(width=4, side=16)
TOY = "python:tollkeeper.testing.victims:ToyImageVictim"


@dataclass
class Copy:
    """A surrogate that answers as the victim does, but for noise; more queries, less noise."""

    queries: int
    name: str = "copy"
    dim: int = 16
    accepts: frozenset[str] = frozenset({"text"})

    def embed(self, inputs: Batch) -> Embeddings:
        noise = np.random.default_rng(self.queries).normal(size=(len(inputs), self.dim))
        return (ToyTextVictim().embed(inputs) + 5 / self.queries * noise).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Fast(Attack):
    """Chooses and asks as real attacks do, and trains nothing."""

    network: NGram = NGRAM

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        asker = Asker(victim, queries, recovery=AsAnswered(), rng=rng, progress=progress)
        count = min(len(queries), remaining(victim))
        asker.ask(Random().choose(queries, count, ask=asker, rng=rng))
        return Copy(len(asker.answered().index))


class Zero:
    """An objective with nothing to learn, so that no rate is too high."""

    def __call__(self, z: Any, h: Any) -> Any:
        return (z * 0).sum()


@dataclass
class Spy:
    """A victim that remembers what each run asked, and stops when it is told to."""

    asked: list[list[str]] = field(default_factory=list)
    most: float = np.inf
    error: Exception = field(default_factory=lambda: ThrottledError("slow down", retry_after_s=9))
    name: str = "spy"
    dim: int = 16
    accepts: frozenset[str] = frozenset({"text"})

    def begin(self, seed: int) -> Encoder:
        self.asked.append([])
        return self

    def embed(self, inputs: Batch) -> Embeddings:
        if sum(map(len, self.asked)) + len(inputs) > self.most:
            raise self.error
        self.asked[-1] += inputs
        return ToyTextVictim().embed(inputs)

    def victim(self, *, is_live: bool = False) -> Victim:
        """Return it as a campaign asks it."""
        return Victim("spy", self, ToyTextVictim(), self.begin, Spend if is_live else None)


def campaign(spy: Spy, *, is_live: bool = False, **changes: Any) -> Campaign:
    """Return a small campaign."""
    given: dict[str, Any] = {
        "attack": Fast(),
        "victim": spy.victim(is_live=is_live),
        "pool": POOL,
        "budgets": (40, 100),
        "seeds": 2,
        **changes,
    }
    return Campaign(**given)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Leave the cores to other tests: torch's threads wait for each other by spinning."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def gauge() -> Gauge:
    """Compare with a toy on held-out texts."""
    bare = blank_copy(Fast(), 16, POOL.inputs)
    return gauge_for(yardstick(ToyTextVictim(), inputs=HELD), bare)


def run(plan: Campaign, gauge: Gauge) -> list[Row]:
    """Run a campaign in silence."""
    return list(rows(plan, gauge, clock=FakeClock(step=1.0), told=lambda label, step: None))


def test_every_run_is_told_and_rows_rise(gauge: Gauge) -> None:
    """A row comes again with each of its seeds, and a larger budget buys a better copy."""
    found = run(campaign(Spy()), gauge)
    assert [(row.budget, len(row.runs)) for row in found] == [(40, 1), (40, 2), (100, 1), (100, 2)]
    small, large = found[1], found[3]
    assert [one.queries for one in large.runs] == [100, 100]
    assert (large.cost("queries"), large.cost("repeats"), large.cost("calls")) == (100, 0, 1)
    low, high = small.mean("fidelity"), large.mean("fidelity")
    assert low is not None
    assert high is not None
    assert gauge.floor()["fidelity"] < low < high <= 1
    assert {name for one in large.runs for name in one.figures} == set(figure_names(()))


def test_a_larger_budget_asks_what_a_smaller_one_asked(gauge: Gauge) -> None:
    """In this process seeds differ in what they ask, and budgets of one seed share it."""
    spy = Spy()
    run(campaign(spy), gauge)
    small_0, small_1, large_0, large_1 = map(set, spy.asked)
    assert small_0 < large_0
    assert small_1 < large_1
    assert small_0 != small_1


def test_a_live_target_is_asked_for_no_more_than_the_last_budget(gauge: Gauge) -> None:
    """All runs ask the beginning of the pool, so answers are paid for once."""
    spy = Spy()
    run(campaign(spy, is_live=True, seeds=3), gauge)
    assert [len(set(asked)) for asked in spy.asked] == [40] * 3 + [100] * 3
    for asked in spy.asked:
        assert set(asked) == set(POOL.inputs[: len(asked)])


def test_costs_are_those_of_one_attack(gauge: Gauge) -> None:
    """Money counts answers at the stated price; requests to a live target hold 64 inputs."""
    price = Price(per_input=0.5)
    here = run(campaign(Spy(), budgets=(600,), price=price), gauge)[-1]
    there = run(campaign(Spy(), is_live=True, budgets=(600,), price=price), gauge)[-1]
    assert (here.cost("money"), there.cost("money")) == (300.0, 300.0)
    assert (here.cost("calls"), there.cost("calls")) == (3, 10)
    assert here.cost("seconds") > here.cost("asking_s") > 0


def test_a_victim_that_stops_leaves_a_partial_row(gauge: Gauge) -> None:
    """What was answered is scored, the row says why it is partial, and nothing more is asked."""
    spy = Spy(most=2 * 40 + 256)
    found = run(campaign(spy, budgets=(40, 300, 500)), gauge)
    assert [row.budget for row in found] == [40, 40, 300]
    assert found[1].partial == ""
    last = found[-1]
    assert (last.partial, last.cost("queries")) == ("slow down", 256)
    assert last.mean("fidelity") is not None
    assert len(spy.asked) == 3


def test_rows_are_kept_when_a_later_run_gets_nothing(gauge: Gauge) -> None:
    """A run without any answer has no figures, only its reason."""
    found = run(campaign(Spy(most=80, error=EncoderError("it is down"))), gauge)
    assert [(row.budget, len(row.runs)) for row in found] == [(40, 1), (40, 2), (100, 1)]
    last = found[-1]
    assert (last.partial, last.mean("fidelity"), last.runs[0].figures) == ("it is down", None, {})
    assert last.interval("fidelity") is None


def test_nothing_to_keep_is_an_error(gauge: Gauge) -> None:
    """A victim that refuses the very first call ends in its own error."""
    with pytest.raises(ThrottledError, match="slow down"):
        run(campaign(Spy(most=0)), gauge)


def test_failures_that_are_ours_are_not_hidden(gauge: Gauge) -> None:
    """An error that is none of Tollkeeper's is no partial row."""
    with pytest.raises(KeyError):
        run(campaign(Spy(most=90, error=KeyError("a bug"))), gauge)


def test_progress_says_what_is_run(gauge: Gauge) -> None:
    """Steps of an attack come with their budget and seed, and scoring is a step."""
    told: list[tuple[str, str]] = []

    def note(label: str, step: Step) -> None:
        told.append((label, step.phase))

    list(
        rows(
            campaign(Spy(), budgets=(1000,), seeds=1, pool=_many()),
            gauge,
            clock=FakeClock(),
            told=note,
        )
    )
    assert told[0] == ("1,000 queries, seed 1 of 1", "asking")
    assert told[-1] == ("1,000 queries, seed 1 of 1", "scoring")


def _many() -> Pool:
    return Pool("many", [f"word{n} word{n + 1}" for n in range(1000)], None)


def test_images_get_a_floor_that_never_asked(gauge: Gauge) -> None:
    """After the seeds of a budget its row comes again, with a network trained by itself."""
    pool = Pool("blobs", blobs(80), None)
    victim = in_process(TOY)
    attack = Direct(network=CONV, schedule=Schedule(epochs=1, batch=16))
    measured = yardstick(victim.clean, inputs=blobs(30, seed=1))
    images = gauge_for(measured, blank_copy(attack, victim.encoder.dim, pool.inputs))
    plan = Campaign(attack=attack, victim=victim, pool=pool, budgets=(32, 64), seeds=1)
    found = run(plan, images)
    assert [row.self_trained is None for row in found] == [True, False, True, False]
    assert set(found[1].self_trained or ()) == set(figure_names(()))


def test_a_floor_that_cannot_be_trained_costs_no_row() -> None:
    """An attack without a schedule, or with one too fast for SimCLR, keeps what it has."""
    victim = in_process(TOY)
    fast = Schedule(epochs=1, batch=16, rate=1e30, optimizer=SGD())
    attack = Direct(objective=Zero(), network=CONV, schedule=fast)
    pool = Pool("blobs", blobs(40), None)
    measured = yardstick(victim.clean, inputs=blobs(30, seed=1))
    images = gauge_for(measured, blank_copy(attack, victim.encoder.dim, pool.inputs))
    plan = Campaign(attack=attack, victim=victim, pool=pool, budgets=(32,), seeds=1)
    last = run(plan, images)[-1]
    assert last.self_trained == {}
    assert last.mean("fidelity") is not None


def test_fidelity_lies_between_untrained_and_victim() -> None:
    """With tasks it is the gained accuracy over what the victim gained, as a plain loop has it."""
    labels = np.arange(60) % 3
    texts = [f"word{label} word{label} word{number}" for number, label in enumerate(labels)]
    task = Task("toy", texts[:30], labels[:30], texts[30:], labels[30:])
    measured = yardstick(ToyTextVictim(), tasks=[task], inputs=HELD)
    assert (measured.tasks, measured.asked) == (("toy",), 60 + len(set(HELD)))
    made = gauge_for(measured, Copy(1))
    figures = made.figures(Copy(100))
    gained = figures["accuracy.toy"] - made.untrained.accuracy["toy"]
    best = measured.victim.accuracy["toy"] - made.untrained.accuracy["toy"]
    assert figures["fidelity"] == pytest.approx(gained / best)
    assert made.floor()["fidelity"] == 0
    assert set(figures) == set(figure_names(["toy"]))
    with pytest.raises(BenchError, match="no better"):
        gauge_for(measured, ToyTextVictim())


def test_labels_go_to_attacks_that_need_them() -> None:
    """Supervised contrast gets the pool's classes, of the part that a live target is asked for."""
    attack = Direct(objective=SupCon(), network=CONV, schedule=Schedule(epochs=1, batch=16))
    images = blobs(60)
    with pytest.raises(ConfigurationError, match="blobs has none"):
        check_plan(attack, Pool("blobs", images, None), (10,), accounts=1, seeds=1)
    pool = Pool("blobs", images, np.arange(60) % 3)
    check_plan(attack, pool, (10,), accounts=1, seeds=1)
    victim = in_process(TOY)
    live = replace(victim, spend=Spend)
    made = gauge_for(
        yardstick(victim.clean, inputs=blobs(30, seed=1)), blank_copy(attack, 16, images)
    )
    plan = Campaign(attack=attack, victim=live, pool=pool, budgets=(32,), seeds=1)
    assert run(plan, made)[-1].runs[0].queries == 32


def test_a_plan_that_cannot_be_run_is_refused() -> None:
    """Budgets fit views, accounts and the pool; messages name the limits."""
    for budgets, accounts, seeds, named in (
        ((0,), 1, 1, "1 to 700"),
        ((40, 701), 1, 1, "got 701"),
        ((701,), 2, 1, "1 to 700"),
        ((40,), 1, 0, "got 0"),
    ):
        pool = Pool("toy", [f"text {n}" for n in range(700)], None)
        with pytest.raises(ConfigurationError, match=named):
            check_plan(Fast(), pool, budgets, accounts=accounts, seeds=seeds)
    check_plan(Fast(), pool, (1, 700), accounts=1, seeds=1)
    check_plan(Mapped(inner=Fast(), anchors=10), pool, (710,), accounts=2, seeds=1)
    with pytest.raises(ConfigurationError, match="1 to 710"):
        check_plan(Mapped(inner=Fast(), anchors=10), pool, (711,), accounts=2, seeds=1)


def test_a_fifth_is_held_out_and_no_more_than_500() -> None:
    """Held-out inputs are not in the attacker's pool, and there have to be more than ten."""
    pool, held = hold_out(Pool("toy", list(map(str, range(100))), np.arange(100)))
    assert (len(pool.inputs), len(held)) == (80, 20)
    assert pool.labels is not None
    assert not set(pool.inputs) & set(held)
    assert len(pool.labels) == 80
    assert len(hold_out(Pool("large", list(map(str, range(9000))), None))[1]) == HELD_OUT
    with pytest.raises(ConfigurationError, match="at least 55 inputs in small"):
        hold_out(Pool("small", list(map(str, range(54))), None))


def test_a_network_that_cannot_be_used_is_refused_before_asking() -> None:
    """Sizes that torch refuses, and a network that reads images, end in one line."""
    for network in (NGram(buckets=0), ConvNet()):
        attack = Direct(network=network)
        with pytest.raises(ConfigurationError, match="network cannot be used"):
            blank_copy(attack, 16, POOL.inputs)


def test_rows_state_mean_and_range_over_seeds() -> None:
    """Three seeds give the range of a figure, fewer give no interval."""
    runs = [Run(seed, {"fidelity": value}) for seed, value in enumerate((0.2, 0.6, 0.4))]
    row = Row(10, tuple(runs))
    assert row.mean("fidelity") == pytest.approx(0.4)
    assert row.interval("fidelity") == (0.2, 0.6)
    assert Row(10, tuple(runs[:2])).interval("fidelity") is None
    assert row.mean("recall10") is None
