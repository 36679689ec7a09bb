"""Responses that need no network: fewer classes, fewer digits, keyed noise, reverse sigmoid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError
from tollkeeper.responses.draws import normals, uniforms
from tollkeeper.responses.simplex import normalized, with_label
from tollkeeper.types import Images, Probabilities

_SMALLEST = 1e-9
"""Probabilities are held this far from 0 and 1 before a logit."""

_MOST_DECIMALS = 7
"""As many as float32 keeps."""


@dataclass(frozen=True, slots=True)
class TopK:
    """Answers with the k most likely classes; the others are zero. Keeps the arg-max.

    Of equal classes the first stays, as the arg-max has it.
    Source: Orekondy et al., KnockoffNets, CVPR 2019, released code (truncation).
    Notes: what stays is scaled to sum to one; the released code leaves it as it is, and the sum
    tells what was cut off.

    Attributes:
        k: classes that stay.
    """

    k: int
    name: ClassVar[str] = "top-k"

    def __post_init__(self) -> None:
        """Refuse fewer than one class.

        Raises:
            ConfigurationError: says so.
        """
        _check(self.k >= 1, f"expected a top_k of at least 1, got {self.k}")

    def __call__(self, inputs: Images, outputs: Probabilities, *, key: bytes) -> Probabilities:
        """Return the k largest of each row."""
        if self.k >= outputs.shape[1]:
            return outputs
        dropped = np.argsort(-outputs, axis=1, kind="stable")[:, self.k :]
        kept = outputs.astype(np.float64)
        np.put_along_axis(kept, dropped, 0.0, axis=1)
        return normalized(kept)


@dataclass(frozen=True, slots=True)
class Rounded:
    """Answers in multiples of 10^-decimals; 0 decimals leave the label alone. Keeps the arg-max.

    Source: rounding as in Tang et al., ModelGuard, USENIX Security 2024, released code.
    Notes: each entry is rounded down and what is missing to one goes to the largest remainders,
    so rows sum to one and 0 decimals mean one-hot; rounding entry by entry does neither. Of
    classes that would tie the true one gets a unit of another's.

    Attributes:
        decimals: digits behind the point.
    """

    decimals: int
    name: ClassVar[str] = "rounded"

    def __post_init__(self) -> None:
        """Refuse digits that there are not.

        Raises:
            ConfigurationError: says how many there are.
        """
        _check(
            0 <= self.decimals <= _MOST_DECIMALS,
            f"expected 0 to {_MOST_DECIMALS} decimals, got {self.decimals}",
        )

    def __call__(self, inputs: Images, outputs: Probabilities, *, key: bytes) -> Probabilities:
        """Return each row in units."""
        whole = 10**self.decimals
        rows = outputs.astype(np.float64)
        scaled = rows / rows.sum(axis=1, keepdims=True) * whole
        units = np.floor(scaled)
        missing = whole - units.sum(axis=1, keepdims=True)
        largest_first = np.argsort(units - scaled, axis=1, kind="stable")
        ranks = np.argsort(largest_first, axis=1, kind="stable")
        units += ranks < missing
        _untie(units, outputs.argmax(axis=1))
        found: Probabilities = (units / whole).astype(np.float32)
        return found


def _untie(units: NDArray[np.float64], labels: NDArray[np.intp]) -> None:
    """Give a label that another class has caught up with one of that class's units."""
    every = np.arange(len(units))
    others = units.copy()
    others[every, labels] = -1
    # The last of equals, which is the least likely where the answer is sorted.
    rival = units.shape[1] - 1 - others[:, ::-1].argmax(axis=1)
    tied = others[every, rival] >= units[every, labels]
    units[every[tied], labels[tied]] += 1
    units[every[tied], rival[tied]] -= 1


@dataclass(frozen=True, slots=True)
class KeyedNoise:
    """Adds Gaussian noise to probabilities, the same for the same input. May change the arg-max.

    p' is max(0, p + N(0, scale^2)), scaled to sum to one.
    Source: Gaussian noise as in the Adversarial Robustness Toolbox.
    Notes: there it is drawn anew each time and averages out over repeats. Pictures that differ
    by a level of a pixel draw anew here too.

    Attributes:
        scale: standard deviation.
    """

    scale: float = 0.2
    name: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        """Refuse a scale that is not positive.

        Raises:
            ConfigurationError: says so.
        """
        _check(_positive(self.scale), f"expected a noise scale above 0, got {self.scale}")

    def __call__(self, inputs: Images, outputs: Probabilities, *, key: bytes) -> Probabilities:
        """Return noisy rows."""
        drawn = normals(key, b"noise/1", inputs, outputs.shape[1])
        return normalized(outputs.astype(np.float64) + self.scale * drawn)


@dataclass(frozen=True, slots=True)
class KeyedLogitNoise:
    """Adds noise to each class's logit, the same for the same input. May change the arg-max.

    z = log(p / (1 - p)) moves by a vector uniform in [0, 2 radius / sqrt(k)]^k, shortened to
    `radius` where it is longer; p' is its sigmoid, scaled to sum to one.
    Source: random noise of Orekondy et al., "Prediction Poisoning", ICLR 2020, released code.
    Notes: keyed as in `KeyedNoise`.

    Attributes:
        radius: the L2 norm that the noise has at most.
    """

    radius: float = 2.0
    name: ClassVar[str] = "logit-noise"

    def __post_init__(self) -> None:
        """Refuse a radius that is not positive.

        Raises:
            ConfigurationError: says so.
        """
        _check(_positive(self.radius), f"expected a noise radius above 0, got {self.radius}")

    def __call__(self, inputs: Images, outputs: Probabilities, *, key: bytes) -> Probabilities:
        """Return noisy rows."""
        classes = outputs.shape[1]
        moved = uniforms(key, b"logit-noise/1", inputs, classes) * 2 * self.radius / classes**0.5
        length = np.linalg.norm(moved, axis=1, keepdims=True)
        moved *= np.minimum(1.0, self.radius / length)
        return normalized(_sigmoid(_logit(outputs) + moved))


@dataclass(frozen=True, slots=True)
class ReverseSigmoid:
    """Makes two probabilities look like one. Keeps the arg-max of a class above one half.

    p' is max(0, p - beta (sigmoid(gamma logit(p)) - 1/2)), scaled to sum to one. Where no class is
    above one half, one that had next to nothing can come out on top.
    Source: Lee et al., "Defending Against Neural Network Model Stealing Attacks Using Deceptive
    Perturbations", 2019; beta and gamma as in the Adversarial Robustness Toolbox.
    Notes: probabilities are held 1e-9 from 0 and 1; other code returns infinity there, and
    negative entries where it does not clip.

    Attributes:
        beta: how far an entry may move.
        gamma: how early it moves.
    """

    beta: float = 1.0
    gamma: float = 0.1
    name: ClassVar[str] = "reverse-sigmoid"

    def __post_init__(self) -> None:
        """Refuse what turns answers over or makes them all alike.

        Raises:
            ConfigurationError: says so.
        """
        inside = 0 < self.beta <= 1 and 0 < self.gamma <= 1
        _check(
            inside and self.beta * self.gamma < 1,
            f"expected beta and gamma above 0 and at most 1, not both 1 (every answer would be "
            f"uniform), got {self.beta} and {self.gamma}",
        )

    def __call__(self, inputs: Images, outputs: Probabilities, *, key: bytes) -> Probabilities:
        """Return deceptive rows."""
        moved = self.beta * (_sigmoid(self.gamma * _logit(outputs)) - 0.5)
        labels = outputs.argmax(axis=1)
        found = normalized(outputs - moved)
        sure = outputs.max(axis=1, initial=0.0) > 0.5
        found[sure] = with_label(found[sure], labels[sure])
        return found


def _check(holds: bool, message: str) -> None:  # noqa: FBT001 - the condition itself
    if not holds:
        raise ConfigurationError(message)


def _positive(value: float) -> bool:
    return 0 < value < math.inf


def _logit(outputs: Probabilities) -> NDArray[np.float64]:
    inside = np.clip(outputs.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    found: NDArray[np.float64] = np.log(inside) - np.log1p(-inside)
    return found


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 0.5 * (1 + np.tanh(values / 2))
    return found
