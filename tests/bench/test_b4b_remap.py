"""The b4b-remap experiment: what maps recover, what they cannot, and what is planned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from tollkeeper.attacks.sybil.mappers import Map, Mapper, ProcrustesMapper, RidgeMapper
from tollkeeper.attacks.sybil.network_mappers import Training, TwoLayerMapper
from tollkeeper.bench.experiment import Context
from tollkeeper.bench.theft.b4b_remap import (
    EXPERIMENT,
    Job,
    Setting,
    check,
    measure,
    metrics,
    plan,
)
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.bench.theft.remapping import (
    TRAINED,
    TRANSFORMS,
    Answers,
    Remapped,
    Trial,
    cosine_distance,
    remap,
)
from tollkeeper.errors import ConfigurationError
from tollkeeper.testing.clock import FakeClock
from tollkeeper.types import Embeddings

pytestmark = pytest.mark.torch

DIM = 16


class FakeMapper:
    """Keeps the pairs it was given and maps nothing."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Embeddings, Embeddings]] = []

    def fit(self, source: Embeddings, target: Embeddings, *, rng: np.random.Generator) -> Map:
        """Return the identity."""
        self.pairs.append((source, target))
        return lambda rows: rows


def answers() -> Answers:
    """Return positive embeddings of four classes, 200 of them to train on."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    centers = rng.random((4, DIM))
    rows = np.maximum(centers[labels] + 0.25 * rng.standard_normal((400, DIM)), 0)
    rows = rows.astype(np.float32)
    spread = float(np.sqrt(rows.var(axis=0).mean()))
    return Answers(rows[:200], labels[:200], rows[200:], labels[200:], spread)


def tried(
    transform: str, mapper: Mapper, counts: Sequence[int], *, std: float = 0.0
) -> dict[str, Remapped]:
    """Run a mapper with several numbers of pairs."""
    trials = [Trial(f"n{count}", mapper, count) for count in counts]
    rng = np.random.default_rng(1)
    return remap(answers(), transform, trials, std=std, train=200, rng=rng)


@pytest.mark.parametrize(
    "transform", ["affine", "pad_shuffle", "affine_pad_shuffle", "dense_affine", "orthogonal"]
)
def test_ridge_undoes_affine_maps_with_hardly_more_pairs_than_coordinates(transform: str) -> None:
    """With d + 2 clean pairs every such transform is gone, and A's probe works as on A's view.

    A map has d + 1 unknowns a coordinate; from one pair more the penalty can be chosen.
    """
    found = tried(transform, RidgeMapper(), (4, DIM + 2))
    exact, few = found[f"n{DIM + 2}"], found["n4"]
    assert exact.distance < 1e-4
    assert exact.accuracy == found["reference"].accuracy > 0.85
    assert few.distance > 0.001
    assert found["unmapped"].accuracy < 0.6


@pytest.mark.parametrize("transform", ["pad_shuffle", "orthogonal"])
def test_procrustes_undoes_maps_that_keep_angles(transform: str) -> None:
    """Shuffles and rotations are found exactly."""
    assert tried(transform, ProcrustesMapper(), (DIM + 1,))[f"n{DIM + 1}"].distance < 1e-4


def test_binary_loses_what_no_map_brings_back() -> None:
    """More pairs bring the views closer but never together."""
    found = tried("binary", RidgeMapper(), (20, 200))
    assert found["n20"].distance > found["n200"].distance > 0.02
    assert found["n200"].accuracy > found["unmapped"].accuracy


def test_noise_on_the_pairs_makes_maps_worse() -> None:
    """The more noise, the farther the mapped answers; test answers stay clean."""
    clean, some, much = (
        tried("affine", RidgeMapper(), (60,), std=std)["n60"].distance for std in (0, 0.3, 1)
    )
    assert clean < some < much


def test_both_accounts_ask_the_same_inputs_under_noise_of_their_own() -> None:
    """Pairs are first rows of one order; with noise the two sides are no exact map any more."""
    mapper = FakeMapper()
    tried("orthogonal", mapper, (5, 30))
    tried("orthogonal", mapper, (30,), std=1.0)
    (few, few_target), (source, target), (noised, noised_target) = mapper.pairs
    np.testing.assert_array_equal(few, source[:5])
    np.testing.assert_array_equal(few_target, target[:5])
    # Rotations keep inner products, so these agree between accounts that saw the same rows.
    np.testing.assert_allclose(source @ source.T, target @ target.T, rtol=1e-4)
    assert np.abs(noised @ noised.T - noised_target @ noised_target.T).max() > 0.1
    assert np.abs(noised - source).std() > 0.05


def test_an_identity_map_is_the_unmapped_row() -> None:
    """Both rows show B's answers as they are."""
    found = tried("affine", FakeMapper(), (10,))
    assert found["n10"] == found["unmapped"]
    assert found["reference"].distance == pytest.approx(0, abs=1e-6)


def test_cosine_distance_agrees_with_a_loop() -> None:
    """It is the mean of one minus the cosine, row by row."""
    one, other = np.random.default_rng(0).standard_normal((2, 9, 4)).astype(np.float32)
    expected = [
        1 - float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))
        for a, b in zip(one, other, strict=True)
    ]
    assert cosine_distance(one, other) == pytest.approx(np.mean(expected), abs=1e-6)


def test_the_papers_mapper_learns_with_more_steps() -> None:
    """A few steps leave it where it started; many bring it close to ridge."""
    # A thousand times the paper's rate, so that the test is over in seconds.
    trials = [
        Trial(f"steps{most}", TwoLayerMapper(DIM, Training(rate=1e-2, max_steps=most)), 200)
        for most in (5, 1000)
    ]
    found = remap(answers(), "affine", trials, std=0, train=200, rng=np.random.default_rng(1))
    assert found["steps5"].distance > 5 * found["steps1000"].distance
    assert found["steps1000"].accuracy > found["reference"].accuracy - 0.1


def test_plans_name_every_cell_and_cap_noised_training(tmp_path: Path) -> None:
    """The ladder comes first; noised training makes 49 passes, or as many steps as allowed."""
    setting = Setting(
        transforms=("pad_shuffle", "binary"),
        counts=(10, 200),
        trained_counts=(10,),
        noised_counts=(64, 65, 500),
        trained=("paper3/binary",),
        trained_noised=("paper/affine",),
        noise=(0.5,),
        steps=120,
        ladder=(7, 9),
        seeds=1,
    )
    jobs = list(plan(setting, Payload(tmp_path), dim=DIM, root=0))
    assert [(job.transform, job.std, [trial.name for trial in job.trials]) for job in jobs] == [
        ("affine", 0, ["steps7", "steps9"]),
        ("binary", 0, ["paper3.n10"]),
        ("affine", 0.5, ["paper.n64", "paper.n65", "paper.n500"]),
        ("pad_shuffle", 0, ["ridge.n10", "ridge.n200", "procrustes.n10", "procrustes.n200"]),
        (
            "pad_shuffle",
            0.5,
            [f"{name}.n{count}" for name in ("ridge", "procrustes") for count in (64, 65, 500)],
        ),
        ("binary", 0, ["ridge.n10", "ridge.n200"]),
        ("binary", 0.5, ["ridge.n64", "ridge.n65", "ridge.n500"]),
    ]
    mappers = [trial.mapper for trial in jobs[2].trials]
    assert mappers == [TRAINED["paper"](DIM, steps) for steps in (49, 98, 120)]
    assert jobs[0].trials[0].count == 200


def test_metrics_tell_clean_from_noised_and_count_a_seed_once(tmp_path: Path) -> None:
    """Two jobs of one seed and transform share their reference; seeds make the interval."""

    def job(seed: int, std: float) -> Job:
        trials = (Trial("ridge.n10", RidgeMapper(), 10),)
        return Job("affine", std, seed, trials, 0, 200, Payload(tmp_path))

    def found(accuracy: float, name: str = "ridge.n10") -> dict[str, Remapped]:
        return {"reference": Remapped(0.9, 0), name: Remapped(accuracy, 0.25)}

    jobs = [job(0, 0), job(1, 0), job(2, 0), job(2, 0), job(0, 0.1)]
    results = [found(0.5), found(0.6), found(0.7), found(0.1, "paper.n10"), found(0.3)]
    measured = metrics(jobs, results, rng=np.random.default_rng(0))
    assert set(measured) == {
        "accuracy.affine.reference",
        *(
            f"{figure}.affine.{mapper}.n10"
            for figure in ("accuracy", "accuracy_drop", "cosine_distance")
            for mapper in ("ridge", "paper")
        ),
        "accuracy_noised.affine.reference.s0.1",
        *(
            f"{figure}_noised.affine.ridge.n10.s0.1"
            for figure in ("accuracy", "accuracy_drop", "cosine_distance")
        ),
    }
    ridge = measured["accuracy.affine.ridge.n10"]
    assert ridge.value == pytest.approx(0.6)
    assert ridge.interval == (0.5, 0.7)
    assert ridge.direction == "lower"
    drop = measured["accuracy_drop.affine.ridge.n10"]
    assert drop.value == pytest.approx(0.3)
    assert drop.direction == "higher"
    assert measured["accuracy.affine.reference"].direction == "higher"
    assert measured["accuracy.affine.reference"].value == pytest.approx(0.9)
    assert measured["accuracy.affine.paper.n10"].interval is None


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (Setting(transforms=("affin",)), r"no transform 'affin'; choose affine, pad_shuffle"),
        (Setting(trained=("paper/none",)), "no transform 'none'"),
        (Setting(trained_noised=("ridge/affine",)), "no trained mapper 'ridge'; choose paper, "),
    ],
)
def test_unknown_names_are_refused(setting: Setting, problem: str) -> None:
    """Before anything is embedded, the name is given with those there are."""
    with pytest.raises(ConfigurationError, match=problem):
        check(setting)


def _context() -> Context:
    return Context(0, FakeClock(step=1.0), lambda *_: None)


def test_more_pairs_than_inputs_are_refused(data_dir: Path) -> None:
    """The task's training part is where shared queries come from."""
    setting = Setting(task="gtsrb", counts=(4000,), test=1)
    with pytest.raises(ConfigurationError, match=r"at most 3920 shared queries.* 'gtsrb', got 10"):
        measure(setting, _context())


def test_real_answers_are_mapped(data_dir: Path) -> None:
    """On real images a hundred shared inputs bring back most of what the transform took."""
    setting = Setting(
        transforms=("affine",),
        counts=(100,),
        trained_counts=(100,),
        noised_counts=(100,),
        trained=("paper/affine",),
        trained_noised=(),
        noise=(1.0,),
        steps=20,
        ladder=(5, 20),
        train=400,
        test=200,
        seeds=1,
        workers=1,
    )
    result = measure(setting, _context())
    value = {name: metric.value for name, metric in result.metrics.items()}
    assert value["accuracy.affine.reference"] > 0.4
    assert value["accuracy.affine.unmapped"] < 0.25
    assert value["accuracy_drop.affine.ridge.n100"] < 0.15
    assert value["accuracy.affine.paper.n100"] < value["accuracy.affine.ridge.n100"]
    assert (
        value["cosine_distance_noised.affine.ridge.n100.s1"]
        > value["cosine_distance.affine.ridge.n100"]
    )
    assert set(result.diagnostics["ladder"]) == {"reference", "unmapped", "steps5", "steps20"}
    assert set(result.data) == {"cifar10/train", "cifar10/test"}


def test_the_processor_scale_covers_the_published_study() -> None:
    """All four transforms of the paper meet its mapper and ridge, from 10 to 10,000 queries."""
    setting = EXPERIMENT.scales["cpu"]
    for transform in ("affine", "pad_shuffle", "affine_pad_shuffle", "binary"):
        assert transform in setting.transforms
        assert f"paper/{transform}" in setting.trained
    assert setting.counts == (10, 30, 100, 300, 1000, 3000, 10_000)
    assert setting.trained_counts == (10, 100, 1000, 10_000)
    assert set(setting.transforms) == set(TRANSFORMS)
