"""Jacobian-based augmentation: how many pictures each round adds, and which way they move."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tollkeeper.attacks.classifier import presets  # noqa: E402
from tollkeeper.attacks.classifier.copies import Conv3Copy  # noqa: E402
from tollkeeper.attacks.classifier.jbda import JBDA, TRandom  # noqa: E402
from tollkeeper.attacks.classifier.presets import for_two_cores  # noqa: E402
from tollkeeper.attacks.classifier.recorder import Recorder  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.lab.fit import Schedule  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.classifiers import ToyClassifier, spots  # noqa: E402
from tollkeeper.types import Images  # noqa: E402

POOL = spots(250)[0]
SHORT = Schedule(epochs=1, batch=64)


def asked(attack: Any, budget: int, seed: int = 0) -> tuple[Any, Recorder]:
    """Run an attack with copies that hardly train."""
    small = replace(attack, network=Conv3Copy(width=2), schedule=SHORT, rounds=SHORT)
    recorder = Recorder(ToyClassifier())
    theft = small(recorder, POOL, budget=budget, rng=np.random.default_rng(seed), clock=FakeClock())
    return theft, recorder


def sums(recorder: Recorder) -> list[int]:
    """Return the sizes of a copy's training set, round by round: calls are cut at 256."""
    return list(accumulate(len(call) for call in recorder.asked))


def test_each_round_doubles_what_is_known() -> None:
    """From 200 seeds to 400, 800, 1,600, 3,200 and 6,400 pictures, each asked once."""
    theft, recorder = asked(JBDA(), 6400)
    assert theft.queries_spent == 6400
    assert theft.repeats == 0
    assert {200, 400, 800, 1600, 3200, 6400} <= set(sums(recorder))
    assert np.array_equal(recorder.images[:200], POOL[:200])


@pytest.mark.parametrize("attack", [JBDA(), TRandom(), TRandom(iterations=3)])
def test_a_cut_round_ends_at_the_budget(attack: Any) -> None:
    """Every query is spent, and every new picture is a step away from one known before."""
    theft, recorder = asked(attack, 500)
    assert (theft.queries_spent, theft.repeats) == (500, 0)
    assert {200, 400, 500} <= set(sums(recorder))
    images = recorder.images.reshape(500, -1)
    for picture in images[200:]:
        away = np.abs(images - picture).max(axis=1)
        assert np.sort(away)[1] <= attack.step + 1e-6  # Itself is at 0.
    assert 0 <= images.min() <= images.max() <= 1


def test_seeds_alone_are_a_theft_too() -> None:
    """A budget below the seeds asks the first of them."""
    theft, recorder = asked(JBDA(), 50)
    assert theft.queries_spent == 50
    assert np.array_equal(recorder.images, POOL[:50])


def test_steps_on_strokes_leave_the_ground_alone() -> None:
    """Pixels at or below the bound keep the values of an honest picture."""
    seeds = np.where(POOL > 0.5, POOL, 0)
    attack = replace(
        JBDA(strokes=0.05, seeds=20), network=Conv3Copy(width=2), schedule=SHORT, rounds=SHORT
    )
    recorder = Recorder(ToyClassifier())
    attack(recorder, seeds, budget=80, rng=np.random.default_rng(0), clock=FakeClock())
    before, after = recorder.images[:20], recorder.images[20:40]
    assert np.array_equal(after[before == 0], before[before == 0])
    assert (after != before).any(axis=(1, 2, 3)).all()


class ColoredToy(ToyClassifier):
    """Fake: says which quarter of a colored picture is brightest in its first channel."""

    input_shape = (3, 16, 16)

    def embed(self, inputs: Any) -> Any:
        """Look at the first channel."""
        return ColoredToy.first(np.asarray(inputs)[:, :1])

    first = ToyClassifier().embed


def test_gray_steps_move_the_channels_alike() -> None:
    """The difference to the picture stepped from is one plane, but for pixels at their range."""
    seeds = np.random.default_rng(3).uniform(0.2, 0.8, (20, 3, 16, 16)).astype(np.float32)
    attack = replace(
        JBDA(gray=True, seeds=20), network=Conv3Copy(width=2), schedule=SHORT, rounds=SHORT
    )
    recorder = Recorder(ColoredToy())
    attack(recorder, seeds, budget=40, rng=np.random.default_rng(0), clock=FakeClock())
    moved = recorder.images[20:] - recorder.images[:20]
    assert np.abs(moved).max() == pytest.approx(attack.step, abs=1e-6)
    np.testing.assert_allclose(moved, moved[:, :1].repeat(3, axis=1), atol=1e-6)


class Matrix(nn.Module):
    """Logits that are linear in pixels."""

    def __init__(self, weights: Any) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, images: Any) -> Any:
        return images.flatten(1) @ self.weights


def linear() -> tuple[Any, Any, Any]:
    """Return a network, two gray pictures and a class for each."""
    weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    return Matrix(weights), torch.full((2, 1, 2, 3), 0.5), torch.tensor([0, 2])


def test_jacobian_steps_go_up() -> None:
    """Each pixel moves by the whole step, by the sign of the class's own gradient."""
    network, images, classes = linear()
    moved = JBDA()._moved(network, images, classes, 0.1)
    with torch.no_grad():
        shares = torch.softmax(network(images), dim=1)
        slopes = network.weights[:, classes].T - shares @ network.weights.T
    assert torch.allclose((moved - images).flatten(1), 0.1 * slopes.sign())
    back = JBDA()._moved(network, images, classes, -0.1)
    assert torch.allclose(back - images, images - moved)


@pytest.mark.parametrize("iterations", [1, 4])
def test_targeted_steps_go_towards_the_target(iterations: int) -> None:
    """The target's probability grows, and no pixel leaves the box."""
    network, images, targets = linear()
    attack = TRandom(iterations=iterations, stride=1.85)
    moved = attack._moved(network, images, targets, 0.1)
    with torch.no_grad():
        before, after = (torch.softmax(network(each), dim=1) for each in (images, moved))
    rows = torch.arange(2)
    assert bool((after[rows, targets] > before[rows, targets]).all())
    assert float((moved - images).abs().max()) == pytest.approx(0.1)


def test_targets_are_never_the_victims_class() -> None:
    """All others are drawn."""
    classes = np.repeat(np.arange(4), 100)
    found = TRandom()._others(classes, 4, np.random.default_rng(0))
    assert (found != classes).all()
    for one in range(4):
        assert set(found[classes == one]) == set(range(4)) - {one}


def test_the_step_flips_and_the_reservoir_bounds() -> None:
    """After `flip_every` rounds steps go the other way; later rounds add `reservoir` each."""
    attack = JBDA(seeds=20, flip_every=2, reservoir_after=2, reservoir=30)
    _, recorder = asked(attack, 170)
    assert sums(recorder) == [20, 40, 80, 110, 140, 170]
    steps: list[float] = []

    class Noting(JBDA):
        def _moved(self, network: Any, images: Any, classes: Any, step: float) -> Any:
            steps.append(step)
            return super()._moved(network, images, classes, step)

    asked(Noting(seeds=10, flip_every=2), 160)
    assert steps == [0.05, 0.05, -0.05, -0.05]


def test_papernots_rules_act_beyond_1200_queries() -> None:
    """With its own seeds: doubling to 800, then 400 a round; from 1,600 on steps go the other way."""
    attack = for_two_cores(presets.jbda_papernot())
    _, recorder = asked(attack, 2400)
    grown = [100, 200, 400, 800, 1200, 1600, 2000, 2400]
    assert set(grown) <= set(sums(recorder))
    plain = replace(attack, flip_every=0)
    same = (recorder.images == asked(plain, 2400)[1].images).all(axis=(1, 2, 3))
    assert same[:1600].all()
    assert not same[1600:2000].all()


def test_a_pool_without_gradients_ends() -> None:
    """Where no picture moves, the attack stops instead of asking forever."""
    black: Images = np.zeros((30, 1, 16, 16), np.float32)
    black[:, 0, 0, 0] = np.linspace(0, 0.04, 30)
    attack = JBDA(strokes=0.5, seeds=30)
    small = replace(attack, network=Conv3Copy(width=2), schedule=SHORT, rounds=SHORT)
    theft = small(
        ToyClassifier(), black, budget=90, rng=np.random.default_rng(0), clock=FakeClock()
    )
    assert theft.queries_spent == 30


def test_bad_settings_are_refused() -> None:
    """One line names what was expected."""
    wrong: dict[str, Any]
    for wrong in ({"seeds": 1}, {"step": 0.0}, {"strokes": 1.0}, {"reservoir": 0}):
        with pytest.raises(ConfigurationError, match="at least 2 seeds"):
            JBDA(**wrong)
