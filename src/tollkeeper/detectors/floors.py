"""Floors: one-line scores that a learned detector must beat to be worth its cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from tollkeeper.detectors.base import check_queries
from tollkeeper.detectors.networks import log_sum_exp, run_graph
from tollkeeper.detectors.signals import FEWEST_PIXELS, color_detail
from tollkeeper.errors import ConfigurationError
from tollkeeper.graphs import Graph
from tollkeeper.types import Images, Probabilities, Scores

LOGITS = "logits"
"""Name of the output that `Energy` reads."""

OFF_BACKGROUND = (0.015, 0.125)
"""How far from the background the band of `PixelShare.fitted` lies: (-0.97, -0.75) in [-1, 1] where
the background is -1, as in the method spec; a perturbation of one step of 0.1 there ends inside."""

_LEVELS = 256


class MaxSoftmax:
    """One minus the victim's largest probability.

    Source: Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
    Examples in Neural Networks", ICLR 2017.

    Attributes:
        name: "max-softmax".
        shape: (c, h, w) of queries.
        classes: of the victim.
    """

    kind: ClassVar[str] = "max-softmax"
    name = "max-softmax"

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        """Say what queries and answers look like."""
        self.shape, self.classes = shape, classes

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries; see `Detector.score`."""
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        found: Scores = 1 - outputs.max(axis=1).astype(np.float64)
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the parameters."""
        return {"shape": list(self.shape), "classes": self.classes}, {}

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int
    ) -> Self:
        """Return what `pack` took apart."""
        return cls(_shape(parameters), int(parameters["classes"]))


class Energy:
    """The free energy of the victim's logits, -log sum exp z; more is more suspicious.

    Source: Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020, equation 4, at
    temperature 1.
    Notes: answers do not hold it. log p = z - log sum exp z, and adding a number to all logits of
    a query changes its energy but not its answer; so the victim runs once more, as a graph that
    returns logits.

    Attributes:
        name: "energy".
        shape: (c, h, w) of queries.
        classes: of the victim.
    """

    kind: ClassVar[str] = "energy"
    name = "energy"

    def __init__(self, victim: Graph, *, classes: int) -> None:
        """Hold the victim.

        Args:
            victim: from (n, c, h, w) in [0, 1] to (n, k) `logits`.
            classes: k.

        Raises:
            ConfigurationError: a graph of other inputs or outputs.
        """
        shape = victim.inputs
        if len(shape) != 3 or None in shape or LOGITS not in victim.outputs:
            raise ConfigurationError(
                f"expected a graph from (n, c, h, w) to {LOGITS}, got inputs {shape} and outputs "
                f"{victim.outputs}; probabilities do not tell the energy"
            )
        self.shape: tuple[int, int, int] = shape  # type: ignore[assignment]
        self.victim, self.classes = victim, int(classes)

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries; see `Detector.score`."""
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        return -log_sum_exp(run_graph(self.victim, inputs)[LOGITS].astype(np.float64))

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the parameters and the graph."""
        return {"classes": self.classes}, {"victim": self.victim.to_bytes()}

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int
    ) -> Self:
        """Return what `pack` took apart."""
        graph = Graph(blobs["victim"], threads=threads, name="victim")
        return cls(graph, classes=int(parameters["classes"]))


class PixelShare:
    """The share of a query's pixels whose value lies strictly between two numbers.

    Source: the method spec of this project, section 7.4: on MNIST, the pixels slightly off the
    background tell every perturbed picture.

    Attributes:
        name: "pixel-share".
        shape: (c, h, w) of queries.
        classes: of the victim.
        low: lower end, in [0, 1].
        high: upper end.
    """

    kind: ClassVar[str] = "pixel-share"
    name = "pixel-share"

    def __init__(self, shape: tuple[int, int, int], classes: int, low: float, high: float) -> None:
        """Say what queries and answers look like, and what to count.

        Raises:
            ConfigurationError: the ends are out of range or out of order.
        """
        if not 0 <= low < high <= 1:
            raise ConfigurationError(f"expected a band 0 <= low < high <= 1, got ({low}, {high})")
        self.shape, self.classes, self.low, self.high = shape, classes, low, high

    @classmethod
    def fitted(cls, images: Images, *, classes: int) -> Self:
        """Return a detector of the band beside the background of honest pictures.

        The background is the most frequent of 256 levels; the band lies on the side with room.

        Args:
            images: (n, c, h, w) float32 in [0, 1], honest; no attack is looked at.
            classes: of the victim.

        Raises:
            ConfigurationError: no pictures.
        """
        if images.ndim != 4 or not images.size:
            raise ConfigurationError(f"expected (n, c, h, w) pictures, got shape {images.shape}")
        levels = np.rint(images * (_LEVELS - 1)).astype(np.intp)
        background = int(np.bincount(levels.ravel()).argmax()) / (_LEVELS - 1)
        near, far = OFF_BACKGROUND
        low, high = background + near, background + far
        if background > 0.5:
            low, high = background - far, background - near
        _, c, h, w = images.shape
        return cls((c, h, w), classes, low, high)

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries; see `Detector.score`."""
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        found: Scores = ((inputs > self.low) & (inputs < self.high)).mean(axis=(1, 2, 3))
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the parameters."""
        band = {"low": self.low, "high": self.high}
        return {"shape": list(self.shape), "classes": self.classes, **band}, {}

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int
    ) -> Self:
        """Return what `pack` took apart."""
        ends = float(parameters["low"]), float(parameters["high"])
        return cls(_shape(parameters), int(parameters["classes"]), *ends)


class ColorDetail:
    """Minus the mean of `color_detail`: how little the fine detail of the channels agrees.

    Attributes:
        name: "color-detail".
        shape: (c, h, w) of queries.
        classes: of the victim.
    """

    kind: ClassVar[str] = "color-detail"
    name = "color-detail"

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        """Say what queries and answers look like.

        Raises:
            ConfigurationError: gray pictures, or too small ones.
        """
        if shape[0] < 2 or min(shape[1:]) < FEWEST_PIXELS:
            raise ConfigurationError(
                f"expected pictures of at least 2 channels and 3 x 3 pixels, got {shape}; gray "
                "pictures have no color to compare"
            )
        self.shape, self.classes = shape, classes

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries; see `Detector.score`."""
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        found: Scores = -color_detail(inputs).mean(axis=1)
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the parameters."""
        return {"shape": list(self.shape), "classes": self.classes}, {}

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int
    ) -> Self:
        """Return what `pack` took apart."""
        return cls(_shape(parameters), int(parameters["classes"]))


def _shape(parameters: Mapping[str, Any]) -> tuple[int, int, int]:
    c, h, w = map(int, parameters["shape"])
    return c, h, w
