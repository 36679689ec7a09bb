"""What a detector is: a score of suspicion for each query of a prediction API.

Detectors advise and policy decides. A score says only that more is more suspicious; what it means
is its rank in honest traffic.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from tollkeeper.errors import DetectorError
from tollkeeper.types import Images, Probabilities, Scores


@runtime_checkable
class Detector(Protocol):
    """Scores queries one by one: no query changes the score of another.

    Attributes:
        name: as experiments and records call it.
    """

    name: str

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries.

        Args:
            inputs: (n, c, h, w) float32 in [0, 1]; the very tensors that the victim answered.
            outputs: (n, k) float32, what the victim answered, before any response changes it.

        Returns:
            (n,) float64, finite; higher is more suspicious.

        Raises:
            DetectorError: tensors or answers that the detector was not fitted for.
        """
        ...


@runtime_checkable
class AccountDetector(Protocol):
    """Scores queries in the light of what their account asked before.

    Attributes:
        name: as experiments and records call it.
        state_bytes: the most that an account's state can take.
    """

    name: str
    state_bytes: int

    def empty(self) -> bytes:
        """Return the state of an account that has asked nothing."""
        ...

    def update(self, state: bytes, inputs: Images, outputs: Probabilities) -> tuple[Scores, bytes]:
        """Score an account's next n queries in their order.

        Args:
            state: what the last call returned, or `empty()`.
            inputs: (n, c, h, w) float32 in [0, 1].
            outputs: (n, k) float32, before any response changes it.

        Returns:
            (n,) float64 suspicion of the account after each query, and the new state.

        Raises:
            DetectorError: wrong shapes, or a state of another detector.
        """
        ...


def check_queries(
    inputs: Images, outputs: Probabilities, *, shape: tuple[int, int, int], classes: int, name: str
) -> None:
    """Refuse what detector `name` was not fitted for.

    Raises:
        DetectorError: another shape, values out of range, or answers that are no probabilities.
    """
    if inputs.ndim != 4 or inputs.shape[1:] != shape or inputs.dtype != np.float32:
        raise DetectorError(
            f"{name} was fitted for float32 tensors of shape (n, {', '.join(map(str, shape))}), "
            f"got {inputs.dtype} {inputs.shape}"
        )
    if inputs.size and not (inputs.min() >= 0 and inputs.max() <= 1):
        raise DetectorError(f"{name} expected values from 0 to 1 and no NaN")
    if outputs.shape != (len(inputs), classes):
        raise DetectorError(
            f"{name} was fitted for {classes} classes, got answers of shape {outputs.shape} to "
            f"{len(inputs)} inputs"
        )
    sums = outputs.sum(axis=1, dtype=np.float64)
    if outputs.size and not (outputs.min() >= 0 and np.abs(sums - 1).max() <= 1e-3):
        raise DetectorError(f"{name} expected probabilities that sum to 1 in each row")
