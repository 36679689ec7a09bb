"""The experiment `dataset-inference` on made-up pictures, from the first image to the tables."""

from __future__ import annotations

import time
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest

from tollkeeper.data import Dataset
from tollkeeper.errors import ConfigurationError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from tollkeeper.bench.experiment import Context, Measurement  # noqa: E402 - torch may be missing
from tollkeeper.bench.ownership import scene as scenes  # noqa: E402
from tollkeeper.bench.ownership.dataset_inference import (  # noqa: E402
    EXPERIMENT,
    SMOKE,
    Setting,
    measure,
)

TINY = replace(
    SMOKE,
    references=3,
    probe_train=40,
    probe_test=20,
    budgets=(20, 80),
    epochs=30,
    copy_epochs=2,
    hides=("none", "affine", "prune"),
    resplits=20,
)

TOO_SMALL = ("z.",)


def coarse(name: str, split: str) -> Dataset:
    """Return pictures of 4 by 4 random squares: what is over-fitted to is the picture alone."""
    count, side = (3600 if name == "cifar10" and split == "train" else 400), 16
    rng = np.random.default_rng([*name.encode(), *split.encode()])
    small = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    images = small.repeat(side // 4, axis=1).repeat(side // 4, axis=2)
    return Dataset(name, split, images, rng.integers(0, 2, count), ("one", "other"))


def context(told: list[str]) -> Context:
    """Return a context that keeps what progress is told."""
    return Context(seed=0, clock=time.perf_counter, progress=lambda *step: told.append(step[2]))


@pytest.mark.slow
def test_the_experiment_finds_the_victim_and_keeps_its_promises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every promised metric is there, the victim's effect is large, and nobody is accused."""
    monkeypatch.setattr(scenes, "load_images", coarse)
    told: list[str] = []
    found: Measurement = measure(TINY, context(told))
    for promise in EXPERIMENT.promises:
        if not promise.startswith(TOO_SMALL):
            assert any(fnmatchcase(name, promise) for name in found.metrics), promise
    effects = {name: metric.value for name, metric in found.metrics.items()}
    assert effects["effect.victim"] > 0.3
    assert effects["effect.victim"] > 3 * abs(effects["effect.independent.same"])
    assert effects["effect.independent.held"] < -0.2
    assert effects["false_accusation_rate"] <= 0.01
    assert {"cifar10/train", "cifar100/train"} <= set(found.data)
    assert "judging victim" in told
    assert EXPERIMENT.report is not None
    assert "obfuscation" in EXPERIMENT.report(found.metrics).lower()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (replace(TINY, budgets=(80, 20)), "ascending budgets"),
        (replace(TINY, same=0), "at least one claim"),
        (replace(TINY, hides=("affine",)), "expected none and others"),
    ],
)
def test_a_setting_that_cannot_be_run_is_refused(wrong: Setting, why: str) -> None:
    """What does not fit is said before any data is read."""
    with pytest.raises(ConfigurationError, match=why):
        measure(wrong, context([]))


def test_the_full_scale_has_enough_of_everybody() -> None:
    """At least ten thieves and twenty independents are judged, and the sizes fit CIFAR-10."""
    full = Setting()
    roster = full.roster()
    assert len([one for one in roster if one.role == "thief"]) >= 10
    assert len([one for one in roster if one.role == "independent"]) >= 20
    assert len([one for one in roster if one.name.startswith(("same.", "reference."))]) >= 20
    sizes = full.sizes()
    fixed = 2 * sizes.claims * sizes.block + sizes.references * sizes.block
    fixed += sizes.public + sizes.probe_train + sizes.probe_test
    assert fixed + max(sizes.pool, full.same * sizes.block) <= 29_900
    assert len(full.hiding()) == 3
