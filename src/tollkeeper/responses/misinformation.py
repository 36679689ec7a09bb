"""Adaptive misinformation: unsure answers come from a network that has learned to be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError, EncoderError
from tollkeeper.graphs import Graph
from tollkeeper.responses.simplex import normalized, softmax
from tollkeeper.types import Images, Probabilities


@dataclass(frozen=True, slots=True, eq=False)
class AdaptiveMisinformation:
    """Mixes in a misinformer where the victim is unsure. May change the arg-max there.

    p' = (1 - a) p + a p_M with a = 1 / (1 + exp(steepness (max p - threshold))).
    Source: Kariyappa and Qureshi, "Defending Against Model Stealing Attacks with Adaptive
    Misinformation", CVPR 2020; steepness 1000 as in the paper (its code has 10,000).
    Notes: the gate is a step, so whoever probes around it finds the threshold.

    Attributes:
        misinformer: from (n, c, h, w) to logits (n, k), the graph's first output.
        threshold: τ; the confidence at which half of the answer is wrong.
        steepness: ν.
    """

    misinformer: Graph
    threshold: float = 0.99
    steepness: float = 1000.0
    name: ClassVar[str] = "adaptive-misinformation"

    def __post_init__(self) -> None:
        """Refuse a gate that is none.

        Raises:
            ConfigurationError: a threshold outside [0, 1], or a steepness that is not positive.
        """
        if not (0 <= self.threshold <= 1 and 0 < self.steepness < np.inf):
            raise ConfigurationError(
                "expected a threshold from 0 to 1 and a steepness above 0, got "
                f"{self.threshold} and {self.steepness}"
            )

    def __call__(self, inputs: Images, outputs: Probabilities, *, key: bytes) -> Probabilities:
        """Return mixed rows.

        Raises:
            EncoderError: the misinformer failed or has other classes.
        """
        if not len(outputs):
            return outputs
        logits = self.misinformer.run(inputs)[self.misinformer.outputs[0]]
        if logits.shape != outputs.shape:
            raise EncoderError(
                f"{self.misinformer.name} answered shape {logits.shape}, the victim "
                f"{outputs.shape}; it was fitted for another victim"
            )
        share = self.share(outputs)[:, np.newaxis]
        return normalized((1 - share) * outputs + share * softmax(logits))

    def share(self, outputs: Probabilities) -> NDArray[np.float64]:
        """Return a, (n,): how much of each answer is misinformation."""
        surplus = outputs.max(axis=1).astype(np.float64) - self.threshold
        found: NDArray[np.float64] = 0.5 * (1 - np.tanh(self.steepness * surplus / 2))
        return found
