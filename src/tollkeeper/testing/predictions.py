"""A classifier and detectors that need no model: what they say can be told from a picture's mean."""

from __future__ import annotations

import numpy as np

from tollkeeper.detectors.base import check_queries
from tollkeeper.encoders.base import Modality
from tollkeeper.encoders.classifiers.base import canonical, softmax
from tollkeeper.errors import DetectorError
from tollkeeper.types import Batch, Images, Probabilities, Scores

SHAPE = (1, 4, 4)
CLASSES = ("a", "b", "c")
BRIGHT = 0.8


class ToyClassifier:
    """The softmax of a fixed projection of a 4 x 4 picture, for plumbing and never for quality."""

    accepts: frozenset[Modality] = frozenset({"image", "tensor"})
    rows_independent: bool = True
    input_shape: tuple[int, int, int] = SHAPE
    classes: tuple[str, ...] = CLASSES
    dim: int = len(CLASSES)

    def __init__(self, name: str = "toy-classes") -> None:
        """Name the model."""
        self.name = name
        self._planes = np.random.default_rng(0).normal(size=(self.dim, int(np.prod(SHAPE))))

    def embed(self, inputs: Batch) -> Probabilities:
        """Return (n, 3) float32 probabilities of n pictures or tensors."""
        rows = canonical(inputs, self.input_shape, name=self.name).reshape(len(inputs), -1)
        # Row by row, for a product of matrices adds in another order for other batches.
        logits = (rows[:, None, :].astype(np.float64) * self._planes).sum(axis=-1)
        return softmax(logits, n=len(rows), classes=self.dim)


class BrightnessDetector:
    """Scores a query by its mean: bright is suspicious."""

    name: str = "brightness"

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Return (n,) means; see `Detector`."""
        check_queries(inputs, outputs, shape=SHAPE, classes=len(CLASSES), name=self.name)
        means: Scores = inputs.mean(axis=(1, 2, 3), dtype=np.float64)
        return means


class BrightnessCounter:
    """Scores an account by how many bright pictures it asked."""

    name: str = "brightness-count"
    state_bytes: int = 4

    def empty(self) -> bytes:
        """Return the state of an account that has asked nothing."""
        return bytes(self.state_bytes)

    def update(self, state: bytes, inputs: Images, outputs: Probabilities) -> tuple[Scores, bytes]:
        """Score an account's next n queries; see `AccountDetector`."""
        check_queries(inputs, outputs, shape=SHAPE, classes=len(CLASSES), name=self.name)
        if len(state) != self.state_bytes:
            raise DetectorError(f"expected a state of {self.state_bytes} bytes, got {len(state)}")
        before = int.from_bytes(state, "little")
        counts = before + np.cumsum(inputs.mean(axis=(1, 2, 3)) > BRIGHT)
        after = int(counts[-1]) if len(counts) else before
        return counts.astype(np.float64), after.to_bytes(self.state_bytes, "little")

    def alarm_at(self, rate: float) -> float:
        """Return the count from which on an account is suspicious: 3, whatever the rate."""
        return 3.0 if rate < 1 else 0.0


def pictures(n: int, *, mean: float = 0.3, seed: int = 0) -> Images:
    """Return n different tensors (n, 1, 4, 4) of about this mean."""
    noise = np.random.default_rng([seed, n]).uniform(-0.1, 0.1, size=(n, *SHAPE))
    return np.clip(mean + noise, 0, 1).astype(np.float32)
