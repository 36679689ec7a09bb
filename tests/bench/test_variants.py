"""Variants of theft side by side: what is equal between them, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.attacks.base import Attack  # noqa: E402 - torch may be missing
from tollkeeper.attacks.cont_steal import ContSteal  # noqa: E402
from tollkeeper.attacks.direct import Direct  # noqa: E402
from tollkeeper.attacks.objectives.cosine import Cosine  # noqa: E402
from tollkeeper.attacks.text import TextDistillation  # noqa: E402
from tollkeeper.attacks.two_views import TwoViews  # noqa: E402
from tollkeeper.bench.experiment import Context  # noqa: E402
from tollkeeper.bench.theft import variants  # noqa: E402
from tollkeeper.bench.theft.payload import Payload, shared  # noqa: E402
from tollkeeper.bench.theft.perturb import Noise, TopK  # noqa: E402
from tollkeeper.bench.theft.pools import Pool  # noqa: E402
from tollkeeper.bench.theft.scoring import score, task_reference  # noqa: E402
from tollkeeper.bench.theft.stage import Outcome, Stage  # noqa: E402
from tollkeeper.bench.theft.tasks import Task  # noqa: E402
from tollkeeper.bench.theft.variants import (  # noqa: E402
    Trial,
    Variant,
    defended,
    lineup,
    not_above_floors,
    ready,
    run_variants,
    summarize,
)
from tollkeeper.lab.fit import Schedule  # noqa: E402
from tollkeeper.testing.clock import FakeClock  # noqa: E402
from tollkeeper.testing.victims import ToyImageVictim, ToyTextVictim, blobs  # noqa: E402

pytestmark = pytest.mark.torch

TRIAL = Trial(tasks=("toy",), budget=60, seeds=2, examples=120, batch=30, workers=1)


def labeled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images with the class of their brightest color."""
    images = blobs(count, seed=seed, side=32)
    return images, images.mean(axis=(1, 2)).argmax(axis=1).astype(np.int64)


@pytest.fixture(scope="module")
def stage() -> Stage:
    """Return a toy victim, a pool of a hundred images and one task."""
    victim = ToyImageVictim()
    task = Task("toy", *labeled(150, 1), *labeled(60, 2))
    references = (task_reference(victim, task),)
    images, labels = labeled(100, 0)
    return Stage(
        spec="python:tollkeeper.testing.victims:ToyImageVictim",
        pool=Pool("toy", images, labels),
        answers=victim.embed(images),
        references=references,
        victim=score(victim, references),
    )


@pytest.fixture(scope="module")
def payload(stage: Stage) -> Iterator[Payload[Stage]]:
    """Lay the stage out for workers."""
    with shared(stage) as laid:
        yield laid


def context() -> Context:
    """Return a silent context."""
    return Context(0, FakeClock(step=1.0), lambda *_: None)


def make(trial: Trial, stage: Stage) -> list[Variant]:
    """Return one thief, open and behind two defenses."""
    del trial, stage
    thief = Variant("cosine", Direct(objective=Cosine()))
    return list(defended([thief], {"top_k": TopK(1), "noise": Noise(3.0)}))


def test_variants_see_equal_numbers_of_examples() -> None:
    """Epochs make up for few images with many views, and for steps of several copies."""

    def rows_seen(attack: Attack, copies: int = 1) -> int:
        trained: Any = ready(attack, Variant("any", attack, copies=copies), TRIAL)
        inputs = TRIAL.budget // attack.asks_per_input
        return inputs * copies * int(trained.schedule.epochs)

    assert rows_seen(Direct()) == TRIAL.examples
    assert rows_seen(ContSteal(views=10)) == TRIAL.examples
    assert rows_seen(TwoViews(), copies=2) == TRIAL.examples


def test_a_variant_keeps_its_method_and_takes_network_and_rate() -> None:
    """Objective and views stay; network and schedule are the trial's, the rate may be its own."""
    attack = ContSteal(views=5)
    trained = ready(attack, Variant("any", attack, rate=0.5), TRIAL)
    assert isinstance(trained, ContSteal)
    assert (trained.views, trained.objective) == (5, attack.objective)
    assert trained.network == variants.NETWORKS["convnet"]
    assert (trained.schedule.rate, trained.schedule.batch) == (0.5, TRIAL.batch)


def test_without_examples_the_published_schedule_stays() -> None:
    """At scale gpu the trial changes the network only."""
    published = Schedule(epochs=7, batch=5, rate=0.1)
    attack = Direct(schedule=published)
    trial = replace(TRIAL, examples=0, network="resnet18")
    trained = ready(attack, Variant("any", attack), trial)
    assert isinstance(trained, Direct)
    assert trained.schedule == published
    assert trained.network == variants.NETWORKS["resnet18"]


def test_defenses_multiply_thieves_and_honest_users() -> None:
    """Every thief runs open and behind each defense; each defense has one honest user."""
    thieves = [Variant("a", Direct()), Variant("b", Direct(), copies=2)]
    found = {one.name: one for one in defended(thieves, {"noise": Noise(), "top_k": TopK()})}
    assert set(found) == {
        *("a", "b", "a_noise", "b_noise", "a_top_k", "b_top_k"),
        *("honest_noise", "honest_top_k"),
    }
    assert found["b_noise"].copies == 2
    assert isinstance(found["b_noise"].perturbation, Noise)
    assert found["a"].perturbation is None
    assert found["honest_top_k"].attack is None


def test_text_has_no_floor_of_views(stage: Stage) -> None:
    """The self-trained floor needs images; the untrained one is always there."""
    texts = replace(stage, pool=Pool("texts", ["one", "two"], None))
    thief = [Variant("t", TextDistillation())]
    assert set(lineup(TRIAL, texts, lambda *_: thief)) == {"floor_untrained", "t"}
    assert set(lineup(TRIAL, stage, lambda *_: thief)) == {"floor_untrained", "floor_ssl", "t"}


@pytest.fixture(scope="module")
def outcomes(stage: Stage, payload: Payload[Stage]) -> dict[str, Sequence[Outcome]]:
    """Run every toy variant with two seeds."""
    return dict(run_variants(TRIAL, context(), make, lineup(TRIAL, stage, make), payload))


def test_floors_ask_nothing_and_thieves_spend_the_budget(
    outcomes: dict[str, Sequence[Outcome]],
) -> None:
    """A floor costs no query; every thief costs the same."""
    assert {one.queries for name in ("floor_untrained", "floor_ssl") for one in outcomes[name]} == {
        0
    }
    thieves = ("cosine", "cosine_top_k", "cosine_noise")
    assert {one.queries for name in thieves for one in outcomes[name]} == {TRIAL.budget}


def test_a_defense_reaches_thief_and_honest_user(
    outcomes: dict[str, Sequence[Outcome]],
) -> None:
    """Heavy noise costs the honest user neighbors, and the copy likeness to the clean victim."""
    assert outcomes["honest_noise"][0].scores["recall10"] < 0.6
    open_, noisy = (
        np.mean([one.scores["centered_cosine"] for one in outcomes[name]])
        for name in ("cosine", "cosine_noise")
    )
    assert noisy < open_


def test_seeds_matter_and_runs_repeat(
    stage: Stage, payload: Payload[Stage], outcomes: dict[str, Sequence[Outcome]]
) -> None:
    """Two seeds give two copies; the same seed gives the same copy again."""
    first, second = outcomes["cosine"]
    assert first.scores["centered_cosine"] != second.scores["centered_cosine"]
    again = run_variants(TRIAL, context(), make, ["cosine"], payload)["cosine"]
    assert [one.scores for one in again] == [one.scores for one in outcomes["cosine"]]


def test_metrics_are_relative_to_the_victim() -> None:
    """Accuracy is divided by the victim's; floors have no likeness to it; honest users do."""
    some = [
        Outcome(
            {"accuracy.toy": value, "agreement.toy": 0.5, "recall10": 0.2, "centered_cosine": 0.1}
        )
        for value in (0.2, 0.3, 0.4)
    ]
    found = summarize(
        {"mse": some, "floor_ssl": some[:1]},
        TRIAL,
        {"toy": 0.5},
        also=("agreement",),
        rng=np.random.default_rng(0),
    )
    assert set(found) == {
        "relative_accuracy.mse.toy",
        "relative_accuracy.floor_ssl.toy",
        "agreement.mse.toy",
        "agreement.floor_ssl.toy",
        "recall10.mse",
        "centered_cosine.mse",
    }
    metric = found["relative_accuracy.mse.toy"]
    assert metric.value == pytest.approx(0.6)
    assert metric.interval == pytest.approx((0.4, 0.8))
    assert found["relative_accuracy.floor_ssl.toy"].interval is None


def test_whoever_is_not_above_both_floors_is_named() -> None:
    """A variant is listed with the tasks on which some floor is as good, by means over seeds."""

    def runs(a: float, b: float) -> list[Outcome]:
        return [Outcome({"accuracy.a": a + d, "accuracy.b": b + d}) for d in (-0.1, 0.1)]

    outcomes = {
        "floor_untrained": runs(0.3, 0.5),
        "floor_ssl": runs(0.4, 0.2),
        "good": runs(0.45, 0.55),
        "half": runs(0.35, 0.55),
        "bad": runs(0.4, 0.5),
    }
    assert not_above_floors(outcomes, ("a", "b")) == {"half": ["a"], "bad": ["a", "b"]}
    assert not_above_floors(outcomes, ("b",), floors=("good",)) == {
        name: ["b"] for name in ("floor_untrained", "floor_ssl", "half", "bad")
    }


def test_toy_text_victims_can_be_stolen_from(stage: Stage) -> None:
    """The text network of the table reads what text victims read."""
    attack = TextDistillation()
    trial = replace(TRIAL, network="ngram")
    trained = ready(attack, Variant("text", attack), trial)
    texts = [f"word{number} word{number + 1}" for number in range(60)]
    theft = trained(
        ToyTextVictim(), texts, budget=60, rng=np.random.default_rng(0), clock=FakeClock(step=1.0)
    )
    assert theft.surrogate.embed(texts[:3]).shape == (3, 16)
