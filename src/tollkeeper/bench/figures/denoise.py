"""What a thief gets back from noisy answers, with known pairs to learn from.

The pairs are inputs that it asked both below the knee and at a price level. What is reported
is the share of the clean embeddings' variance that is still wrong: 0 is a perfect recovery,
1 is no better than always answering the mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.field import Field
from tollkeeper.guard.noise import Keyed, Noise
from tollkeeper.types import Embeddings

NOISES: Mapping[str, Noise] = {"white": Keyed(), "field": Field()}
"""Kinds of noise: alike in all directions and new for each input, or shaped and shared."""

_PAIRS, _TESTED, _DIRECTIONS = 3000, 1000, 64


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Noisy and clean answers to the same inputs.

    Attributes:
        noisy: (n, d) to learn from.
        clean: (n, d).
        asked: (m, d) noisy answers to be cleaned.
        wanted: (m, d) what they should be.
    """

    noisy: Embeddings
    clean: Embeddings
    asked: Embeddings
    wanted: Embeddings

    def left(self, recovered: Embeddings) -> float:
        """Return the share of variance that is still wrong."""
        error = np.square(recovered - self.wanted).sum()
        return float(error / np.square(self.wanted - self.wanted.mean(axis=0)).sum())


def draw(
    noise: Noise,
    rows: Embeddings,
    calibration: Calibration,
    *,
    scale: float,
    key: bytes,
    rng: np.random.Generator,
) -> Pairs:
    """Perturb (n, d) embeddings at `scale` feature standard deviations and split them."""
    rows = rows[: _PAIRS + _TESTED]
    drawn = noise(
        np.full(len(rows), scale),
        rows,
        key=key,
        identities=[number.to_bytes(8, "big") for number in range(len(rows))],
        rng=rng,
        calibration=calibration,
    )
    noisy = rows + np.float32(scale * calibration.feature_std) * drawn
    cut = len(rows) * 3 // 4
    return Pairs(noisy[:cut], rows[:cut], noisy[cut:], rows[cut:])


def filters(pairs: Pairs, *, learned: bool, seed: int) -> Iterator[tuple[str, float]]:
    """Yield what each filter leaves: none, principal directions, ridge, and a network.

    Ridge from noisy to clean is the Wiener filter, estimated.
    """
    yield "none", pairs.left(pairs.asked)
    mean = pairs.clean.mean(axis=0)
    _, _, directions = np.linalg.svd(pairs.clean - mean, full_matrices=False)
    kept = directions[:_DIRECTIONS]
    yield "pca", pairs.left((pairs.asked - mean) @ kept.T @ kept + mean)
    middle = pairs.noisy.mean(axis=0)
    known, asked = pairs.noisy - middle, pairs.asked - middle
    gram = known.T @ known
    gram += 1e-2 * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
    linear = asked @ np.linalg.solve(gram, known.T @ (pairs.clean - mean)) + mean
    yield "wiener", pairs.left(linear)
    if learned:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        unit = float(known.std())
        network = MLPRegressor(
            hidden_layer_sizes=(256,),
            learning_rate_init=1e-3,
            max_iter=30,
            early_stopping=True,
            random_state=seed,
        )
        # It learns what the linear filter leaves, so it starts from there.
        rest = pairs.clean - mean - known @ np.linalg.solve(gram, known.T @ (pairs.clean - mean))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 30 passes are the attack
            network.fit(known / unit, rest / unit)
        yield "network", pairs.left(linear + unit * network.predict(asked / unit))
