"""How rare a number is among honest ones: the common scale of signals that have no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Scores

FEWEST = 100
"""Honest numbers needed: fewer say nothing about one in a hundred."""

_SHARE = 0.05
_KNOTS = 257
_LEAST = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Upper tail probabilities of a number, from honest ones.

    Between honest numbers the probability is their conformal p-value, (1 + how many are as large) /
    (1 + how many there are), interpolated in its logarithm; above the largest it falls
    exponentially, at the mean excess of the largest twentieth. That part is a guess: it orders
    numbers that no honest one reached and is no probability.

    Attributes:
        at: (m,) increasing numbers.
        rarity: (m,) minus the logarithm of the probability to be at least as large.
        scale: by how much a number above the last must grow for `rarity` to grow by one.
    """

    at: NDArray[np.float64]
    rarity: NDArray[np.float64]
    scale: float

    @classmethod
    def fitted(cls, honest: Scores) -> Self:
        """Return the tail of (n,) honest numbers.

        Raises:
            ConfigurationError: too few, or not finite.
        """
        if honest.ndim != 1 or len(honest) < FEWEST or not np.isfinite(honest).all():
            raise ConfigurationError(
                f"expected at least {FEWEST} finite honest scores, got shape {honest.shape}; give "
                "more honest traffic"
            )
        ordered = np.sort(honest)
        at, first = np.unique(ordered, return_index=True)
        rarity = -np.log((len(ordered) - first + 1) / (len(ordered) + 1))
        # Knots evenly spaced in rarity lie where precision matters, among the rarest.
        wanted = np.linspace(0, rarity[-1], _KNOTS)
        kept = np.unique(np.minimum(np.searchsorted(rarity, wanted), len(at) - 1))
        largest = ordered[-max(2, int(len(ordered) * _SHARE)) :]
        spread = float((largest - largest[0]).mean())
        return cls(at[kept], rarity[kept], max(spread, _LEAST))

    def __call__(self, scores: Scores) -> Scores:
        """Return (n,) minus the logarithms of tail probabilities, at least 0."""
        beyond = np.maximum(scores - self.at[-1], 0) / self.scale
        found: Scores = np.interp(scores, self.at, self.rarity) + beyond
        return found

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the tail as arrays."""
        return {"at": self.at, "rarity": self.rarity, "scale": np.array([self.scale])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Self:
        """Return what `arrays` took apart."""
        return cls(arrays["at"], arrays["rarity"], float(arrays["scale"][0]))
