"""Choices that look at no input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.selection.base import Ask, check_count
from tollkeeper.types import Batch


@dataclass(frozen=True, slots=True)
class Random:
    """Draws inputs without replacement, all equally likely.

    Source: the random policy of Orekondy et al., "Knockoff Nets", CVPR 2019.
    """

    def choose(
        self, queries: Batch, count: int, *, ask: Ask, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose `count` positions at random."""
        del ask
        check_count(count, queries)
        return rng.permutation(len(queries))[:count]


@dataclass(frozen=True, slots=True)
class FixedOrder:
    """Takes the pool from its start, as direct extraction on a shuffled public set does."""

    def choose(
        self, queries: Batch, count: int, *, ask: Ask, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose the first `count` positions."""
        del ask, rng
        check_count(count, queries)
        return np.arange(count)
