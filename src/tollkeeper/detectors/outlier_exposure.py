"""Outlier Exposure: a classifier trained to be unsure of strange pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors.base import check_queries
from tollkeeper.detectors.networks import Network, Rows, log_sum_exp, softmax
from tollkeeper.errors import DetectorError
from tollkeeper.types import Images, Probabilities, Scores


def _max_softmax(logits: Rows, classes: int) -> NDArray[np.float64]:
    # 1 - max loses all digits of a confident answer; the sum of the others keeps them.
    others = np.sort(softmax(logits[:, :classes]), axis=1)[:, :-1]
    found: NDArray[np.float64] = others.sum(axis=1)
    return found


def _uniformity(logits: Rows, classes: int) -> NDArray[np.float64]:
    seen = logits[:, :classes]
    found: NDArray[np.float64] = seen.mean(axis=1) - log_sum_exp(seen)
    return found


def _shadow(logits: Rows, classes: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = softmax(logits)[:, classes:].sum(axis=1)
    return found


STATISTICS: Mapping[str, Callable[[Rows, int], NDArray[np.float64]]] = {
    "max-softmax": _max_softmax,
    "uniformity": _uniformity,
    "shadow": _shadow,
}
"""What the network's logits say: 1 - max softmax; mean z - logsumexp z, the cross-entropy
to uniform with its sign changed; the probability of a class of outliers, where there is one."""


class OutlierExposure:
    """Scores a query by how unsure a network trained with outliers is of it.

    The network is a victim too: `answer` gives its probabilities, and its graph (`model`) can be
    served in the place of the victim, whose own answers then carry the score.

    Source: Hendrycks, Mazeika and Dietterich, "Deep Anomaly Detection with Outlier Exposure",
    ICLR 2019, equation 2; as a rival of SAME: Xie et al., AAAI 2024, table 1.
    Notes: SAME does not name the score it used; 1 - max softmax is the default of the original's
    code and here. `shadow` reads the extra class of the variant in SAME's released code.

    Attributes:
        name: "oe".
        statistic: key of `STATISTICS`.
    """

    kind: ClassVar[str] = "oe"

    def __init__(
        self,
        model: bytes,
        *,
        classes: int,
        statistic: str = "max-softmax",
        threads: int = 1,
        name: str = "oe",
    ) -> None:
        """Open a network of (n, c, h, w) in [0, 1] to (n, k) logits, or (n, k + 1) with a shadow.

        Raises:
            DetectorError: no such statistic, or no fit network.
        """
        if statistic not in STATISTICS:
            raise DetectorError(f"expected one of {sorted(STATISTICS)}, got {statistic!r}")
        self.name, self.statistic, self.classes = name, statistic, classes
        self._network = Network(model, threads=threads, name=name)
        self.shape = self._network.shape

    @property
    def model(self) -> bytes:
        """The network's ONNX graph."""
        return self._network.source

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries; see `Detector`."""
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        return STATISTICS[self.statistic](self._network.logits(inputs), self.classes)

    def answer(self, inputs: Images) -> Probabilities:
        """Return the (n, k) probabilities of the network itself, without any shadow class."""
        logits = self._network.logits(inputs)[:, : self.classes]
        found: Probabilities = softmax(logits).astype(np.float32)
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return plain parameters and blobs."""
        parameters = {"classes": self.classes, "statistic": self.statistic, "name": self.name}
        return parameters, {"network": self.model}

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int = 1
    ) -> Self:
        """Return what `pack` took apart."""
        return cls(blobs["network"], threads=threads, **parameters)
