"""Stop at the knee: notice the first perturbed answer, and leave the account before it matters.

A guard that answers the same question with the same bytes at one price level, and otherwise at
the next, tells a thief when the level has changed: asking an old question again costs nothing.
Each account is left when its first answer is no longer what it was, and what it has not
answered goes to the accounts that are still clean. Answers so collected carry no noise, so
there is nothing to denoise; what they cost is accounts. Against fresh noise a repeat differs as
soon as the noise is larger than rounding, long before it matters; average repeats there.

Not published; named in the literature as the obvious reply to a price that rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.asking import remaining
from tollkeeper.attacks.behind import Behind
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.inputs import digest, require
from tollkeeper.errors import BudgetExhausted, ConfigurationError
from tollkeeper.types import Batch, Embeddings

EVERY = 16
"""Inputs asked between two looks at the canary: as many answers can be noisy and are lost."""

ROUNDING = 1e-3
"""Share of an answer's norm that is no noise: a service that computes in half precision, or in
other batches, rounds by less, and the first price level of a guard that is felt adds more."""

_CHANGED = (
    "this account's answers have changed; it is asked no more (a target that rounds more "
    "needs more `rounding`)"
)


class Canary:
    """An account that refuses as soon as its answers change, and remembers the clean ones.

    Attributes:
        tripped: whether they have changed.
    """

    def __init__(self, account: Encoder, *, every: int = EVERY, rounding: float = ROUNDING) -> None:
        """Watch a metered account that has not been asked anything.

        Args:
            account: whom to watch.
            every: inputs asked between two looks; as many can be lost.
            rounding: share of an answer's norm by which it may change unnoticed.
        """
        self.name, self.dim, self.accepts = account.name, account.dim, account.accepts
        self.tripped = False
        self._account, self._every, self._rounding = account, every, rounding
        self._first: tuple[Any, NDArray[np.float32]] | None = None
        self._known: dict[bytes, NDArray[np.float32]] = {}

    @property
    def remaining(self) -> int:
        """Distinct inputs that may still be asked."""
        return remaining(self._account)

    def embed(self, inputs: Batch) -> Embeddings:
        """Return (n, d) answers that were given before the first change.

        Raises:
            BudgetExhausted: an input has no clean answer and will not get one; smaller calls
                still give those that there are.
            TollkeeperError: from the account.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        kind = require(inputs, self.accepts, name=self.name)
        marks = [digest(item, kind) for item in inputs]
        new = [at for at, mark in enumerate(marks) if mark not in self._known]
        for start in range(0, len(new), self._every):
            self._ask([inputs[at] for at in new[start : start + self._every]], kind)
        return np.stack([self._known[mark] for mark in marks])

    def _ask(self, part: list[Any], kind: Any) -> None:
        if self.tripped:
            raise BudgetExhausted(_CHANGED)
        # Arrays stay arrays: an encoder of images may want one.
        batch: Batch = np.stack(part) if isinstance(part[0], np.ndarray) else part
        rows = self._account.embed(batch)
        if self._first is None:
            self._first = (batch[:1], rows[0].copy())
        question, answer = self._first
        moved = np.linalg.norm(self._account.embed(question)[0] - answer)
        self.tripped = bool(moved > self._rounding * np.linalg.norm(answer))
        if self.tripped:
            raise BudgetExhausted(_CHANGED)
        self._known.update((digest(item, kind), row) for item, row in zip(part, rows, strict=True))


@dataclass(frozen=True, kw_only=True)
class StopAtNoise(Behind):
    """Any attack, through accounts that are left at the first perturbed answer.

    Attributes:
        every: inputs asked between two looks; as many answers can be noisy and are lost.
        rounding: share of an answer's norm by which it may change without being perturbed.
    """

    paper: ClassVar[str] = "ours"
    every: int = EVERY
    rounding: float = ROUNDING

    def __post_init__(self) -> None:
        """Refuse a canary that never sings.

        Raises:
            ConfigurationError: no input between two looks, or a share that is not in [0, 1).
        """
        if self.every < 1 or not 0 <= self.rounding < 1:
            raise ConfigurationError(
                "expected a look every 1 input or more and rounding of a share in [0, 1), got "
                f"{self.every} and {self.rounding}"
            )

    def put(self, account: Encoder, queries: Batch) -> Encoder:
        """Return the account with its canary."""
        del queries
        return Canary(account, every=self.every, rounding=self.rounding)
