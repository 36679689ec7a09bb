"""One class after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.selection.base import Ask, check_count
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch


@dataclass(frozen=True, slots=True, eq=False)
class ClassSorted:
    """Takes all inputs of the first class, then all of the second, and so on.

    That is what the code of B4B (Dubiński et al., NeurIPS 2023) does: it reads an unshuffled
    folder of classes and stops at the budget, so 50,000 queries are the first 500 of its 1,000
    classes. Kept to reproduce that order and to try narrow traffic.

    Attributes:
        labels: (n,) class of every input of the pool.
    """

    labels: NDArray[np.int64]

    def choose(
        self, queries: Batch, count: int, *, ask: Ask, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose the first `count` positions by class; pool order within a class.

        Raises:
            ConfigurationError: the labels are not one an input, or `count` does not fit.
        """
        del ask, rng
        check_count(count, queries)
        if self.labels.shape != (len(queries),):
            raise ConfigurationError(
                f"expected a label for each of {len(queries)} inputs, got {self.labels.shape}"
            )
        return np.argsort(self.labels, kind="stable")[:count]
