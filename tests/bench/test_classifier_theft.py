"""Experiment `classifier-theft`: every attack on classifiers runs, and none is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from tollkeeper.attacks import names
from tollkeeper.bench.predict.classifier_theft import (
    EXPERIMENT,
    OUTPUTS,
    Job,
    Stage,
    run,
)
from tollkeeper.bench.predict.scene import Scene
from tollkeeper.bench.predict.victims import train_victim
from tollkeeper.bench.theft.payload import shared

pytestmark = pytest.mark.torch

SETTING = replace(EXPERIMENT.scales["smoke"], budgets=(40,), data_free=2500)


def _scene(rng: np.random.Generator) -> Scene:
    """Return pictures of two classes, one bright above and one below."""

    def dealt(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 2, count)
        images = rng.uniform(0, 0.2, (count, 1, 28, 28)).astype(np.float32)
        images[labels == 0, :, :14] += 0.7
        images[labels == 1, :, 14:] += 0.7
        return images, labels

    (train, said), (honest, known), (pool, grouped) = dealt(200), dealt(60), dealt(80)
    none = np.empty((0, 1, 28, 28), np.float32)
    return Scene(
        "mnist", ("0", "1"), train, said, honest, known, none, none, dealt(20)[0], none,
        pool, grouped, none, np.empty(0, np.int64),
    )  # fmt: skip


@pytest.mark.parametrize("attack", ["knockoff-adaptive", "knockoff-rotating", "jbda", "dfme"])
def test_each_kind_of_attack_is_given_what_it_needs(attack: str) -> None:
    """Labels of the pool, accounts, seeds, or nothing but a budget; labels copy too."""
    rng = np.random.default_rng(0)
    scene = _scene(rng)
    victim = train_victim(scene, replace(SETTING.training, epochs=12, batch=32), rng=rng)
    setting = replace(SETTING, epochs=1 if attack == "dfme" else 80)
    with shared(Stage(scene, victim)) as payload:
        budget = 2500 if attack == "dfme" else 40
        for output in OUTPUTS:
            found = run(Job(payload, setting, attack, output, budget, 0, 0))
            assert found["copy_accuracy"] > 0.8 or attack == "dfme"
            assert 0 <= found["copy_agreement"] <= 1


def test_every_attack_on_classifiers_is_measured() -> None:
    """A new one in the table is in the experiment too."""
    assert set(EXPERIMENT.attacks) == set(names.of("classifier"))
