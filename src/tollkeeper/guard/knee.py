"""Choosing the knee: where honest customers end, at a stated false-penalty rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import CalibrationError
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.profiles import Profile
from tollkeeper.types import Embeddings

MARGIN = 0.02
"""Added to where customers end: what other secrets and tomorrow's inputs can add."""

_SECRETS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Customer:
    """How far one account got.

    Attributes:
        name: the operator's.
        curve: (n,) price signal after each of its inputs, the highest over several secrets.
    """

    name: str
    curve: NDArray[np.float64]

    @property
    def end(self) -> float:
        """The signal after all of its inputs."""
        return float(self.curve[-1])

    def free(self, knee: float) -> int:
        """Return how many inputs it asks before it pays."""
        return int(np.searchsorted(self.curve, knee, side="right"))


def follow(
    profile: Profile,
    calibration: Calibration,
    traffic: Sequence[tuple[str, Embeddings]],
    *,
    rng: np.random.Generator,
) -> list[Customer]:
    """Let accounts ask all they have to ask, under secrets drawn for this alone.

    Args:
        profile: that is going to guard.
        calibration: of the encoder.
        traffic: name and (n, d) clean embeddings of each account, in asking order.
        rng: of the secrets.

    Raises:
        CalibrationError: an account without inputs, or a profile that measures nothing.
    """
    if not profile.tables:
        raise CalibrationError(f"profile {profile.name} measures nothing, so it has no knee")
    guards = [Guard(profile, calibration, secret=rng.bytes(32)) for _ in range(_SECRETS)]
    customers = []
    for name, rows in traffic:
        if not len(rows):
            raise CalibrationError(f"expected inputs of {name}, got none")
        curves = [guard.signal(guard.empty(), rows) for guard in guards]
        customers.append(Customer(name, np.max(curves, axis=0)))
    return customers


def choose(customers: Sequence[Customer], *, false_penalty: float) -> float:
    """Return the smallest knee at which at most a share of customers ever pays.

    Args:
        customers: at least one.
        false_penalty: the share, in [0, 1).

    Raises:
        CalibrationError: no customer, or a share that is none.
    """
    if not customers or not 0 <= false_penalty < 1:
        raise CalibrationError(
            "expected honest traffic and a false-penalty rate in [0, 1), got "
            f"{len(customers)} accounts and {false_penalty}"
        )
    ends = sorted(customer.end for customer in customers)
    paying = math.floor(false_penalty * len(ends))
    return min(1.0, ends[len(ends) - 1 - paying] + MARGIN)
