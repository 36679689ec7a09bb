"""The gradient bandit of adaptive KnockoffNets, its rewards, and actions without labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tollkeeper.types import Images

_TINY = 1e-12
_SIDE = 7
"""Edge of the thumbnails that group pictures."""

_ROUNDS = 10


class Bandit:
    """Preferences H of actions z, and the policy softmax(H).

    After a reward r of action z, with the mean reward r̄ (r included) and the step
    a = 1 / N(z): H(z) += a (r - r̄)(1 - π(z)), and H(z') -= a (r - r̄) π(z') for all others.

    Attributes:
        preferences: (z,) H.
        counts: (z,) N, how often each action was taken.
        mean: r̄.
    """

    def __init__(self, actions: int) -> None:
        """Prefer nothing."""
        self.preferences = np.zeros(actions)
        self.counts = np.zeros(actions, dtype=np.int64)
        self.mean = 0.0

    def policy(self, possible: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Return (z,) probabilities; of `possible` actions only, if given."""
        allowed = np.ones(len(self.counts), dtype=bool) if possible is None else possible
        # The best of those left may be far below the best of all.
        top = self.preferences[allowed].max()
        scores = np.where(allowed, np.exp(np.minimum(self.preferences - top, 0)), 0)
        policy: NDArray[np.float64] = scores / scores.sum()
        return policy

    def update(self, action: int, reward: float, policy: NDArray[np.float64]) -> None:
        """Learn from the reward of an action that was drawn from a policy."""
        self.counts[action] += 1
        self.mean += (reward - self.mean) / self.counts.sum()
        gain = (reward - self.mean) / self.counts[action]
        self.preferences -= gain * policy
        self.preferences[action] += gain


class Rewards:
    """What an answer was worth; several rewards are z-scored by running moments and averaged.

    Certainty is the top probability minus the second, diversity the sum over classes of
    max(0, p - p̄) with the mean answer p̄ (this one included), loss the cross-entropy of the
    copy's guess before it learned the answer.
    """

    def __init__(self, classes: int, certainty: bool, diversity: bool, loss: bool) -> None:  # noqa: FBT001 - three like switches
        """Choose rewards."""
        self._chosen = np.array([certainty, diversity, loss])
        self._mean_answer = np.zeros(classes)
        self._count = 0
        self._mean, self._squares = np.zeros(3), np.zeros(3)

    def __call__(self, answer: NDArray[np.float32], guess: NDArray[np.float32]) -> float:
        """Return the reward of the victim's answer (k,) where the copy guessed (k,)."""
        self._count += 1
        self._mean_answer += (answer - self._mean_answer) / self._count
        second, first = np.sort(answer)[-2:]
        rewards = np.array(
            [
                first - second,
                np.maximum(0, answer - self._mean_answer).sum(),
                -(answer * np.log(np.maximum(guess, _TINY))).sum(),
            ],
            dtype=np.float64,
        )
        before = rewards - self._mean
        self._mean += before / self._count
        self._squares += before * (rewards - self._mean)
        if self._chosen.sum() == 1:
            return float(rewards[self._chosen][0])
        spread = np.sqrt(self._squares / self._count)
        scores = np.divide(rewards - self._mean, spread, out=np.zeros(3), where=spread > _TINY)
        return float(scores[self._chosen].mean())


def grouped(images: Images, groups: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (n,) groups of pictures that look alike: k-means on thumbnails."""
    n, channels, height, width = images.shape
    side_h, side_w = max(1, height // _SIDE), max(1, width // _SIDE)
    rows, columns = height // side_h, width // side_w
    cut = images[:, :, : rows * side_h, : columns * side_w]
    small = cut.reshape(n, channels, rows, side_h, columns, side_w).mean(axis=(3, 5)).reshape(n, -1)
    centers = small[rng.permutation(n)[:groups]]
    found = np.zeros(n, dtype=np.int64)
    for _ in range(_ROUNDS):
        away = (centers**2).sum(axis=1) - 2 * small @ centers.T
        found = away.argmin(axis=1)
        for one in np.unique(found):
            centers[one] = small[found == one].mean(axis=0)
    return found
