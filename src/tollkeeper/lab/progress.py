"""What long work says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """Where the work stands.

    Attributes:
        phase: what is being done: `"asking"`, `"training"` and so on.
        done: steps of the phase that are done.
        total: steps of the phase in all.
        queries: distinct inputs asked so far, where the phase knows.
        loss: mean training loss since the last step, where there is one.
    """

    phase: str
    done: int
    total: int
    queries: int | None = None
    loss: float | None = None


Progress = Callable[[Step], None]
"""Called after each step."""


def silent(step: Step) -> None:
    """Take progress and say nothing."""
