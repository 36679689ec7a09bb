"""EDM: an ensemble whose members disagree about strange pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors.base import check_queries
from tollkeeper.detectors.networks import Network, softmax
from tollkeeper.errors import DetectorError
from tollkeeper.types import Images, Probabilities, Scores

_STEP = 128
"""Inputs are rounded to 1/128 of the pixel range before they are hashed."""

CONSENSUS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean": lambda cosines: cosines.mean(axis=0),
    "max": lambda cosines: cosines.max(axis=0),
}
"""From the (pairs, n) cosines of members' answers to the (n,) consensus."""


def member_index(hashed: Probabilities, *, members: int, bins: int = 2) -> NDArray[np.intp]:
    """Return which member answers each of n queries, by the answers of the hash network.

    `i = (m argmax + floor((M max - 1) m / (M - 1))) mod N`: the class and m bins of confidence.

    Args:
        hashed: (n, M) probabilities of the hash network.
        members: N.
        bins: m.

    Returns:
        (n,) positions.

    Source: Kariyappa, Prakash and Qureshi, "Protecting DNNs from Theft using an Ensemble of
    Diverse Models", ICLR 2021, as re-implemented by others (its authors released no code).
    """
    classes = hashed.shape[1]
    rows = hashed.astype(np.float64)
    level = np.floor((classes * rows.max(axis=1) - 1) * bins / (classes - 1))
    found: NDArray[np.intp] = (bins * rows.argmax(axis=1) + level.astype(np.intp)) % members
    return found


class Edm:
    """Scores a query by how little the members of a diverse ensemble agree about it.

    Source: Kariyappa, Prakash and Qureshi, ICLR 2021; the use as a detector is SAME's (Xie et al.,
    AAAI 2024), which gives no formula: here 1 minus the mean cosine of the members' probabilities
    over all pairs.
    Notes: `consensus="max"` is the coherence that the ensemble is trained on, a worse score of
    single queries: one agreeing pair hides the rest. Served, one member answers each query and
    the hash network chooses it (`answer`), at two forward passes; the re-implementation that could
    be read runs all members each time. Inputs are rounded before they are hashed, which it
    defines and never does.

    Attributes:
        name: "edm".
        members: how many.
    """

    kind: ClassVar[str] = "edm"

    def __init__(
        self,
        members: Sequence[bytes],
        *,
        classes: int,
        hashing: bytes | None = None,
        bins: int = 2,
        consensus: str = "mean",
        threads: int = 1,
        name: str = "edm",
    ) -> None:
        """Open the members, and the network that chooses one of them.

        Args:
            members: graphs of (n, c, h, w) in [0, 1] to (n, k) logits, at least two.
            classes: k.
            hashing: graph to the logits of another task; None where only scores are wanted.
            bins: of the hash network's confidence.
            consensus: key of `CONSENSUS`.
            threads: that one network may use.
            name: as records call the detector.

        Raises:
            DetectorError: fewer than two members, of different shapes, or no such consensus.
        """
        if consensus not in CONSENSUS:
            raise DetectorError(f"expected one of {sorted(CONSENSUS)}, got {consensus!r}")
        self.name, self.classes = name, classes
        self._bins, self._consensus = bins, consensus
        self._members = [
            Network(one, threads=threads, name=f"{name} member {at}")
            for at, one in enumerate(members)
        ]
        shapes = {one.shape for one in self._members}
        if len(members) < 2 or len(shapes) > 1:
            raise DetectorError(
                f"{name} expected at least 2 members of one shape, got {len(members)}"
            )
        self.shape = shapes.pop()
        self._hashing = hashing and Network(hashing, threads=threads, name=f"{name} hash")

    @property
    def members(self) -> int:
        """How many networks there are."""
        return len(self._members)

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries; see `Detector`."""
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        answers = [softmax(one.logits(inputs)) for one in self._members]
        units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in answers]
        cosines = np.stack([(a * b).sum(axis=1) for a, b in combinations(units, 2)])
        found: Scores = 1 - CONSENSUS[self._consensus](cosines)
        return found

    def served(self, inputs: Images) -> NDArray[np.intp]:
        """Return which member answers each of n queries.

        Raises:
            DetectorError: the ensemble was fitted without a hash network.
        """
        if not self._hashing:
            raise DetectorError(f"{self.name} was fitted without a hash network, so cannot serve")
        rounded = np.round(np.clip(inputs, 0, 1) * _STEP) / np.float32(_STEP)
        hashed = softmax(self._hashing.logits(rounded.astype(np.float32)))
        return member_index(hashed.astype(np.float32), members=self.members, bins=self._bins)

    def answer(self, inputs: Images) -> Probabilities:
        """Return the (n, k) probabilities of the member that serves each query."""
        chosen = self.served(inputs)
        found = np.empty((len(inputs), self.classes), np.float32)
        for at, network in enumerate(self._members):
            found[chosen == at] = softmax(network.logits(inputs[chosen == at]))
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return plain parameters and blobs."""
        parameters = {
            "classes": self.classes,
            "bins": self._bins,
            "consensus": self._consensus,
            "name": self.name,
        }
        blobs = {f"member-{at}": one.source for at, one in enumerate(self._members)}
        if self._hashing:
            blobs["hash"] = self._hashing.source
        return parameters, blobs

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int = 1
    ) -> Self:
        """Return what `pack` took apart."""
        count = sum(name.startswith("member-") for name in blobs)
        members = [blobs[f"member-{at}"] for at in range(count)]
        return cls(members, hashing=blobs.get("hash"), threads=threads, **parameters)
