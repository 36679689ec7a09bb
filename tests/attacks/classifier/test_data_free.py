"""Data-free attacks: what they ask, how they estimate gradients, what they remember."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.attacks.classifier.copies import Conv3Copy  # noqa: E402
from tollkeeper.attacks.classifier.data_free import estimated, squashed  # noqa: E402
from tollkeeper.attacks.classifier.dfme import DFME, recovered  # noqa: E402
from tollkeeper.attacks.classifier.generator import Generator, Memory, directions  # noqa: E402
from tollkeeper.attacks.classifier.maze import MAZE  # noqa: E402
from tollkeeper.attacks.classifier.recorder import Recorder  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.classifiers import ToyClassifier, spots  # noqa: E402

NOTHING = np.empty((0, 1, 16, 16), np.float32)


def play(attack: Any, budget: int, seed: int = 0) -> tuple[Any, Recorder]:
    """Run a small game against the toy."""
    small = replace(attack, filters=8, noise=16, network=Conv3Copy(width=4))
    recorder = Recorder(ToyClassifier())
    theft = small(
        recorder, NOTHING, budget=budget, rng=np.random.default_rng(seed), clock=FakeClock()
    )
    return theft, recorder


def test_default_iterations_cost_what_the_papers_say() -> None:
    """1,792 pictures an iteration of DFME and 1,920 of MAZE."""
    assert DFME().queries_per_iteration == 1792
    assert MAZE().queries_per_iteration == 1920


@pytest.mark.parametrize(
    ("attack", "calls"),
    [
        # Picture, difference, two of the copy, twice; then 15 that are left.
        (DFME(game_batch=10, student_steps=2), [10] * 8 + [10, 5]),
        # Picture, three differences, one of the copy: nothing is left.
        (MAZE(game_batch=19, directions=3, student_steps=2, replays=1), [19] * 5),
        # Picture, difference, one of the copy; then two of what is left.
        (MAZE(game_batch=19, directions=1, student_steps=2, replays=1), [19] * 3 + [19, 19]),
    ],
)
def test_every_query_is_asked(attack: Any, calls: list[int]) -> None:
    """Whole iterations first; what is left of the budget trains the copy."""
    theft, recorder = play(attack, 95)
    assert theft.queries_spent == 95
    assert theft.repeats == 0
    assert [len(call) for call in recorder.asked] == calls


def test_a_budget_below_an_iteration_is_still_used() -> None:
    """An untrained generator is asked for the copy alone."""
    theft, recorder = play(DFME(), 301)
    assert theft.queries_spent == 301
    assert [len(call) for call in recorder.asked] == [256, 45]


def test_pictures_are_in_range_and_start_from_nothing() -> None:
    """No pool is needed but for its shape; what is asked are pictures in [0, 1] that vary."""
    _, recorder = play(DFME(game_batch=16), 200)
    assert recorder.images.shape == (200, 1, 16, 16)
    assert 0 <= recorder.images.min() < 0.1
    assert 0.9 < recorder.images.max() <= 1


def test_a_budget_of_nothing_is_refused() -> None:
    """There is no largest budget to name."""
    with pytest.raises(ConfigurationError, match="budget of at least 1, got 0"):
        play(DFME(), 0)


def test_rates_fall_as_published() -> None:
    """DFME's by .3 after a tenth, three tenths and half; MAZE's along a cosine."""
    shares = (0.0, 0.09, 0.1, 0.3, 0.5, 0.9)
    assert np.allclose([DFME().decay(one) for one in shares], [1, 1, 0.3, 0.09, 0.027, 0.027])
    assert np.allclose([MAZE().decay(one) for one in (0, 0.5, 1)], [1, 0.5, 0])


def test_logits_come_back_from_probabilities() -> None:
    """They differ from the true ones by their mean alone."""
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 30.0, -3.0]])
    found = recovered(torch.softmax(logits, dim=1), floor=1e-30)
    assert torch.allclose(found, logits - logits.mean(dim=1, keepdim=True), atol=1e-4)


def test_errors_by_hand() -> None:
    """L1 between logits of mean 0 for one, the divergence for the other."""
    answers = torch.tensor([[0.8, 0.2]])
    half = float(np.log(4)) / 2  # Recovered logits are (half, -half).
    logits = torch.tensor([[1.0, 0.0]])
    wanted = (abs(half - 1) + half) / 2
    assert float(DFME().errors(answers, logits)[0]) == pytest.approx(wanted, rel=1e-5)
    even = torch.zeros(1, 2)
    divergence = 0.8 * np.log(1.6) + 0.2 * np.log(0.4)
    assert float(MAZE().errors(answers, even)[0]) == pytest.approx(divergence, rel=1e-5)


def test_the_sphere_estimator_is_unbiased() -> None:
    """Over many directions it is the true gradient of a function that is smooth."""
    draws = torch.Generator().manual_seed(0)
    point = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(1, 2, 3)
    weights = torch.tensor([[[1.0, -2.0, 0.5], [3.0, -1.0, 2.0]]], dtype=torch.float64)

    def errors(x: Any) -> Any:
        return (torch.sin(x) * weights).flatten(1).sum(dim=1)

    count = 4000
    found = estimated(errors, errors(point), point, count=count, epsilon=1e-6, draws=draws)
    true = torch.cos(point) * weights
    # One estimate of a coordinate has a variance of about the squared length of the gradient.
    error = float(true.norm()) / np.sqrt(count)
    assert float((found - true).abs().max()) < 4 * error
    assert float(true.abs().max()) > 20 * error


def test_unknown_errors_add_nothing() -> None:
    """A refused picture has no gradient, and its neighbors keep theirs."""
    point, draws = torch.zeros(2, 3), torch.Generator().manual_seed(0)
    here = torch.tensor([float("nan"), 0.0])
    found = estimated(lambda x: x.sum(dim=1), here, point, count=2, epsilon=1e-2, draws=draws)
    assert found[0].tolist() == [0, 0, 0]
    assert float(found[1].norm()) > 0


def test_generators_fit_any_shape() -> None:
    """Edges that four does not divide are cut; squashed pictures are in [0, 1]."""
    made = Generator((3, 30, 29), noise=5, filters=4)(torch.randn(2, 5)).detach()
    assert made.shape == (2, 3, 30, 29)
    assert 0 <= float(squashed(made).min()) <= float(squashed(made).max()) <= 1
    lengths = directions(torch.Size((7, 3, 4)), torch.Generator().manual_seed(0)).flatten(1)
    assert torch.allclose(lengths.norm(dim=1), torch.ones(7))


def test_memory_is_bounded_and_fair() -> None:
    """It never holds more than its size, and early and late pictures alike."""
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(50):
        memory = Memory(20, rng)
        for start in range(0, 100, 10):
            numbers = np.arange(start, start + 10, dtype=np.float32)
            memory.add(numbers.reshape(10, 1, 1, 1), numbers.reshape(10, 1))
            assert len(memory) <= 20
        images, answers = memory.all()
        assert np.array_equal(images.reshape(-1), answers.reshape(-1))
        kept.append(images.mean())
    # The mean of 1,000 draws of 0 to 99, whose deviation is 29, is within four errors.
    assert np.mean(kept) == pytest.approx(49.5, abs=4)
    assert memory.drawn(64)[0].shape == (20, 1, 1, 1)


def test_the_same_seed_asks_the_same() -> None:
    """All randomness comes from the generator handed in."""
    one, two, other = (play(DFME(game_batch=8), 120, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(one.images, two.images)
    assert not np.array_equal(one.images, other.images)


def test_the_generator_learns_to_be_hard() -> None:
    """Its pictures move where the copy errs: their mean error grows over the game of a frozen copy."""
    frozen = replace(
        DFME(game_batch=64, student_steps=1, directions=8, generator_rate=0.02), student_rate=1e-9
    )
    _, recorder = play(frozen, 64 * 10 * 12)
    errors = []
    for call in recorder.answers:
        logs = np.log(np.maximum(call, 1e-10))
        # An untrained copy says about 0 everywhere, so its error is the size of the logits.
        errors.append(np.abs(logs - logs.mean(axis=1, keepdims=True)).mean())
    assert np.mean(errors[-30:]) > 1.1 * np.mean(errors[:10])


def test_spots_are_learned_from_nothing() -> None:
    """A copy that has seen generated pictures alone tells the toy's classes above chance."""
    from tollkeeper.attacks.classifier.presets import for_two_cores

    for attack in (DFME(game_batch=32), MAZE(game_batch=32, directions=2, replays=2)):
        small = for_two_cores(attack, epochs=8, network=Conv3Copy(width=4))
        faster = replace(small, schedule=replace(small.schedule, rate=0.01))
        theft, _ = play(faster, 600)
        images, labels = spots(200, seed=1)
        assert (theft.surrogate.embed(images).argmax(axis=1) == labels).mean() > 0.5
