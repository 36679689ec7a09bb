"""Pictures small enough to train detectors on within a second."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.types import Images

CLASSES = 4


class Toys(NamedTuple):
    """Squares in the four corners, and stripes, which belong nowhere."""

    squares: Images
    labels: NDArray[np.int64]
    stripes: Images
    stripe_labels: NDArray[np.int64]


def _toys(count: int, seed: int) -> Toys:
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    squares = rng.uniform(0, 0.1, (count, 1, 16, 16))
    for at, label in enumerate(labels):
        row, column = 8 * (label // 2) + rng.integers(3), 8 * (label % 2) + rng.integers(3)
        squares[at, 0, row : row + 5, column : column + 5] += 0.8
    kinds = rng.integers(CLASSES, size=count)
    y, x = np.mgrid[:16, :16]
    phases = rng.uniform(0, 6, (count, 1, 1))
    angles = (kinds * np.pi / 4)[:, None, None] + rng.uniform(-0.2, 0.2, (count, 1, 1))
    waves = np.sin(1.2 * (x * np.cos(angles) + y * np.sin(angles)) + phases)
    return Toys(
        squares.astype(np.float32),
        labels.astype(np.int64),
        (0.5 + 0.45 * waves[:, None]).astype(np.float32),
        kinds.astype(np.int64),
    )


@pytest.fixture(scope="session")
def toys() -> Toys:
    """Pictures to train on."""
    return _toys(512, 1)


@pytest.fixture(scope="session")
def fresh() -> Toys:
    """Pictures that no detector has seen."""
    return _toys(200, 2)
