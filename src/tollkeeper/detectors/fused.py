"""One score from several signals, none of which has seen an attack.

A query is honest in many ways at once: the victim is sure of it, its pixels have the levels that
honest pixels have, and it lies where honest queries of its class lie. Each signal becomes the
probability that an honest query of the class that the victim names is at least as odd, so that
nobody pays more for asking about an odder class (Vovk, Gammerman and Shafer, *Algorithmic Learning
in a Random World*, 2005, section 4.5). The logarithms of these are added (Fisher, *Statistical
Methods for Research Workers*, 1925). As the signals of honest queries depend on each other, the sum
has no known law, so it becomes the tail probability among honest sums in its turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors.base import check_queries
from tollkeeper.detectors.packing import array_bytes, read_array
from tollkeeper.detectors.same import Same
from tollkeeper.detectors.signals import LevelShares, Nearness, color_detail
from tollkeeper.detectors.tails import FEWEST, Tail
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Images, Probabilities, Scores

SIGNALS = ("deviation", "pixels", "likeness")
"""In the order in which they are kept."""


class Fused:
    """Scores minus log10 of the share of honest queries that are at least as odd.

    A score of 2 is one honest query in a hundred; above the calibration's largest the scale is
    extrapolated. The signals:

    - deviation: entropy of the victim's answer.
    - pixels: distance from the honest mean of the shares of pixel levels and steps and, of colored
      pictures, of `color_detail`. It holds the one-line statistics that beat learned detectors.
    - likeness: distance from the center of the class that the victim names, of all at once: those,
      the reconstruction error of SAME-X and its autoencoder's latent.

    Notes: all weigh the same. Weights fitted on unrelated pictures and on random perturbations of
    honest ones came out nearly equal and changed little; a maximum of the signals in place of their
    sum was weaker against foreign pictures.

    Attributes:
        name: "fused".
        shape: (c, h, w) of queries.
        classes: of the victim.
    """

    kind: ClassVar[str] = "fused"
    name = "fused"

    def __init__(
        self,
        same: Same,
        shares: LevelShares,
        pixels: Nearness,
        likeness: Nearness,
        tails: Mapping[str, Tail],
    ) -> None:
        """Hold what `fitted` made.

        `tails` are those of the sum ("sum"), of each signal, and of each signal where the victim
        names class k ("pixels-k"), unless calibration has too few of it.
        """
        self._same, self._shares, self._pixels, self._likeness = same, shares, pixels, likeness
        self._tails = dict(tails)
        self.shape, self.classes = same.shape, same.classes

    @classmethod
    def fitted(
        cls,
        same: Same,
        images: Images,
        answers: Probabilities,
        *,
        calibration_images: Images,
        calibration_answers: Probabilities,
    ) -> Self:
        """Fit on honest queries alone.

        Args:
            same: SAME-X, or any SAME; only its autoencoder is used.
            images: (n, c, h, w) honest queries that neither the victim nor `same` was trained on:
                errors on training data are too small.
            answers: (n, k) the victim's answers to them.
            calibration_images: further honest queries, for tail probabilities.
            calibration_answers: the victim's answers to those.

        Raises:
            ConfigurationError: too few of either.
            DetectorError: pictures or answers that `same` was not fitted for.
        """
        same = Same(same.reconstruction, None, classes=same.classes, alpha=1)
        shares = LevelShares.fitted(images)
        found, named = _features(same, shares, images, answers), answers.argmax(axis=1)
        pixels = Nearness.fitted(found[:, : _width(shares, same)])
        likeness = Nearness.fitted(found, named, classes=same.classes)
        fused = cls(same, shares, pixels, likeness, {})
        signals = fused.signals(calibration_images, calibration_answers)
        named = calibration_answers.argmax(axis=1)
        tails = {name: Tail.fitted(signals[name]) for name in SIGNALS}
        for each in np.flatnonzero(np.bincount(named) >= FEWEST):
            of_class = {f"{name}-{each}": signals[name][named == each] for name in SIGNALS}
            tails |= {name: Tail.fitted(some) for name, some in of_class.items()}
        tails["sum"] = Tail.fitted(_sum(tails, signals, named))
        return cls(same, shares, pixels, likeness, tails)

    def signals(self, inputs: Images, outputs: Probabilities) -> dict[str, Scores]:
        """Return (n,) of each signal, on its own scale; higher is odder.

        Raises:
            DetectorError: tensors or answers that this was not fitted for.
        """
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        features = _features(self._same, self._shares, inputs, outputs)
        return {
            "deviation": _entropy(outputs),
            "pixels": self._pixels(features[:, : _width(self._shares, self._same)]),
            "likeness": self._likeness(features, outputs.argmax(axis=1)),
        }

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        """Score n queries; see `Detector.score`."""
        signals = self.signals(inputs, outputs)
        total = _sum(self._tails, signals, outputs.argmax(axis=1))
        return self._tails["sum"](total) / math.log(10)

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the parameters, the arrays and the autoencoder's graph."""
        parameters, blobs = self._same.pack()
        bins = np.stack([self._shares.level_bins, self._shares.step_bins]).astype(np.int16)
        arrays: dict[str, NDArray[Any]] = {"bins": bins}
        for name, part in (("pixels", self._pixels), ("likeness", self._likeness)):
            arrays |= {f"{name}.{key}": one for key, one in part.arrays().items()}
        for name, tail in self._tails.items():
            arrays |= {f"tail-{name}.{key}": one for key, one in tail.arrays().items()}
        parameters = {"same": parameters, "tails": list(self._tails)}
        return parameters, blobs | {key: array_bytes(one) for key, one in arrays.items()}

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int
    ) -> Self:
        """Return what `pack` took apart."""
        graph = {"reconstruction": blobs["reconstruction"]}
        same = Same.unpack(parameters["same"], graph, threads=threads)

        def arrays(part: str, **dimensions: int) -> dict[str, NDArray[np.float64]]:
            return {
                name: read_array(blobs[f"{part}.{name}"], dimensions=count).astype(np.float64)
                for name, count in dimensions.items()
            }

        bins = read_array(blobs["bins"], dimensions=2).astype(np.intp)
        shares = LevelShares(bins[0], bins[1])
        pixels, likeness = (
            Nearness.from_arrays(arrays(name, centers=2, whiten=2))
            for name in ("pixels", "likeness")
        )
        tails = {
            name: Tail.from_arrays(arrays(f"tail-{name}", at=1, rarity=1, scale=1))
            for name in parameters["tails"]
        }
        if pixels.centers.shape[1] != _width(shares, same):
            raise ConfigurationError(
                f"expected a fused detector of {_width(shares, same)} features of the pixels, got "
                f"{pixels.centers.shape[1]}: another version of Tollkeeper fitted it; fit it again"
            )
        return cls(same, shares, pixels, likeness, tails)


def _sum(
    tails: Mapping[str, Tail], signals: Mapping[str, Scores], named: NDArray[np.intp]
) -> Scores:
    """Return (n,) minus the sums of logarithms of the signals' tail probabilities."""
    found = np.zeros(len(named))
    for each in np.unique(named):
        of_class = named == each
        for name in SIGNALS:
            tail = tails.get(f"{name}-{each}", tails[name])
            found[of_class] += tail(signals[name][of_class])
    return found


def _features(
    same: Same, shares: LevelShares, images: Images, answers: Probabilities
) -> NDArray[np.float64]:
    """Return (n, d): what is of the pixels first, then the log of the error, then the latent."""
    signs = same.signs(images, answers, deviation=False)
    error = np.log(signs.error + np.finfo(np.float32).eps)
    return np.concatenate(
        [shares(images), color_detail(images), error[:, None], signs.latent], axis=1
    )


def _width(shares: LevelShares, same: Same) -> int:
    """Return how many features are of the pixels."""
    pairs = int(color_detail(np.zeros((1, *same.shape), np.float32)).shape[1])
    return int(shares.level_bins[-1] + 1) + 2 * int(shares.step_bins[-1] + 1) + pairs


def _entropy(outputs: Probabilities) -> Scores:
    p = outputs.astype(np.float64)
    found: Scores = -(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum(axis=1)
    return found
