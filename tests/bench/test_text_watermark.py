"""The experiment on text watermarks as a whole, on made-up texts: names and arithmetic."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.bench.experiment import Context, Measurement  # noqa: E402 - torch may be missing
from tollkeeper.bench.ownership import text_scene  # noqa: E402
from tollkeeper.bench.ownership.text_report import report  # noqa: E402
from tollkeeper.bench.ownership.text_scene import Setting, load_scene  # noqa: E402
from tollkeeper.bench.ownership.text_watermark import EXPERIMENT, measure  # noqa: E402
from tollkeeper.data import Dataset  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402

pytestmark = pytest.mark.torch

SETTING = Setting(
    datasets=("sst2",),
    pool=120,
    probe=60,
    test=60,
    epochs=1,
    seeds=1,
    directions=4,
    rewrites=1,
    decoys=99,
    set_texts=2,
    maps=99,
    draws=99,
    keys=2,
    workers=1,
)


def drawn_texts(name: str, split: str) -> Dataset:
    """Return 240 texts of two sentiments, each with two words of its own and of one other."""
    rng = np.random.default_rng([*name.encode(), *split.encode()])
    labels = rng.integers(0, 2, 240)
    texts = [
        f"{'good fine' if label else 'bad poor'} film about{at % 120} rare{at % 120} and "
        f"{' '.join(f'word{one}' for one in rng.integers(0, 40, 4))}".translate(_LETTERS)
        for at, label in enumerate(labels)
    ]
    return Dataset(name, split, texts, labels, ("negative", "positive"))


_LETTERS = str.maketrans("0123456789", "abcdefghij")
"""Triggers are words of letters."""


@pytest.fixture(autouse=True)
def texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scene load made-up texts."""
    monkeypatch.setattr(text_scene, "load_text", drawn_texts)


def measured(seed: int = 0) -> Measurement:
    """Run the experiment at its smallest."""
    return measure(SETTING, Context(seed, time.perf_counter, lambda *_: None))


@pytest.mark.slow
def test_a_run_keeps_what_it_promises() -> None:
    """Every promise for the data set is there; numbers are finite; a report has all of it."""
    found = measured()
    promises = [one for one in EXPERIMENT.promises if "sst2" in one]

    for promise in promises:
        assert any(fnmatchcase(name, promise) for name in found.metrics), promise
    for mark in ("embmarker", "warden"):
        assert found.metrics[f"log10_p.sst2.{mark}.service.groups"].value >= 2
    assert found.metrics["log10_p.sst2.wet.service.back"].value == 2
    assert found.metrics["log10_p.sst2.wet.truncated.back"].value == 0
    assert set(found.data) == {"sst2/train", "sst2/validation", "sst2/test"}
    shown = report(found.metrics)
    for name in ("`warden` | `cse_permuted`", "`sst2.lsa.ks`", "`sst2.wet`", "p > .08"):
        assert name in shown


def test_the_owner_and_the_thief_share_no_text() -> None:
    """Frequencies and targets are of texts that nobody asks and no copy is judged on."""
    rng = np.random.default_rng(0)
    for name in ("sst2", "ag_news"):
        scene = load_scene(name, SETTING, rng=rng, data={})
        parts = [set(scene.public), set(scene.pool), set(scene.test)]

        assert sum(map(len, parts)) == len(set.union(*parts))
        assert len(scene.pool) == len(scene.labels) == 120
        assert len(scene.words) >= 40


def test_settings_that_cannot_be_measured_are_refused() -> None:
    """No such data set, fewer texts than the probe needs, no seed."""
    rng = np.random.default_rng(0)

    with pytest.raises(ConfigurationError, match="no text scene 'mnist'"):
        load_scene("mnist", SETTING, rng=rng, data={})
    with pytest.raises(ConfigurationError, match="expected 3000 texts, got 240"):
        load_scene("sst2", Setting(), rng=rng, data={})
    with pytest.raises(ConfigurationError, match="at least one seed"):
        measure(Setting(seeds=0), Context(0, time.perf_counter, lambda *_: None))
