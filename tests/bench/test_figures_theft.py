"""Thefts of `guard-figures`: which are made, through what, and what they make of the price."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch")
pytest.importorskip("sklearn")

from tollkeeper.attacks.names import ATTACKS, Entry, of  # noqa: E402
from tollkeeper.attacks.sybil.canary import StopAtNoise  # noqa: E402
from tollkeeper.bench.experiment import Metric  # noqa: E402
from tollkeeper.bench.figures import prices, theft, toolkit, ways  # noqa: E402
from tollkeeper.bench.figures.guard_figures import EXPERIMENT  # noqa: E402
from tollkeeper.bench.figures.plan import SCENES, Job, Plan  # noqa: E402
from tollkeeper.bench.guard_coverage import Samples  # noqa: E402
from tollkeeper.bench.theft.payload import Payload, shared  # noqa: E402
from tollkeeper.bench.theft.pools import Pool  # noqa: E402
from tollkeeper.bench.theft.scoring import score, task_reference  # noqa: E402
from tollkeeper.bench.theft.stage import Stage  # noqa: E402
from tollkeeper.bench.theft.tasks import Task  # noqa: E402
from tollkeeper.encoders.load import load_encoder  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.testing.victims import sentences  # noqa: E402

PLAN = Plan(budgets=(60, 120), guarded=120, attacked=60, pool=150, epochs=1, seeds=1, workers=1)
POOLS = {
    "text": Pool("texts", sentences(150), None),
    "image": Pool("images", np.zeros((150, 32, 32, 3), np.uint8), np.zeros(150, np.int64)),
}


@pytest.fixture(scope="module")
def stage() -> Stage:
    """Return the built-in text encoder, made-up texts, and a task that the encoder can do."""
    encoder, texts = load_encoder("builtin:text"), sentences(160, seed=1)
    rows = encoder.embed(texts)
    labels = (rows - rows.mean(axis=0))[:, :4].argmax(axis=1)
    task = Task("banking77", texts[:100], labels[:100], texts[100:], labels[100:])
    references = (task_reference(encoder, task),)
    answers = encoder.embed(POOLS["text"].inputs)
    return Stage("builtin:text", POOLS["text"], answers, references, score(encoder, references))


@pytest.fixture(scope="module")
def payload(stage: Stage) -> Iterator[Payload[Stage]]:
    """Lay the stage out for workers."""
    with shared(stage) as laid:
        yield laid


def job(payload: Any, way: str, *, profile: str = "recommended", budget: int = 120) -> Job:
    """Return a theft of the text encoder."""
    return Job(payload, PLAN, "text", profile, way, budget, 0)


def toolkit_jobs(payload: Any = None) -> list[Job]:
    """Return the thefts by attacks of the toolkit of both encoders."""
    return [
        one for encoder, pool in POOLS.items() for one in toolkit.jobs(payload, encoder, PLAN, pool)
    ]


def test_every_attack_of_the_toolkit_is_in_the_figures() -> None:
    """Each is run with and without a guard wherever it can be, and the experiment says so."""
    made = {(one.encoder, one.way, one.profile) for one in toolkit_jobs()}
    assert {way for _, way, _ in made} == set(EXPERIMENT.attacks) == set(of("encoder"))
    for name, entry in of("encoder").items():
        on = {encoder for encoder, way, _ in made if way == name}
        assert on == {one for one in entry.accepts if name not in toolkit.left_out(one, POOLS[one])}
    assert len(made) == len(toolkit_jobs())
    assert {(e, w, "none") for e, w, _ in made} | {
        (e, w, "recommended") for e, w, _ in made
    } == made
    assert toolkit.left_out("text", POOLS["text"]) == {
        "direct-supcon": "needs labels, and texts has none"
    }
    assert set(POOLS) == set(SCENES)


def test_an_attack_that_no_encoder_takes_is_not_said_to_be_covered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test above fails for one, and so does `bench audit`."""
    entry = Entry("presets:mse", "of tokens", "ours", frozenset({"tokens"}))
    monkeypatch.setattr(toolkit, "ATTACKS", {**ATTACKS, "token-theft": entry})
    assert "token-theft" not in toolkit.metrics()
    assert "token-theft" not in {one.way for one in toolkit_jobs()}


def test_copies_by_attacks_have_the_names_that_are_promised() -> None:
    """Two metrics an attack and encoder, one of which the audit looks for; one run has no spread."""
    samples = Samples()
    theft._add_attacks([(one, {"fidelity": 0.5}) for one in toolkit_jobs()], samples)
    names = set(samples.metrics())
    assert all(metric.interval is None for metric in samples.metrics().values())
    assert "theft_attack.text.merged-inputs.open" in names
    assert "theft_attack.image.rda.recommended" in names
    for attack, pattern in EXPERIMENT.attacks.items():
        assert any(fnmatchcase(name, pattern) and attack in name for name in names)


def test_averaging_asks_ten_times_and_spends_once(payload: Payload[Stage]) -> None:
    """Repeats are told beside the budget; three greedy thieves share it."""
    averaged = theft.work(job(payload, "averaged", profile="b4b-2023"))
    assert (averaged["queries"], averaged["repeats"], averaged["accounts"]) == (120, 1080, 1)
    greedy = theft.work(job(payload, "greedy3"))
    assert (greedy["queries"], greedy["repeats"], greedy["accounts"]) == (120, 0, 3)


@pytest.mark.parametrize("name", ["stop-at-noise", "sybil-stop"])
def test_attacks_of_the_toolkit_are_run_as_they_are(payload: Payload[Stage], name: str) -> None:
    """The guard is all the difference: as many accounts with it as without."""
    both = [theft.work(job(payload, name, profile=one, budget=60)) for one in toolkit.PROFILES]
    assert [one["accounts"] for one in both] == [1 + (name == "sybil-stop")] * 2
    assert [one["queries"] for one in both] == [60, 60]
    assert min(one["repeats"] for one in both) > 0


def test_only_thieves_that_go_on_have_no_canary(stage: Stage, payload: Payload[Stage]) -> None:
    """Everyone else leaves an account in time; each way of the table is one of the plan."""
    asked = [one for one in theft.jobs(payload, "text", PLAN) if one.way != "open"]
    assert {(one.profile, one.way) for one in asked} == {
        (profile, way) for profile in PLAN.profiles for way in ways.WAYS[profile]
    }
    going_on = {*ways.ALONE, *ways.SEVERAL}
    for one in asked:
        thief = ways.thief(one, stage)
        assert isinstance(thief.attack, StopAtNoise) == (one.way not in going_on)
        assert thief.accounts >= thief.attack.least_accounts


def test_attacks_above_the_pool_are_refused() -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigurationError, match="and 151 of each attack"):
        Plan(budgets=(100,), guarded=100, pool=150, attacked=151).check()


def metrics(**shares: float) -> dict[str, Metric]:
    """Return an undefended curve, clean prices of 6 and 5 accounts, and shares of copies."""
    curve = {1000: 0.4, 2000: 0.75, 4000: 0.8}
    values = {f"theft.text.none.open.n{count}": value for count, value in curve.items()}
    values |= {"accounts_random.text.r.n2000": 6.0, "accounts_sharded.text.r.n2000": 5.0}
    values |= {f"theft_share.text.r.{way}": share for way, share in shares.items()}
    return {name: Metric(value, "any", "lower") for name, value in values.items()}


@pytest.mark.parametrize(
    ("shares", "price"),
    [
        ({"greedy": 0.5}, 5.0),
        ({"greedy": 0.5, "merged": 0.89}, 5.0),
        ({"greedy": 0.5, "greedy3": 0.95}, 3.0),
        ({"greedy": 0.5, "greedy3": 0.95, "averaged": 0.9}, 1.0),
        ({"greedy": 0.5, "merged": 1.01}, 1.0),
        ({"greedy": 0.93}, 1.0),
        ({"greedy": 0.5, "trunk": 1.0}, 5.0),
    ],
)
def test_the_price_is_that_of_the_best_thief(shares: dict[str, float], price: float) -> None:
    """The fewest accounts among ways that go on and are good enough, and those that leave."""
    found = dict(prices.prices(metrics(**shares), ["text"], ["r"], (1000, 2000, 4000)))
    assert found["queries_wanted.text"].value == 2000
    assert found["price_accounts.text.r"].value == price


def test_several_accounts_can_cost_less_to_leave_than_to_keep() -> None:
    """Three that go on are no bargain where two clean ones do."""
    cheap = metrics(greedy3=1.0) | {"accounts_sharded.text.r.n2000": Metric(2.0, "any", "lower")}
    assert prices.accounts(cheap, "text", "r", 2000) == 2


def test_where_nothing_was_stolen_there_is_no_price() -> None:
    """Curves at or below the floor, and no curve at all, yield nothing."""
    flat = {"theft.text.none.open.n1000": Metric(-0.1, "any", "lower")}
    assert not list(prices.prices(flat, ["text"], ["r"], (1000,)))
    assert not list(prices.prices({}, ["text"], ["r"], (1000,)))
