"""FDINet: how far a query lies from the training pictures of its class, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors.base import check_queries
from tollkeeper.detectors.networks import Network
from tollkeeper.detectors.packing import array_bytes, read_array
from tollkeeper.errors import DetectorError, EncoderError
from tollkeeper.graphs import Graph
from tollkeeper.types import Images, Probabilities, Scores

Anchors = NDArray[np.float16]
"""(k, a, d): for each class a rows of one layer."""


def feature_distances(
    rows: Sequence[NDArray[np.float32]],
    anchors: Sequence[NDArray[np.float32]],
    kinds: NDArray[np.intp],
) -> NDArray[np.float32]:
    """Return the distance of each of n queries to the anchors of its predicted class.

    Args:
        rows: (n, d) of each layer.
        anchors: of each layer.
        kinds: (n,) predicted classes.

    Returns:
        (n, layers, a) root mean squared differences.
    """
    found = np.empty((len(kinds), len(anchors), anchors[0].shape[1]), np.float32)
    for kind in np.unique(kinds):
        of = kinds == kind
        for at, (layer, wide) in enumerate(zip(rows, anchors, strict=True)):
            mine, own = layer[of], wide[kind]
            squares = _squares(mine)[:, None] + _squares(own) - 2.0 * (mine @ own.T)
            found[of, at] = np.sqrt(np.maximum(squares, 0) / own.shape[1])
    return found


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    return found


class FdiNet:
    """Scores a query by its distances to anchors of the class that the victim predicts for it.

    Anchors are training pictures of which the victim is sure. A small network, trained on honest
    pictures and on strange ones, makes of the distances at all layers the probability that a
    query is strange.

    Source: Yao, Li, Weng, Xue, Ren and Qin, "FDINet: Protecting against DNN Model Extraction via
    Feature Distortion Index", and its released code under an earlier name (ProFeDI).
    Notes: the released classifier has no non-linearity, so it is one linear map, which can be
    inverted; here it has ReLUs (the linear one is an option of the fitting). Its anchors come
    from the test split that it then calls honest; here from training pictures, never from those
    the classifier is trained on. Its last anchor stays zero; here each is a picture. Its metrics
    swap true positives and negatives; ours are the bench's. Maps are averaged to a few places and
    anchors kept as float16, which bounds time and memory.
    Its collusion test is left out: two accounts are said to collude where a t-test fails to tell
    them apart, but failing to reject is no evidence of sameness.

    Attributes:
        name: "fdinet".
    """

    kind: ClassVar[str] = "fdinet"

    def __init__(
        self,
        layers: bytes,
        anchors: Sequence[Anchors],
        judge: bytes,
        *,
        threads: int = 1,
        name: str = "fdinet",
    ) -> None:
        """Open the victim's layers and the classifier of distances.

        Args:
            layers: graph of (n, c, h, w) in [0, 1] to one (n, d) output for each layer.
            anchors: of each layer, in the order of the outputs.
            judge: graph of (n, layers, a) distances to (n, 1) logits.
            threads: that one network may use.
            name: as records call the detector.

        Raises:
            DetectorError: anchors that do not fit the layers or the classifier.
        """
        self.name = name
        self._layers = Network(layers, threads=threads, name=f"{name} layers")
        self._judge, self._judge_source = Graph(judge, threads=threads, name=f"{name} judge"), judge
        self._anchors = [np.asarray(one, np.float16) for one in anchors]
        self._wide = [one.astype(np.float32) for one in self._anchors]
        self.shape, self.classes = self._layers.shape, len(self._anchors[0])
        made = self._layers.run(np.zeros((1, *self.shape), np.float32))
        wanted = [(self.classes, self._judge.inputs[-1], rows.shape[1]) for rows in made.values()]
        if [one.shape for one in self._anchors] != wanted:
            raise DetectorError(
                f"{name} expected anchors of {wanted}, got {[one.shape for one in self._anchors]}"
            )

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries by the probability that each is strange; see `Detector`."""
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        rows = list(self._layers.run(inputs).values())
        far = feature_distances(rows, self._wide, outputs.argmax(axis=1))
        try:
            (logits,) = self._judge.run(far).values()
        except EncoderError as error:
            raise DetectorError(str(error)) from error
        # In float64 and from the small side: float32 calls all beyond 17 equally sure.
        found: Scores = np.exp(-np.logaddexp(0, -logits[:, 0].astype(np.float64)))
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return plain parameters and blobs."""
        blobs = {"layers": self._layers.source, "judge": self._judge_source}
        blobs |= {f"anchors-{at}": array_bytes(one) for at, one in enumerate(self._anchors)}
        return {"name": self.name}, blobs

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int = 1
    ) -> Self:
        """Return what `pack` took apart."""
        count = sum(name.startswith("anchors-") for name in blobs)
        anchors = [read_array(blobs[f"anchors-{at}"], dimensions=3) for at in range(count)]
        return cls(blobs["layers"], anchors, blobs["judge"], threads=threads, **parameters)
