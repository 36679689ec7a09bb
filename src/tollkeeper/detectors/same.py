"""SAME: a query is suspicious if what honest traffic looks like cannot restore it.

A masked autoencoder that saw honest pictures only restores each query. How far the restored picture
is from the query is the first sign; how far an auxiliary classifier's answer to the restored
picture is from the victim's answer to the query is the second.

Source: Xie et al., "SAME: Sample Reconstruction against Model Extraction Attacks", AAAI 2024,
equation 6; units and the KL divergence from the released code.
Notes: scoring masks nothing, so that a score is a fixed function of its query. The second sign is
the divergence of the code, not the squared difference that the paper's text reads as. The released
code leaves its networks in training mode when it reads them from files, where one query changes the
score of another; here a row's score is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors.base import check_queries
from tollkeeper.detectors.networks import log_sum_exp, run_graph
from tollkeeper.errors import ConfigurationError, DetectorError
from tollkeeper.graphs import Graph
from tollkeeper.types import Images, Probabilities, Scores

RESTORED, LATENT, LOGITS = "restored", "latent", "logits"
"""Names of the outputs of the two graphs."""

PUBLISHED_ALPHA = 0.99
"""Weight of the first sign on the released code's command line."""


class Signs(NamedTuple):
    """What SAME sees of n queries.

    Attributes:
        error: (n,) mean squared error of the restored pictures, in [-1, 1] units; s1.
        deviation: (n,) KL(victim's answer || auxiliary answer to the restored picture) / k; s2;
            None where it was not asked for.
        latent: (n, d) mean of what the encoder made of a picture's patches.
    """

    error: Scores
    deviation: Scores | None
    latent: NDArray[np.float32]


class Same:
    """Scores `alpha` s1 + (1 - `alpha`) s2.

    Attributes:
        name: "same"; "same-x" where only s1 counts, "same-y" where only s2 does.
        alpha: in [0, 1].
        shape: (c, h, w) of queries.
        classes: of the victim.
    """

    kind: ClassVar[str] = "same"

    def __init__(
        self,
        reconstruction: Graph,
        auxiliary: Graph | None,
        *,
        classes: int,
        alpha: float = PUBLISHED_ALPHA,
    ) -> None:
        """Hold the two networks.

        Args:
            reconstruction: from (n, c, h, w) in [0, 1] to `restored`, of the same shape, and
                `latent`, (n, d).
            auxiliary: from the restored pictures to (n, k) `logits`; may be None if `alpha` is 1.
            classes: k.
            alpha: weight of s1.

        Raises:
            ConfigurationError: `alpha` out of range, no auxiliary network where one is needed, or
                graphs of other shapes or outputs.
        """
        self.alpha, self.classes = float(alpha), int(classes)
        self.reconstruction, self.auxiliary = reconstruction, auxiliary
        if not 0 <= self.alpha <= 1:
            raise ConfigurationError(f"expected alpha from 0 to 1, got {alpha}")
        if auxiliary is None and self.alpha < 1:
            raise ConfigurationError(
                f"SAME at alpha {alpha:g} needs an auxiliary network; fit one, or take alpha 1"
            )
        shape = reconstruction.inputs
        if len(shape) != 3 or None in shape or {RESTORED, LATENT} - set(reconstruction.outputs):
            raise ConfigurationError(
                f"expected a graph from (n, c, h, w) to {RESTORED} and {LATENT}, got inputs "
                f"{shape} and outputs {reconstruction.outputs}"
            )
        if auxiliary is not None and (auxiliary.inputs != shape or LOGITS not in auxiliary.outputs):
            raise ConfigurationError(
                f"expected an auxiliary graph from {shape} to {LOGITS}, got {auxiliary.inputs} and "
                f"{auxiliary.outputs}"
            )
        self.shape: tuple[int, int, int] = shape  # type: ignore[assignment]
        self.name = {1.0: "same-x", 0.0: "same-y"}.get(self.alpha, "same")

    def weighted(self, alpha: float) -> Same:
        """Return a detector of the same networks at another `alpha`.

        Raises:
            ConfigurationError: as on construction.
        """
        return Same(self.reconstruction, self.auxiliary, classes=self.classes, alpha=alpha)

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries; see `Detector.score`."""
        signs = self.signs(inputs, outputs, deviation=self.alpha < 1)
        if signs.deviation is None:
            return signs.error
        return self.alpha * signs.error + (1 - self.alpha) * signs.deviation

    def signs(self, inputs: Images, outputs: Probabilities, *, deviation: bool = True) -> Signs:
        """Return all that a score is made of, in one pass.

        Args:
            inputs: (n, c, h, w) float32 in [0, 1].
            outputs: (n, k), the victim's answers.
            deviation: whether to ask the auxiliary network.

        Raises:
            DetectorError: tensors or answers that this was not fitted for, or no auxiliary network.
        """
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        if deviation and self.auxiliary is None:
            raise DetectorError(f"{self.name} was fitted without an auxiliary network")
        made = run_graph(self.reconstruction, inputs)
        gap = made[RESTORED].astype(np.float64) - inputs
        found = None
        if deviation and self.auxiliary is not None:
            logits = run_graph(self.auxiliary, made[RESTORED])[LOGITS]
            found = divergence(outputs, logits) / self.classes
        # Pixels are twice as far apart in [-1, 1].
        return Signs(4 * np.square(gap).mean(axis=(1, 2, 3)), found, made[LATENT])

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the parameters and the graphs."""
        blobs = {"reconstruction": self.reconstruction.to_bytes()}
        if self.auxiliary is not None:
            blobs["auxiliary"] = self.auxiliary.to_bytes()
        return {"alpha": self.alpha, "classes": self.classes}, blobs

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int
    ) -> Self:
        """Return what `pack` took apart."""
        graphs = {name: Graph(blob, threads=threads, name=name) for name, blob in blobs.items()}
        return cls(
            graphs["reconstruction"],
            graphs.get("auxiliary"),
            classes=int(parameters["classes"]),
            alpha=float(parameters["alpha"]),
        )


def divergence(answers: Probabilities, logits: NDArray[np.float32]) -> Scores:
    """Return (n,) KL(answers || softmax(logits)) in nats; a class of probability 0 adds nothing."""
    given, other = answers.astype(np.float64), logits.astype(np.float64)
    other -= log_sum_exp(other)[:, None]
    known = np.log(given, where=given > 0, out=np.zeros_like(given))
    found: Scores = (given * (known - other)).sum(axis=1)
    return found
