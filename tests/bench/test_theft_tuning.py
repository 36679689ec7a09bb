"""Attacks of the table at a scale, and their settings by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

from tollkeeper.attacks import names  # noqa: E402
from tollkeeper.attacks.names import ATTACKS  # noqa: E402
from tollkeeper.attacks.networks.convnet import ConvNet  # noqa: E402
from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.networks.resnet import ResNet  # noqa: E402
from tollkeeper.attacks.selection.k_center import KCenter  # noqa: E402
from tollkeeper.attacks.selection.random import FixedOrder  # noqa: E402
from tollkeeper.bench.theft.tuning import (  # noqa: E402
    described,
    in_pool_order,
    needs_labels,
    part,
    prepared,
    scale_named,
)
from tollkeeper.errors import ConfigurationError  # noqa: E402


def attack(name: str, settings: Mapping[str, str] | None = None, **given: Any) -> Any:
    """Prepare an attack, on images at scale cpu unless told otherwise."""
    scale = scale_named(given.pop("scale", "cpu"))
    return prepared(name, scale=scale, text=given.pop("text", False), settings=settings or {})


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_takes_the_settings_of_its_schedule(name: str) -> None:
    """Epochs, rows per step and rate are set by short names, also inside wrapped attacks."""
    for scale in ("cpu", "gpu"):
        made = attack(name, {"epochs": "3", "batch": "8", "rate": "1e-4"}, scale=scale)
        schedule = part(made, "schedule")
        assert (schedule.epochs, schedule.batch, schedule.rate) == (3, 8, 1e-4)
        told = described(made)
        assert (told["epochs"], told["batch"], told["rate"]) == (3, 8, 1e-4)


def test_networks_fit_scale_and_modality() -> None:
    """Published networks are for images; texts get the n-gram net at every scale."""
    assert isinstance(part(attack("direct-mse"), "network"), ConvNet)
    assert isinstance(part(attack("direct-mse", scale="gpu"), "network"), ResNet)
    assert isinstance(part(attack("direct-mse", text=True), "network"), NGram)
    assert isinstance(part(attack("direct-mse", text=True, scale="gpu"), "network"), NGram)
    assert isinstance(part(attack("sybil-overlap", text=True, scale="gpu"), "network"), NGram)


def test_settings_that_are_told_can_be_set() -> None:
    """Parts of parts have dotted names; the rest of the attack stays as it is."""
    before, changes = attack("stolen-encoder"), {"network.width": "4", "strength": "2.5"}
    after = attack("stolen-encoder", changes)
    assert (after.network.width, after.strength, after.copies) == (4, 2.5, before.copies)
    told = described(before) | {"network.width": 4, "strength": 2.5}
    assert described(after) == told
    assert attack("stolen-encoder", {"schedule.epochs": "2"}).schedule.epochs == 2
    assert attack("sybil-overlap", {"anchors": "7"}).anchors == 7


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("color", "red", "choose network.width"),
        ("network", "3", "no setting 'network'"),
        ("objective", "MSE", "no setting 'objective'"),
        ("epochs", "many", "bad value"),
        ("epochs", "1.5", "bad value"),
        ("batch", "0", "1 row per step"),
        ("rate", "nan", "learning rate above 0"),
    ],
)
def test_bad_settings_are_refused(setting: str, value: str, named: str) -> None:
    """Unknown names, other types and values out of range end in one line."""
    with pytest.raises(ConfigurationError, match=named):
        attack("stolen-encoder", {setting: value})


def test_unknown_names_are_refused() -> None:
    """Attacks, scales and parts that do not exist are named beside those that do."""
    with pytest.raises(ConfigurationError, match="choose cpu, gpu"):
        scale_named("smoke")
    with pytest.raises(ConfigurationError, match="no attack 'theft'"):
        attack("theft")
    with pytest.raises(ConfigurationError, match="has no engine"):
        part(attack("rda"), "engine")


def test_only_supervised_contrast_needs_labels() -> None:
    """No other attack is kept from pools without labels."""
    assert [name for name in ATTACKS if needs_labels(attack(name))] == ["direct-supcon"]


def test_only_a_random_choice_becomes_the_pools_order() -> None:
    """Also of the attack inside; a selection with a will of its own stays."""
    nested = in_pool_order(names.load("sybil-overlap"))
    assert isinstance(part(nested, "selection"), FixedOrder)
    plain: Any = names.load("direct-mse")
    chosen = replace(plain, selection=KCenter())
    assert isinstance(part(in_pool_order(chosen), "selection"), KCenter)
