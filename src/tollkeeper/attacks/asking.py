"""How attacks put their queries: in batches, once each, keeping what was answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.recovery.base import Recovery
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.metered import MeteredEncoder
from tollkeeper.errors import BudgetExhausted, ConfigurationError, TollkeeperError
from tollkeeper.lab.progress import Progress, Step, silent
from tollkeeper.types import Batch, Embeddings

BATCH = 256
"""Inputs per call."""

SMALL = 32
"""Inputs per call after a failure, so that little is lost when a victim stops for good."""


class Limited(Protocol):
    """A victim that says how many distinct inputs it may still be asked."""

    @property
    def remaining(self) -> int:
        """Distinct inputs."""
        ...


def remaining(victim: Encoder) -> int:
    """Return how many distinct inputs may still be asked, over all accounts.

    Raises:
        ConfigurationError: the victim is not metered; call the attack, not its `run`.
    """
    first = victim.accounts[0] if isinstance(victim, Accounts) else victim
    if isinstance(first, MeteredEncoder):
        return first.remaining
    left = getattr(first, "remaining", None)
    if not isinstance(left, int):
        raise ConfigurationError("expected a metered victim; call the attack itself, not run()")
    return left


def take(inputs: Batch, index: NDArray[np.intp]) -> Batch:
    """Return the inputs at (m,) positions, as an array if they were one."""
    if isinstance(inputs, np.ndarray):
        taken: Batch = inputs[index]
        return taken
    return [inputs[position] for position in index]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a victim answered.

    Attributes:
        index: (m,) positions in the pool that were answered, in asking order.
        embeddings: (m, d) float32.
    """

    index: NDArray[np.intp]
    embeddings: Embeddings


class Asker:
    """Asks for inputs of a pool by position, each only once.

    A victim that fails or refuses after it has answered something ends the asking without an
    error: `answered` tells what there is.

    Attributes:
        stopped: whether the victim is asked no more.
    """

    def __init__(
        self,
        victim: Encoder,
        queries: Batch,
        *,
        recovery: Recovery,
        rng: np.random.Generator,
        progress: Progress = silent,
        goal: int = 0,
    ) -> None:
        """Stand between a selection and the victim.

        Args:
            victim: metered.
            queries: the pool.
            recovery: how inputs are asked and answers cleaned.
            rng: for the recovery.
            progress: told after each call.
            goal: inputs that are going to be asked in all, for progress.
        """
        self._victim, self._queries = victim, queries
        self._recovery, self._rng = recovery, rng
        self._progress, self._goal = progress, goal
        self._rows: dict[int, NDArray[np.float32]] = {}
        self.stopped = False

    def __call__(self, index: NDArray[np.intp]) -> Embeddings:
        """Return the answers (m, d) to m positions, asking for those not asked yet.

        Raises:
            TollkeeperError: the victim stopped, and a position has no answer.
        """
        self.ask(index)
        if not all(int(position) in self._rows for position in index):
            raise ConfigurationError("the victim stopped answering before the selection was done")
        return np.stack([self._rows[int(position)] for position in index])

    def ask(self, index: NDArray[np.intp]) -> None:
        """Ask for the positions not asked yet, as far as the victim answers."""
        new = self.unanswered(index)
        for start in range(0, len(new), BATCH):
            if self.stopped:
                return
            self._ask(new[start : start + BATCH])

    def unanswered(self, index: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the distinct positions that have no answer."""
        distinct = dict.fromkeys(index.tolist())
        return np.array([one for one in distinct if one not in self._rows], dtype=np.intp)

    def _ask(self, index: NDArray[np.intp]) -> None:
        try:
            rows = self._recovery.ask(self._victim, take(self._queries, index), rng=self._rng)
        except TollkeeperError as error:
            # A part may still fit into a budget; of any other failure only the rest is saved.
            size = len(index) // 2 if isinstance(error, BudgetExhausted) else SMALL
            if 0 < size < len(index):
                self._ask_parts(index, size)
                return
            self.stopped = True
            if not self._rows:
                raise
            return
        self._rows.update(zip(index.tolist(), rows, strict=True))
        self._progress(Step("asking", len(self._rows), max(self._goal, len(self._rows))))

    def _ask_parts(self, index: NDArray[np.intp], size: int) -> None:
        """Ask for a failed batch part by part; a live target has answered some already."""
        for start in range(0, len(index), size):
            if not self.stopped:
                self._ask(index[start : start + size])

    def answered(self) -> Answers:
        """Return everything answered so far."""
        index = np.fromiter(self._rows, dtype=np.intp)
        return Answers(index, np.stack(list(self._rows.values())).astype(np.float32))
