"""How classifiers are asked: within the budget, around refusals, each picture once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.asking import BATCH, SMALL, remaining
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.inputs import digest
from tollkeeper.errors import (
    AuthenticationError,
    BudgetExhausted,
    RefusalError,
    SuspendedError,
    TollkeeperError,
)
from tollkeeper.lab.progress import Progress, Step, silent
from tollkeeper.types import Images, Probabilities

View = Callable[[Images], Images]
"""What becomes of (n, c, h, w) pictures before they are asked; as many of the same shape."""

PATIENCE = 32
"""Pictures refused one by one in a row before the victim is taken to be gone."""

_FOR_GOOD = (AuthenticationError, BudgetExhausted, SuspendedError)


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What came of one question.

    Attributes:
        index: (m,) positions of what was answered among what was given, ascending.
        images: (m, c, h, w) as they were asked.
        answers: (m, k).
    """

    index: NDArray[np.intp]
    images: Images
    answers: Probabilities


class Line:
    """Asks for pictures as far as the budget and the victim allow.

    A refused picture is left out, as a detector may refuse one and answer the next. A victim that
    fails, bars the account or refuses `PATIENCE` pictures in a row is asked no more; that is an
    error only if it never answered.

    Attributes:
        dim: number of classes.
        budget: distinct pictures that could be asked at the start.
        stopped: whether the victim is asked no more.
    """

    def __init__(
        self, victim: Encoder, *, view: View | None = None, progress: Progress = silent
    ) -> None:
        """Stand before a metered victim."""
        self.dim, self.budget, self.stopped = victim.dim, remaining(victim), False
        self._victim, self._view, self._progress = victim, view, progress
        self._any, self._refused = False, 0

    @property
    def left(self) -> int:
        """Distinct pictures that may still be asked; 0 once the victim is asked no more."""
        return 0 if self.stopped else remaining(self._victim)

    def __call__(self, images: Images) -> Answered:
        """Ask for n pictures, or for the first of them if the budget has no more.

        Raises:
            TollkeeperError: the victim stopped before it had answered anything.
        """
        return self.put(self.seen(images))

    def seen(self, images: Images) -> Images:
        """Return n pictures as the victim would see them."""
        if self._view is None or len(images) == 0:
            return images
        viewed: Images = np.clip(self._view(images), 0, 1, dtype=np.float32)
        return viewed

    def put(self, images: Images) -> Answered:
        """Ask for n pictures as they are; otherwise like a call."""
        images = images[: self.left]
        index, rows = [np.empty(0, np.intp)], [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(images), BATCH):
            self._ask(images, np.arange(start, min(start + BATCH, len(images))), index, rows)
            done = self.budget - remaining(self._victim)
            self._progress(Step("asking", done, self.budget, queries=done))
        at = np.concatenate(index)
        return Answered(at, images[at], np.concatenate(rows))

    def _ask(
        self,
        images: Images,
        at: NDArray[np.intp],
        index: list[NDArray[np.intp]],
        rows: list[Probabilities],
    ) -> None:
        """Ask for the pictures at some positions; add those answered, and their answers."""
        if self.stopped:
            return
        try:
            found = self._victim.embed(images[at])
        except TollkeeperError as error:
            size = _part(error, len(at))
            if size:
                for start in range(0, len(at), size):
                    self._ask(images, at[start : start + size], index, rows)
                return
            self._refused += 1
            passing = isinstance(error, RefusalError) and not isinstance(error, _FOR_GOOD)
            self.stopped = not passing or self._refused >= PATIENCE
            if self.stopped and not self._any:
                raise
            return
        self._any, self._refused = True, 0
        index.append(at)
        rows.append(found)


def _part(error: TollkeeperError, asked: int) -> int:
    """Return how many pictures to ask at once after a failed call; 0 to ask none of them again."""
    if isinstance(error, AuthenticationError | SuspendedError):
        return 0
    # One picture may have been refused; of any other failure only the rest is saved.
    size = -(-asked // 2) if isinstance(error, RefusalError) else SMALL
    return size if size < asked else 0


class Transfer:
    """Everything asked so far with its answer, so that asking again is free.

    Attributes:
        line: to the victim.
    """

    def __init__(self, line: Line) -> None:
        """Start with nothing."""
        self.line = line
        self._images: list[Images] = []
        self._answers: list[Probabilities] = []
        self._marks: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._marks)

    @property
    def images(self) -> Images:
        """The distinct pictures that were answered, (n, c, h, w) in asking order."""
        self._images = [np.concatenate(self._images)]
        return self._images[0]

    @property
    def answers(self) -> Probabilities:
        """Their answers, (n, k)."""
        self._answers = [np.concatenate(self._answers)]
        return self._answers[0]

    def ask(self, images: Images) -> Answered:
        """Ask for those of n pictures that have no answer yet, each once, and keep the answers.

        Returns:
            What is new.

        Raises:
            TollkeeperError: the victim stopped before it had answered anything.
        """
        images = self.line.seen(images)
        marks = [digest(image, "tensor") for image in images]
        first: dict[bytes, int] = {}
        for position, mark in enumerate(marks):
            if mark not in self._marks:
                first.setdefault(mark, position)
        new = np.fromiter(first.values(), np.intp, len(first))
        found = self.line.put(images[new])
        index = new[found.index]
        self._marks |= {marks[at] for at in index}
        self._images.append(found.images)
        self._answers.append(found.answers)
        return Answered(index, found.images, found.answers)
