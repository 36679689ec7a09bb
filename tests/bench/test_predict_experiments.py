"""Each prediction experiment at a tiny size, on made-up pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.predict import (
    accounts,
    same_ablation,
    same_addon,
    same_detection,
    same_ratio,
)
from tollkeeper.bench.predict.plan import SMOKE
from tollkeeper.bench.predict.streams import Stream
from tollkeeper.data import Dataset
from tollkeeper.errors import ConfigurationError

pytestmark = pytest.mark.torch

Load = Callable[[str, str], Dataset]


def measured(experiment: Experiment[Any], **changes: Any) -> Measurement:
    """Run an experiment at its smoke scale."""
    setting = replace(experiment.scales["smoke"], **changes)
    return experiment.measure(setting, Context(0, lambda: 0.0, lambda *_: None))


def kept(experiment: Experiment[Any], found: Measurement, dataset: str) -> None:
    """Assert that all promised metrics of a data set are there."""
    for promise in experiment.promises:
        if promise.startswith("live."):
            continue  # No server is started in these tests.
        if dataset in promise or "." not in promise.strip("*."):
            assert any(fnmatchcase(name, promise) for name in found.metrics), promise


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_same_detection_keeps_its_promises(drawn: Load, dataset: str) -> None:
    """All figures of all detectors and thieves come out, with tables and seconds of training."""
    found = measured(same_detection.EXPERIMENT, datasets=(dataset,))
    kept(same_detection.EXPERIMENT, found, dataset)
    names = set(found.metrics)
    assert f"auroc.{dataset}.40.same.jbda_all" in names
    assert {"jbda", "insider"} <= set(found.diagnostics[dataset]["roc"])
    assert (f"auroc.{dataset}.40.same.jbda_strokes" in names) == (dataset == "mnist")
    for own in ("none", "oe", "edm", "same"):
        assert 0 <= found.metrics[f"accuracy.{dataset}.{own}"].value <= 1
    assert f"train_s.{dataset}.same" in names
    assert same_detection.EXPERIMENT.report is not None
    assert f"{dataset}, 80 queries" in same_detection.EXPERIMENT.report(found.metrics)
    assert "stages_s" in found.diagnostics[dataset]
    assert f"{dataset}/test" in found.data


def test_same_ratio_keeps_its_promises(drawn: Load) -> None:
    """Every ratio and attack has its figures; the honest queries stay the same."""
    found = measured(same_ratio.EXPERIMENT)
    kept(same_ratio.EXPERIMENT, found, "mnist")
    assert {name.split(".")[2] for name in found.metrics} == {"r10", "r90"}


def test_same_ablation_keeps_its_promises(drawn: Load) -> None:
    """Every variant scores the same queries and is compared with the reconstruction alone."""
    found = measured(same_ablation.EXPERIMENT)
    kept(same_ablation.EXPERIMENT, found, "mnist")
    assert "above.mnist.40.alpha99_over_alpha100.jbda" in found.metrics
    assert "auroc.mnist.40.alpha0_of_answers.knockoff" in found.metrics
    assert "auroc.mnist.40.fixed_scored50.jbda" in found.metrics


def test_same_addon_keeps_its_promises(drawn: Load) -> None:
    """Honest and malicious users have shares of success and response times in each mode."""
    found = measured(same_addon.EXPERIMENT)
    kept(same_addon.EXPERIMENT, found, "mnist")
    assert found.metrics["successful.mnist.puzzle.same.honest"].direction == "higher"
    assert found.metrics["successful.mnist.puzzle.same.jbda"].direction == "lower"
    # The calibration images are honest too, so about as many are refused as was asked for.
    assert found.metrics["successful.mnist.refuse5.same.honest"].value > 0.75


def test_what_ranks_high_waits_longer_or_is_refused() -> None:
    """A score above all honest ones pays the ceiling; one in the free part pays nothing."""
    setting = replace(same_addon.EXPERIMENT.scales["smoke"], hash_rate=2.0**20, ceiling_bits=20)
    modes = same_addon._modes(np.linspace(0, 1, 400), setting, 0.5)
    scores, rng = np.array([0.5, 2.0]), np.random.default_rng(0)
    free, charged = np.mean([modes["puzzle"](scores, rng) for _ in range(400)], axis=0)
    assert free == 0.5
    assert charged == pytest.approx(1.5, rel=0.2)
    assert modes["refuse5"](scores, rng).tolist() == [0.5, np.inf]


def test_accounts_are_cut_and_judged_by_their_last_score(drawn: Load) -> None:
    """Accounts of each size come out with their share of alarms; too few are left out."""
    rng = np.random.default_rng(0)
    scene = same_detection.EXPERIMENT.scales["smoke"]
    made = accounts_deployment(scene.plans["mnist"])
    watching = accounts.watchers(made, rng)
    honest = accounts.Asked(made.scene.honest, made.answers, made.honest_scores())
    many = {
        accounts.HONEST: honest[np.tile(np.arange(80), 3)],
        "same_picture": honest[np.zeros(240, np.intp)],
        "odd": replace(honest, scores={name: one + 99 for name, one in honest.scores.items()})[
            np.tile(np.arange(80), 3)
        ],
    }
    found = accounts.judged(made, watching, many, rng=rng)
    assert found["alarmed.mnist.accounts50.seat.same_picture"].value == 1
    assert found["alarmed.mnist.accounts50.prada.honest"].value == 0
    for name in ("history", "mean-fused", "share-fused", "mean-max-softmax", "fdinet"):
        assert found[f"alarmed.mnist.accounts50.{name}.odd"].value == 1
        assert f"auroc.mnist.accounts50.{name}.same_picture" in found
    for name in ("history", "mean-fused", "share-fused", "mean-max-softmax"):
        assert found[f"alarmed.mnist.accounts50.{name}.honest"].value <= 0.25
    assert found["auroc.mnist.accounts50.seat.same_picture"].value == 1
    assert not any("accounts100" in name for name in found)


def accounts_deployment(plan: Any) -> Any:
    """Return a deployment with the scores that accounts are followed by."""
    from tollkeeper.bench.predict.deployment import deploy

    return deploy(
        "mnist",
        plan,
        rng=np.random.default_rng(0),
        clock=lambda: 0.0,
        tell=lambda _: None,
        data={},
        names=("floors", "fdinet", "fused"),
    )


def test_scores_of_accounts_are_of_the_queries_so_far() -> None:
    """A mean and a share are taken over what an account has asked, and judged at its end."""
    none = np.zeros((4, 1), np.float32)
    asked = accounts.Asked(none, none, {"one": np.array([0.0, 2.0, 1.0, 5.0])})
    assert accounts._running("one", asked).tolist() == [0, 1, 1, 2]
    assert accounts._running("one", asked, above=1.5).tolist() == [0, 0.5, 1 / 3, 0.5]
    watcher = accounts._summed("one", np.zeros(50), np.random.default_rng(0))
    assert watcher.alarms(np.array([1.0, 1.0])).tolist() == [False, True]
    assert not watcher.alarms(np.zeros(2)).any()


def test_as_many_honest_queries_as_malicious_are_judged() -> None:
    """The thief's seeds are replaced by nothing: honest queries are left out with them."""
    none = np.zeros((40, 1), np.float32)
    stream = Stream("jbda", none, none, seeds=10, copied=0, agreed=0)
    scored = same_detection._Scored(stream, {"one": np.arange(90.0)}, {"one": np.arange(40.0)})
    for seeds, count in ((False, 30), (True, 40)):
        honest, malicious = scored.at(40, seeds=seeds)
        assert len(honest["one"]) == len(malicious["one"]) == count


def test_defenders_networks_are_trained_as_the_victim_is() -> None:
    """Images are shifted and mirrored in training alone; epochs, rate and size are the victim's."""
    import torch

    from tollkeeper.bench.predict.plan import CPU
    from tollkeeper.bench.predict.victims import Augmented

    training = CPU["cifar10"].training
    assert CPU["cifar10"].fitting.recipe(training).schedule == training.schedule()
    network = Augmented(torch.nn.Identity(), np.random.default_rng(0))
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert torch.equal(network.eval()(image), image)
    moved = [network.train()(image) for _ in range(4)]
    assert not all(torch.equal(one, image) for one in moved)
    assert all(one.shape == image.shape for one in moved)


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_images_like_the_honest_ones_are_not_told_apart(drawn: Load, dataset: str) -> None:
    """No detector separates an insider's images: the parts of a scene do not leak into scores."""
    from tollkeeper.bench.predict.deployment import deploy
    from tollkeeper.bench.predict.metrics import figures

    tiny = SMOKE[dataset]
    made = deploy(
        dataset,
        replace(tiny, sizes=replace(tiny.sizes, train=100, honest=300, calibration=0, insider=400)),
        rng=np.random.default_rng(0),
        clock=lambda: 0.0,
        tell=lambda _: None,
        data={},
    )
    insider = made.scene.insider
    asked = made.scores(insider, made.victim.embed(insider))
    for name, honest in made.honest_scores().items():
        # Three standard errors of 300 against 400.
        assert abs(figures(honest, asked[name])["auroc"] - 0.5) < 0.067, name


def test_budgets_without_as_many_honest_users_are_refused() -> None:
    """Sizes that cannot be judged are refused before anything is loaded."""
    plans = {"mnist": replace(SMOKE["mnist"], budgets=(40, 5000))}
    with pytest.raises(ConfigurationError, match="expected budgets above 20 seeds and up to 80"):
        measured(same_detection.EXPERIMENT, plans=plans)


def test_forms_of_same_that_share_a_pass_score_as_each_alone(drawn: Load) -> None:
    """Scores of a deployment are those of its detectors."""
    from tollkeeper.bench.predict.deployment import deploy

    made = deploy(
        "mnist",
        SMOKE["mnist"],
        rng=np.random.default_rng(0),
        clock=lambda: 0.0,
        tell=lambda _: None,
        data={},
        names=("same",),
    )
    images, answers = made.scene.honest[:9], made.answers[:9]
    for name, found in made.scores(images, answers).items():
        alone = made.defense.detectors[name].score(images, answers)
        assert found == pytest.approx(alone, rel=1e-9, abs=1e-12)
