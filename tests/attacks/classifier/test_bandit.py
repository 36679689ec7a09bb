"""The bandit's update and rewards, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.attacks.classifier.bandit import Bandit, Rewards, grouped

LN3 = float(np.log(3))


def test_policies_follow_preferences() -> None:
    """Nothing is preferred at first; then probabilities are the softmax."""
    bandit = Bandit(4)
    assert bandit.policy().tolist() == [0.25] * 4
    bandit.preferences = np.array([LN3, 0, 0, 0])
    assert np.allclose(bandit.policy(), [1 / 2, 1 / 6, 1 / 6, 1 / 6])


def test_an_empty_class_is_not_drawn() -> None:
    """What is left shares its probability, also where it was far less preferred."""
    bandit = Bandit(3)
    bandit.preferences = np.array([2000.0, LN3, 0])
    possible = np.array([False, True, True])
    assert np.allclose(bandit.policy(possible), [0, 3 / 4, 1 / 4])


def test_three_updates_by_hand() -> None:
    """H, N and the mean reward after rewards 1, 3 and 5, the first two of one action."""
    bandit = Bandit(2)
    even = np.array([0.5, 0.5])
    bandit.update(0, 1.0, even)  # The mean is the reward itself: nothing moves.
    assert bandit.preferences.tolist() == [0, 0]
    bandit.update(0, 3.0, even)  # (3 - 2) / 2 = 1/2, times 1 - 1/2.
    assert np.allclose(bandit.preferences, [0.25, -0.25])
    bandit.update(1, 5.0, np.array([0.75, 0.25]))  # (5 - 3) / 1 = 2.
    assert np.allclose(bandit.preferences, [0.25 - 1.5, -0.25 + 1.5])
    assert bandit.counts.tolist() == [2, 1]
    assert bandit.mean == 3


def test_each_reward_by_hand() -> None:
    """Margin of the top class, distance above the mean answer, cross-entropy of the guess."""
    one, two = np.array([0.7, 0.2, 0.1], np.float32), np.array([0.1, 0.1, 0.8], np.float32)
    guess = np.array([0.25, 0.25, 0.5], np.float32)
    certainty = Rewards(3, certainty=True, diversity=False, loss=False)
    assert certainty(one, guess) == pytest.approx(0.5)
    diversity = Rewards(3, certainty=False, diversity=True, loss=False)
    assert diversity(one, guess) == pytest.approx(0)
    # The mean is now (.4, .15, .45), and only the last class is above it.
    assert diversity(two, guess) == pytest.approx(0.35)
    loss = Rewards(3, certainty=False, diversity=False, loss=True)
    assert loss(one, guess) == pytest.approx(-0.9 * np.log(0.25) - 0.1 * np.log(0.5))


def test_rewards_together_are_z_scored() -> None:
    """Certainty and loss of two answers: the second is one deviation above the mean in both."""
    both = Rewards(2, certainty=True, diversity=False, loss=True)
    even = np.array([0.5, 0.5], np.float32)
    first = both(np.array([0.6, 0.4], np.float32), even)
    second = both(np.array([0.9, 0.1], np.float32), np.array([0.1, 0.9], np.float32))
    assert first == 0  # No spread yet.
    assert second == pytest.approx(1)


def test_pictures_are_grouped_by_looks() -> None:
    """Two kinds of pictures end in two groups."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 0.2, (40, 1, 16, 16)).astype(np.float32)
    images[::2, :, :8] += 0.7
    found = grouped(images, 2, rng)
    assert len({*found[::2].tolist()}) == len({*found[1::2].tolist()}) == 1
    assert found[0] != found[1]
