"""The toolkit's attacks with the small networks of the ownership experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks import presets
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.direct import Direct
from tollkeeper.attacks.objectives import MSE, InfoNCE
from tollkeeper.attacks.recovery.standardized import Standardized
from tollkeeper.attacks.trained import Trained
from tollkeeper.bench.ownership.networks import Small
from tollkeeper.encoders.base import Encoder
from tollkeeper.lab.fit import Schedule


@dataclass(frozen=True, slots=True)
class Means:
    """What a thief trains with.

    Attributes:
        network: architecture of the copy.
        epochs: passes over the answers.
        batch: rows per step.
        rate: of Adam.
    """

    network: Small = field(default_factory=Small)
    epochs: int = 50
    batch: int = 256
    rate: float = 1e-3

    def schedule(self, budget: int) -> Schedule:
        """Return the schedule for so many answers."""
        return Schedule(
            epochs=self.epochs, batch=max(2, min(self.batch, budget // 4)), rate=self.rate
        )


def steal(
    name: str,
    victim: Encoder,
    pool: NDArray[np.uint8],
    *,
    budget: int,
    rng: np.random.Generator,
    means: Means | None = None,
) -> Encoder:
    """Return a copy of a victim.

    Args:
        name: of `THIEVES`.
        victim: open, or a guarded one's account.
        pool: (n, 16, 16, 3) uint8, at least `budget` images where the attack asks each once.
        budget: distinct queries.
        rng: all randomness.
        means: of the thief.
    """
    means = means or Means()
    attack = THIEVES[name]()
    # Every attack is a dataclass; mypy does not know that of the base class.
    changes: dict[str, Any] = {
        "network": means.network,
        "schedule": means.schedule(budget // attack.asks_per_input),
    }
    fitted: Attack = replace(attack, **changes)
    return fitted(victim, pool, budget=budget, rng=rng, clock=_no_clock).surrogate


def _no_clock() -> float:
    """Stand for a clock where nobody reads the seconds."""
    return 0.0


def _mse() -> Direct:
    return Direct(objective=MSE(), recovery=Standardized())


def _infonce() -> Direct:
    return Direct(objective=InfoNCE(0.2), recovery=Standardized())


THIEVES: Mapping[str, Callable[[], Trained]] = {
    "mse": _mse,
    "infonce": _infonce,
    "cont_steal": presets.cont_steal,
    "stolen_encoder": presets.stolen_encoder,
    "rda": presets.rda,
}
"""Attacks by name. The first two standardize the answers, which undoes a shift and scale of each
coordinate; the others are as published but for network and schedule."""
