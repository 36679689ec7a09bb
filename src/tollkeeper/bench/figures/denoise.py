"""What a thief gets back from noisy answers, with known pairs to learn from.

The pairs are inputs that it asked both below the knee and at a price level. What is reported
is the share of the clean embeddings' variance that is still wrong: 0 is a perfect recovery,
1 is no better than always answering the mean.
"""

from __future__ import annotations

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


def filters(pairs: Pairs) -> Iterator[tuple[str, float]]:
    """Yield what each filter leaves: none, principal directions, ridge, and kernel ridge.

    Ridge from noisy to clean is the Wiener filter, estimated; kernel ridge is its nonlinear
    form, with width and penalty chosen on a fifth of the pairs.
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
    yield "wiener", pairs.left(asked @ np.linalg.solve(gram, known.T @ (pairs.clean - mean)) + mean)
    cut = len(known) * 4 // 5
    held = Pairs(known[:cut], pairs.clean[:cut] - mean, known[cut:], pairs.clean[cut:] - mean)
    choice = min(
        ((width, penalty) for width in _WIDTHS for penalty in _PENALTIES),
        key=lambda one: held.left(_kernel_ridge(held, *one)),
    )
    whole = Pairs(known, pairs.clean - mean, asked, pairs.wanted - mean)
    yield "kernel", whole.left(_kernel_ridge(whole, *choice))


_WIDTHS = (0.5, 1.0, 2.0)
"""Of the kernel, in mean distances."""

_PENALTIES = (0.03, 0.3, 3.0)


def _kernel_ridge(pairs: Pairs, width: float, penalty: float) -> Embeddings:
    """Return clean guesses (m, d) with the kernel exp(-(r / w)**2 / 2)."""
    scale = np.float32(-1 / (2 * width**2 * _squares(pairs.noisy, pairs.noisy).mean()))
    kernel = np.exp(scale * _squares(pairs.noisy, pairs.noisy))
    kernel += penalty * np.eye(len(kernel), dtype=np.float32)
    weights = np.linalg.solve(kernel, pairs.clean)
    guesses: Embeddings = np.exp(scale * _squares(pairs.asked, pairs.noisy)) @ weights
    return guesses


def _squares(one: Embeddings, other: Embeddings) -> Embeddings:
    """Return the (n, m) squared distances."""
    lengths = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)
    squares: Embeddings = np.maximum(lengths - 2 * one @ other.T, 0)
    return squares
