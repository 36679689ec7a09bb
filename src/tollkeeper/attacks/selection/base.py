"""What a query selection is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings

Ask = Callable[[NDArray[np.intp]], Embeddings]
"""The victim's answers (m, d) to the inputs at (m,) distinct positions; costs m queries, and
each input costs only once however often it is asked for."""


class Selection(Protocol):
    """Chooses the inputs of a pool that are asked, and their order."""

    def choose(
        self, queries: Batch, count: int, *, ask: Ask, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose `count` of n inputs.

        Args:
            queries: the pool of n inputs.
            count: how many, in [1, n].
            ask: answers to inputs chosen so far, for selections that learn on the way; whatever
                is asked must be part of the choice.
            rng: all randomness of the choice.

        Returns:
            (count,) distinct positions in the pool, in asking order.

        Raises:
            ConfigurationError: `count` does not fit the pool.
            InputError: the selection cannot read such inputs.
        """
        ...


def no_answers(index: NDArray[np.intp]) -> Embeddings:
    """Stand in for `Ask` where an attack has no one space to answer in yet.

    Raises:
        ConfigurationError: always.
    """
    del index
    raise ConfigurationError("expected a selection that chooses without asking, such as Random")


def check_count(count: int, queries: Batch) -> None:
    """Refuse a count that does not fit the pool.

    Raises:
        ConfigurationError: `count` is not in [1, n].
    """
    if not 1 <= count <= len(queries):
        raise ConfigurationError(
            f"expected to choose between 1 and {len(queries):,} inputs of the pool, got {count:,}"
        )
