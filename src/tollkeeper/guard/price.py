"""Price curves: how much noise an account gets at which coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError


class PriceCurve(Protocol):
    """Coverage to relative noise scale; 0 at coverage 0 and never decreasing."""

    @property
    def free_until(self) -> float:
        """Coverage up to which nothing is paid."""
        ...

    def __call__(self, fractions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) noise scales for (n,) coverage fractions in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Free:
    """No noise at any coverage."""

    @property
    def free_until(self) -> float:
        """All of it."""
        return 1.0

    def __call__(self, fractions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) zeros."""
        return np.zeros(fractions.shape)


@dataclass(frozen=True, slots=True)
class Exponential:
    """B4B's cost function: max(0, λ (exp(ln(α/λ) c/β) - 1)).

    Flat at first, α (less λ) at c = β, exponential beyond and without a cap.
    Notes: the paper states c and β in percent; here they are fractions.
    Source: Dubiński et al., "Bucks for Buckets (B4B)", NeurIPS 2023, section 3.2.

    Attributes:
        flatness: λ, below α; the smaller, the longer the flat start.
        level: α, noise scale at the target.
        target: β, coverage fraction at which the scale is α.
    """

    flatness: float
    level: float
    target: float

    def __post_init__(self) -> None:
        """Refuse constants for which the curve is not a price."""
        if not (0 < self.flatness < self.level < math.inf and 0 < self.target <= 1):
            raise ConfigurationError(
                f"expected 0 < flatness < level and a target in (0, 1], got flatness "
                f"{self.flatness}, level {self.level}, target {self.target}"
            )

    @property
    def free_until(self) -> float:
        """Nothing is free."""
        return 0.0

    def __call__(self, fractions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) scales; 1.00 at 0.8 and 31.6 at 1 for the paper's constants."""
        growth = math.log(self.level / self.flatness) / self.target
        return np.maximum(0.0, self.flatness * (np.exp(growth * fractions) - 1.0))


@dataclass(frozen=True, slots=True)
class Geometric:
    """Nothing up to a knee, then levels that multiply, up to a ceiling.

    Levels make "the same policy level" exact: between two of them the scale does not
    move, so the same question gets the same answer. Growth makes the cleanest answer
    ever given dominate any average over levels: after scales s, g s, g² s, ... the best
    combination has variance above 1 - 1/g² of s squared.

    Attributes:
        knee: last coverage fraction that costs nothing.
        first: scale of the first level.
        step: coverage between two levels.
        levels: number of levels; the ceiling is first * growth**(levels - 1).
        growth: g, what the scale is multiplied by from level to level.
    """

    knee: float
    first: float
    step: float
    levels: int
    growth: float = 2.0

    def __post_init__(self) -> None:
        """Refuse constants for which the curve is not a price."""
        if not (
            0 <= self.knee <= 1
            and 0 < self.first < math.inf
            and 0 < self.step <= 1
            and 1 <= self.levels <= 64
            and 1 < self.growth <= 64
        ):
            raise ConfigurationError(
                f"expected a knee in [0, 1], a positive first scale, a step in (0, 1], 1 to 64 "
                "levels and a growth in (1, 64], got "
                f"{self.knee}, {self.first}, {self.step}, {self.levels}, {self.growth}"
            )

    @property
    def free_until(self) -> float:
        """The knee."""
        return self.knee

    def __call__(self, fractions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) scales: 0, first, 2 first, ..., never more than the ceiling."""
        scales = np.zeros(fractions.shape)
        paying = fractions > self.knee
        level = np.floor((fractions[paying] - self.knee) / self.step)
        scales[paying] = self.first * self.growth ** np.minimum(level, self.levels - 1)
        return scales
