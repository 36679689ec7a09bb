"""SEAT: an account that asks for near-duplicates is exploring, not using."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors.base import check_queries
from tollkeeper.detectors.compact import Header, Projection, squared_distances
from tollkeeper.detectors.networks import Network
from tollkeeper.errors import DetectorError
from tollkeeper.types import Images, Probabilities, Scores

FEATURES = "features"
"""The output of a feature graph that is read."""

_TOGETHER = 256


class Seat:
    """Scores an account by the share of near-duplicates among its latest queries.

    A query is a near-duplicate if the mean squared difference of its features and those of one of
    the account's last `window` queries is at most `threshold`. The score is the number of
    near-duplicates among them, divided by how many there are, or by `least` where they are fewer.

    Source: Zhang, Chen and Wagner, "SEAT: Similarity Encoder by Adversarial Training for Detecting
    Model Extraction Attack Queries", AISec 2021, in the form of the code released with FDINet:
    mean squared differences below 1e-4 count, alarm above a share of 10%.
    Notes: SEAT trains an encoder to see through small changes; here the features are the victim's
    own or the pixels. That code compares with the whole history, without end, and its 1e-4 is of
    its own features: here a state has a stated size, and `fit_seat` takes the threshold from
    honest pictures. Exact repeats count, as they do there. A window forgets slow attacks, and a
    lifetime's share would be diluted by honest queries sent first.

    Attributes:
        name: "seat".
        state_bytes: the most that a state takes.
        share: score above which there is an alarm.
    """

    kind: ClassVar[str] = "seat"

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        classes: int,
        features: bytes | None = None,
        scale: float = 1.0,
        reach: float = 2.0,
        threshold: float = 1e-4,
        window: int = 256,
        least: int = 100,
        projection: int = 32,
        share: float = 0.1,
        key: bytes = b"",
        threads: int = 1,
        name: str = "seat",
    ) -> None:
        """Set what is kept; as it stands a state takes less than 9 KiB.

        Args:
            shape: (c, h, w) of the queries.
            classes: k.
            features: graph with an output "features", (n, d) and not negative; None for pixels.
            scale: features are divided by it and cut at 1.
            reach: of the projection; pixels are taken from 1/2, features from 0.
            threshold: mean squared difference, after that, of near-duplicates.
            window: queries that are remembered.
            least: queries below which the share is not taken of fewer.
            projection: bytes kept of a query.
            share: score above which there is an alarm.
            key: secret of the projection; a deployment has its own.
            threads: that the graph may use.
            name: as records call the detector.

        Raises:
            DetectorError: no window, no scale, or a graph of another shape or output.
        """
        if min(window, least, projection) < 1 or threshold < 0 or not 0 < scale * reach < np.inf:
            raise DetectorError(
                f"expected a window, a projection and scales above 0, got {window}, {projection}, "
                f"{scale:g} and {reach:g}"
            )
        self.name, self.share, self.shape, self.classes = name, share, shape, classes
        self._kept: dict[str, Any] = {
            "shape": list(shape),
            "classes": classes,
            "scale": scale,
            "reach": reach,
            "threshold": threshold,
            "window": window,
            "least": least,
            "projection": projection,
            "key": key.hex(),
        }
        self._scale, self._threshold, self._window, self._least = scale, threshold, window, least
        self._network = features and Network(features, threads=threads, name=f"{name} features")
        if self._network and self._network.shape != shape:
            raise DetectorError(
                f"{name} expected features of {shape} pictures, got those of {self._network.shape}"
            )
        size = self._features(np.zeros((1, *shape), np.float32)).shape[1]
        self._project = Projection(
            size, projection, key=key, reach=reach, origin=0.0 if features else 0.5
        )
        self._header = Header(self.kind, self._kept, "I")
        self.state_bytes = self._header.size + window * (1 + projection)

    def empty(self) -> bytes:
        """Return the state of an account that has asked nothing."""
        return self._header.write(0)

    def update(self, state: bytes, inputs: Images, outputs: Probabilities) -> tuple[Scores, bytes]:
        """Score an account's next n queries; see `AccountDetector`."""
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        near, rows = self._read(state)
        scores = [np.empty(0)]
        for at in range(0, len(inputs), _TOGETHER):
            part = inputs[at : at + _TOGETHER]
            rows = np.concatenate([rows, self._project(self._features(part))])
            news = self._nearest(rows, len(part)) <= self._threshold
            near = np.concatenate([near, news.astype(np.uint8)])
            scores.append(self._shares(near, len(part)))
            near, rows = near[-self._window :], rows[-self._window :]
        return np.concatenate(scores), self._header.write(
            len(rows)
        ) + near.tobytes() + rows.tobytes()

    def nearest(self, inputs: Images) -> NDArray[np.float64]:
        """Return how near each of n queries is to one of the `window` before it.

        Returns:
            (n,) mean squared differences of scaled features; infinity for the first.
        """
        rows, found = np.empty((0, self._kept["projection"]), np.uint8), []
        for at in range(0, len(inputs), _TOGETHER):
            part = inputs[at : at + _TOGETHER]
            rows = np.concatenate([rows, self._project(self._features(part))])
            found.append(self._nearest(rows, len(part)))
            rows = rows[-self._window :]
        return np.concatenate([np.empty(0), *found])

    def alarms(self, scores: Scores) -> NDArray[np.bool_]:
        """Return whether each score of an account is above the share."""
        found: NDArray[np.bool_] = scores > self.share
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return plain parameters and blobs."""
        blobs = {FEATURES: self._network.source} if self._network else {}
        return {**self._kept, "share": self.share, "name": self.name}, blobs

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int = 1
    ) -> Self:
        """Return what `pack` took apart."""
        channels, height, width = parameters["shape"]
        given = {**parameters, "shape": (channels, height, width)}
        given["key"] = bytes.fromhex(parameters["key"])
        return cls(**given, features=blobs.get(FEATURES), threads=threads)

    def _features(self, inputs: Images) -> NDArray[np.float32]:
        """Return (n, d) float32 in [0, 1]."""
        if not self._network:
            return inputs.reshape(len(inputs), -1)
        made = self._network.run(inputs)
        if FEATURES not in made:
            raise DetectorError(f"{self.name} expected an output {FEATURES!r}, got {list(made)}")
        rows = made[FEATURES].reshape(len(inputs), -1)
        scaled: NDArray[np.float32] = np.clip(rows / np.float32(self._scale), 0, 1)
        return scaled

    def _nearest(self, rows: NDArray[np.uint8], news: int) -> NDArray[np.float64]:
        """Return, of the last `news` rows, how near each is to one of the window before it."""
        whole, first = rows.astype(np.float64), len(rows) - news
        far = squared_distances(whole[first:], whole) * self._project.step**2 / rows.shape[1]
        age = (first + np.arange(news))[:, None] - np.arange(len(rows))
        found: NDArray[np.float64] = np.where((age > 0) & (age <= self._window), far, np.inf).min(1)
        return found

    def _shares(self, near: NDArray[np.uint8], news: int) -> NDArray[np.float64]:
        """Return the share of near-duplicates in the window that ends at each of the last rows."""
        sums = np.concatenate([[0], near.cumsum(dtype=np.int64)])
        ends = np.arange(len(near) - news + 1, len(near) + 1)
        starts = np.maximum(0, ends - self._window)
        found: NDArray[np.float64] = (sums[ends] - sums[starts]) / np.maximum(
            ends - starts, self._least
        )
        return found

    def _read(self, state: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        (count,) = self._header.read(state)
        body = np.frombuffer(state, np.uint8)[self._header.size :]
        width = self._kept["projection"]
        if len(body) != count * (1 + width):
            raise DetectorError(f"{self.name}: a state of {len(state)} bytes is cut short")
        return body[:count], body[count:].reshape(count, width)
