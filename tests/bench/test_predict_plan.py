"""Plans of the prediction experiments can be carried out with the data sets at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

from tollkeeper.bench.predict import (
    classifier_theft,
    prediction_responses,
    same_ablation,
    same_addon,
    same_detection,
    same_ratio,
)
from tollkeeper.bench.predict.defenders import Fitting
from tollkeeper.bench.predict.plan import Plan
from tollkeeper.bench.predict.scene import CASTS, Sizes
from tollkeeper.bench.predict.streams import EVERYONE
from tollkeeper.detectors.lab.mae import MaskedAutoencoder
from tollkeeper.detectors.tails import FEWEST

pytestmark = pytest.mark.torch

AT_HAND = {
    "mnist": 70_000,
    "cifar10": 30_000,
    "cifar100": 12_000,
    "emnist_letters": 46_800,
    "kmnist": 10_000,
    "tiny_imagenet": 10_000,
}
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
PLANNED = (same_ablation, same_addon, same_detection, same_ratio)


def plans() -> Iterator[tuple[str, str, Any, Plan]]:
    """Yield every plan with its experiment's scale, setting and data set."""
    for module in PLANNED:
        for scale, setting in module.EXPERIMENT.scales.items():
            for dataset in setting.datasets:
                name = f"{module.EXPERIMENT.id}-{scale}"
                yield name, dataset, setting, setting.plans[dataset]


def sizes() -> Iterator[tuple[str, str, Sizes]]:
    """Yield the sizes of every experiment that deals out a scene."""
    for name, dataset, _, plan in plans():
        yield name, dataset, plan.sizes
    for setting in classifier_theft.EXPERIMENT.scales.values():
        yield "classifier-theft", setting.dataset, setting.sizes
    for responses in prediction_responses.EXPERIMENT.scales.values():
        yield "prediction-responses", "mnist", responses.sizes


@pytest.mark.parametrize(("name", "dataset", "wanted"), sizes())
def test_there_are_enough_images(name: str, dataset: str, wanted: Sizes) -> None:
    """No part of any scale asks for more images than the data sets have."""
    del name
    own = (
        wanted.train + wanted.honest + wanted.calibration + wanted.seeds + wanted.insider
    ) + wanted.reference
    assert own <= AT_HAND[dataset]
    assert wanted.pool <= AT_HAND[CASTS[dataset].thief[0]]
    assert wanted.outside <= AT_HAND[CASTS[dataset].outside[0]]


@pytest.mark.parametrize(("name", "dataset", "setting", "plan"), plans())
def test_every_autoencoder_can_be_built(name: str, dataset: str, setting: Any, plan: Plan) -> None:
    """Patches and heads fit the pictures and widths of every scale, and budgets are in order."""
    del name
    plan.check(dataset)
    fitting = plan.fitting
    for width in (fitting.mae_width, *getattr(setting, "widths", ())):
        for patch in (fitting.mae_patch, fitting.fused_patch):
            built(replace(fitting, mae_width=width, mae_patch=patch), plan, SHAPES[dataset])


def built(fitting: Fitting, plan: Plan, shape: tuple[int, int, int]) -> MaskedAutoencoder:
    """Return an autoencoder of one block, as wide as planned."""
    layout = fitting.recipe(plan.training).mae.layout
    shallow = replace(layout, encoder=1, decoder=1)
    return MaskedAutoencoder(shape, shallow)


@pytest.mark.parametrize(("name", "dataset", "setting", "plan"), plans())
def test_the_fused_score_knows_tails_of_classes(
    name: str, dataset: str, setting: Any, plan: Plan
) -> None:
    """At all scales but the smallest, calibration of the fused score has enough of each class."""
    del dataset, setting
    if not name.endswith("smoke"):
        assert plan.sizes.reference * 2 // 5 // 10 >= 1.5 * FEWEST


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_copies_are_trained_as_the_product_trains_them(dataset: str) -> None:
    """No thief learns less from its answers here than with `for_two_cores`."""
    from tollkeeper.attacks.classifier.presets import for_two_cores, jbda

    wanted, copying = for_two_cores(jbda()), same_detection.Setting().plans[dataset].copying
    assert copying.epochs >= wanted.schedule.epochs
    assert copying.rounds >= wanted.rounds.epochs
    assert copying.batch <= wanted.schedule.batch
    assert copying.rate == wanted.schedule.rate


def test_reservoir_and_turns_of_papernot_act_at_the_budget_judged() -> None:
    """With its own seeds, the largest budget lasts beyond the round in which its step turns."""
    from tollkeeper.attacks.classifier.presets import jbda_papernot

    attack, plan = jbda_papernot(), same_detection.Setting().plans["mnist"]
    count, rounds = attack.seeds, 0
    while rounds < attack.flip_every:
        count += min(count, attack.reservoir if rounds >= attack.reservoir_after else count)
        rounds += 1
    assert EVERYONE["jbda_papernot"].whole
    assert attack.seeds <= plan.sizes.seeds
    assert count < max(plan.budgets)
