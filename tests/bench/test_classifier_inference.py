"""Experiment `classifier-inference` at a tiny size, on made-up pictures."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest

pytest.importorskip("torch")

from tollkeeper.audit.classifiers.margins import Margins
from tollkeeper.audit.dataset_inference import Residuals
from tollkeeper.bench.experiment import Context
from tollkeeper.bench.ownership import classifier_scene
from tollkeeper.bench.ownership.classifier_inference import EXPERIMENT, WHITE, Setting
from tollkeeper.bench.ownership.classifier_judging import _accused, sides
from tollkeeper.bench.ownership.classifier_published import OURS, TABLE_1
from tollkeeper.bench.ownership.classifier_scene import Recipe, load_stage
from tollkeeper.bench.ownership.classifier_suspects import HONEST, THIEVES
from tollkeeper.data import Dataset
from tollkeeper.errors import ConfigurationError

pytestmark = pytest.mark.torch


def _noise(name: str, split: str) -> Dataset:
    """Return 400 pictures whose classes can only be learned by heart."""
    rng = np.random.default_rng([*name.encode(), *split.encode()])
    images = rng.integers(0, 256, (400, 32, 32, 3), dtype=np.uint8)
    return Dataset(name, split, images, rng.integers(0, 10, 400), tuple("0123456789"))


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_scene, "load_images", _noise)


def test_everything_that_is_promised_is_measured() -> None:
    """Every suspect has its figures by both tests, the tables stand, and a victim is found."""
    setting = replace(
        EXPERIMENT.scales["smoke"],
        independents=2,
        references=2,
        starts=1,
        steps=5,
        resplits=5,
        white_steps=10,
    )
    found = EXPERIMENT.measure(setting, Context(0, lambda: 0.0, lambda *_: None))
    for promise in EXPERIMENT.promises:
        assert any(fnmatchcase(name, promise) for name in found.metrics), promise
    for name in (*THIEVES, *HONEST, "independent.1"):
        assert f"effect.{name}" in found.metrics
        assert f"published_p.released.{name}" in found.metrics
    assert not any("reference." in name for name in found.metrics)
    assert found.metrics["p.victim"].value <= 0.001
    assert found.metrics["accuracy.victim.private"].value > 0.6
    assert found.metrics["accuracy.untrained.private"].value < 0.4
    assert EXPERIMENT.report is not None
    tables = EXPERIMENT.report(found.metrics)
    assert "| source |" in tables
    assert "`false_accusation_rate`" in tables


def test_sides_do_not_share_a_picture() -> None:
    """Private, public, exam and fresh pictures are dealt from one shuffled pack."""
    recipe = Recipe(width=4, epochs=1)
    stage = load_stage(100, 50, recipe, rng=np.random.default_rng(0), data={})
    parts = (stage.private, stage.public, stage.exam, stage.fresh)
    assert [len(part) for part in parts] == [100, 100, 50, 550]
    whole = np.concatenate([part.images.reshape(len(part), -1) for part in parts])
    assert len(np.unique(whole, axis=0)) == 800
    assert stage.private.images.shape[1:] == (3, 16, 16)
    with pytest.raises(ConfigurationError, match="lower size"):
        load_stage(300, 50, recipe, rng=np.random.default_rng(0), data={})


def test_published_rows_name_our_suspects() -> None:
    """What stands beside the published table is measured here."""
    assert set(OURS) <= set(TABLE_1)
    assert set(OURS.values()) <= {*THIEVES, *HONEST}
    assert set(WHITE) <= set(Setting().suspects)


def test_re_splits_accuse_copies_and_not_others() -> None:
    """A large effect above all references is derived; the same one on the other side is not."""
    rng = np.random.default_rng(0)
    trained = np.repeat([True, False], 400)
    references = rng.normal(size=(6, 800))
    found = Residuals.of(rng.normal(size=800) + 0.8 * trained, references)
    assert _accused(found, trained)[0]
    assert not _accused(found, ~trained)[0]
    assert _accused(found, rng.permutation(trained))[1] > 1e-4


def test_sides_are_taken_apart() -> None:
    """Each half has the pictures of its side, in their order."""
    margins = Margins(np.arange(12.0).reshape(4, 1, 3), np.ones((4, 1, 3), np.bool_), 0)
    private, public = sides(margins, np.array([True, False, True, False]))
    np.testing.assert_array_equal(private.distances[:, 0, 0], [0, 6])
    np.testing.assert_array_equal(public.distances[:, 0, 0], [3, 9])
