"""PRADA: the distances between an account's queries stop looking normal when it steals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors.base import check_queries
from tollkeeper.detectors.compact import (
    Header,
    Projection,
    Sample,
    Whole,
    levels,
    squared_distances,
)
from tollkeeper.detectors.shapiro import shapiro_w
from tollkeeper.errors import DetectorError
from tollkeeper.types import Images, Probabilities, Scores

TEST_EVERY = 10
"""Queries between two tests."""
LEAST_OF_CLASS = 10
"""Distances of a class below which it does not count."""
MORE_THAN = 100
"""Distances must be more than this for a test."""
OUTLIER = 3.0
"""Standard deviations beyond which a distance is left out."""

_TOGETHER = 256
_COUNT, _SUM, _SQUARES, _THRESHOLD = range(4)


@dataclass(slots=True)
class _History:
    """What is kept of an account, unpacked.

    Attributes:
        queries: so far.
        w: of the last test, 1 before it.
        classes: (k, 4) of each class: number, sum and sum of squares of its list of distances
            (0 is its first), and its threshold.
        owners: (g,) class of each member.
        members: (g, d) what grew the sets.
        kinds: (m,) class of each distance.
        distances: (m,) to the nearest member.
    """

    queries: int
    w: float
    classes: NDArray[np.float64]
    owners: NDArray[np.uint16]
    members: NDArray[Any]
    kinds: NDArray[np.uint16]
    distances: NDArray[np.float32]


class Prada:
    """Scores an account by how far from normal the distances between its queries are.

    For each predicted class a set grows: a query whose distance d to the nearest of its class's
    set exceeds the class's threshold joins the set, and the threshold rises to mean - std of the
    distances that joined. All d are kept; every 10 queries those of classes with at least 10 are
    pooled, outliers beyond 3 standard deviations are dropped, and if more than 100 remain their
    Shapiro-Wilk W is compared with `delta`.

    Source: Juuti et al., "PRADA: Protecting against DNN Model Stealing Attacks", EuroS&P 2019,
    section 5, and its released code.
    Notes: the score is 1 - W of the last test, 0 before the first; the alarm is W < delta.
    The original keeps everything in one global agent and scans each set for each query; here
    there is a state for each account, of a stated most of bytes. Beyond `members`
    and `distances` those kept are a random sample under the secret key (see `Sample`): the oldest
    members would be just those that Jacobian augmentation comes back to, and the latest distances
    of a long attack are all of one kind, so normal again.
    With `projection` pictures are kept as so many bytes under secret random signs; without, in
    full at 16 bits (`exact`).
    A delta of 0.95 is *recalled* of the paper's MNIST; set it from honest traffic.

    Attributes:
        name: "prada".
        state_bytes: the most that a state takes.
        delta: W below which there is an alarm.
    """

    kind: ClassVar[str] = "prada"

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        classes: int,
        delta: float = 0.95,
        members: int = 240,
        distances: int = 500,
        projection: int | None = 48,
        key: bytes = b"",
        name: str = "prada",
    ) -> None:
        """Set what is kept; as it stands 10 classes take less than 16 KiB.

        Args:
            shape: (c, h, w) of the queries.
            classes: k.
            delta: W below which there is an alarm, in (0, 1).
            members: most pictures kept of an account.
            distances: most distances kept of an account, more than 100.
            projection: numbers kept of a picture; None keeps it whole.
            key: secret of the projection and of the sample; a deployment has its own.
            name: as records call the detector.

        Raises:
            DetectorError: too few of something.
        """
        if members < 1 or distances <= MORE_THAN or not 0 < delta < 1 or (projection or 1) < 1:
            raise DetectorError(
                f"expected members above 0, distances above {MORE_THAN}, delta in (0, 1), got "
                f"{members}, {distances} and {delta:g}"
            )
        self.name, self.delta, self.shape, self.classes = name, delta, shape, classes
        self._projection, self._key = projection, key
        self._members = Sample(members, key=b"members" + key)
        self._distances = Sample(distances, key=b"distances" + key)
        size = int(np.prod(shape))
        self._project = None if projection is None else Projection(size, projection, key=key)
        self._type = np.dtype("<u2") if projection is None else np.dtype("u1")
        self._dim = projection or size
        # From steps of the kept numbers to the distance of the pictures in [0, 1].
        self._unit = 1 / (2**16 - 1)
        if self._project:
            self._unit = self._project.step * np.sqrt(size / self._dim)
        kept = (self.shape, classes, members, distances, projection, key)
        self._header = Header(self.kind, kept, "QdII")
        self.state_bytes = self._header.size + 32 * classes + 6 * distances
        self.state_bytes += members * (2 + self._dim * self._type.itemsize)

    @classmethod
    def exact(cls, shape: tuple[int, int, int], *, classes: int, **options: Any) -> Self:
        """Return the detector of the paper, which forgets nothing of 50,000 queries."""
        whole = {"members": 50_000, "distances": 50_000, "projection": None}
        return cls(shape, classes=classes, **(whole | options))

    def empty(self) -> bytes:
        """Return the state of an account that has asked nothing."""
        return self._header.write(0, 1.0, 0, 0) + bytes(32 * self.classes)

    def update(self, state: bytes, inputs: Images, outputs: Probabilities) -> tuple[Scores, bytes]:
        """Score an account's next n queries; see `AccountDetector`."""
        check_queries(inputs, outputs, shape=self.shape, classes=self.classes, name=self.name)
        past, scores = self._read(state), []
        kinds = outputs.argmax(axis=1).astype(np.uint16)
        for at in range(0, len(inputs), _TOGETHER):
            part = slice(at, at + _TOGETHER)
            scores.append(self._take(past, self._rows(inputs[part]), kinds[part]))
        return np.concatenate([np.empty(0), *scores]), self._write(past)

    def alarms(self, scores: Scores) -> NDArray[np.bool_]:
        """Return whether each score of an account means W < delta."""
        found: NDArray[np.bool_] = scores > 1 - self.delta
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return plain parameters and no blobs."""
        parameters = {
            "shape": list(self.shape),
            "classes": self.classes,
            "delta": self.delta,
            "members": self._members.most,
            "distances": self._distances.most,
            "projection": self._projection,
            "key": self._key.hex(),
            "name": self.name,
        }
        return parameters, {}

    @classmethod
    def unpack(
        cls,
        parameters: Mapping[str, Any],
        blobs: Mapping[str, bytes],
        *,
        threads: int = 1,
    ) -> Self:
        """Return what `pack` took apart."""
        channels, height, width = parameters["shape"]
        key = bytes.fromhex(parameters["key"])
        return cls(**{**parameters, "shape": (channels, height, width), "key": key})

    def _rows(self, inputs: Images) -> NDArray[Any]:
        flat = inputs.reshape(len(inputs), -1)
        return self._project(flat) if self._project else levels(flat).astype(self._type)

    def _take(
        self, past: _History, rows: NDArray[Any], kinds: NDArray[np.uint16]
    ) -> NDArray[np.float64]:
        """Score rows in their order and make them part of the history."""
        known = len(past.members)
        everyone = np.concatenate([past.members, rows])
        owners = np.concatenate([past.owners, kinds])
        far = _distances(rows, everyone) * self._unit
        alive = np.arange(len(everyone)) < known
        found, of, scores = past.distances.tolist(), past.kinds.tolist(), np.empty(len(rows))
        for at, kind in enumerate(kinds):
            peers = alive & (owners == kind)
            nearest = float(far[at, peers].min()) if peers.any() else None
            past.queries += 1
            if nearest is not None:
                place = self._distances.place(len(found), seen=past.queries, at=past.queries)
                if place is not None:
                    # As the state keeps it, so that grouping changes nothing.
                    found[place : place + 1] = [float(np.float32(nearest))]
                    of[place : place + 1] = [kind]
            if _joins(past.classes[kind], nearest):
                self._remember(alive, known + at, past)
            if past.queries % TEST_EVERY == 0:
                past.w = _test(found, of, past.w)
            scores[at] = 1 - past.w
        past.members, past.owners = everyone[alive], owners[alive]
        past.distances = np.array(found, np.float32)
        past.kinds = np.array(of, np.uint16)
        return scores

    def _remember(self, alive: NDArray[np.bool_], newest: int, past: _History) -> None:
        """Let a query into the sets, for another of them where there is no room."""
        joined = past.classes[:, _COUNT].sum()
        members = np.flatnonzero(alive)
        place = self._members.place(len(members), seen=joined, at=past.queries)
        if place is not None:
            alive[members[place : place + 1]] = False
            alive[newest] = True

    def _write(self, past: _History) -> bytes:
        sizes = len(past.members), len(past.distances)
        parts = (past.classes, past.owners, past.members, past.kinds, past.distances)
        head = self._header.write(past.queries, past.w, *sizes)
        return head + b"".join(part.tobytes() for part in parts)

    def _read(self, state: bytes) -> _History:
        queries, w, members, distances = self._header.read(state)
        at = self._header.size

        def take(kind: str | np.dtype[Any], *shape: int) -> NDArray[Any]:
            nonlocal at
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            part, at = state[at : at + size], at + size
            if len(part) < size:
                raise DetectorError(f"{self.name}: a state of {len(state)} bytes is cut short")
            return np.frombuffer(part, kind).reshape(shape).copy()

        return _History(
            queries,
            w,
            take("<f8", self.classes, 4),
            take("<u2", members),
            take(self._type, members, self._dim),
            take("<u2", distances),
            take("<f4", distances),
        )


def _distances(rows: NDArray[Any], others: NDArray[Any]) -> Whole:
    found: Whole = np.sqrt(squared_distances(rows.astype(np.float64), others.astype(np.float64)))
    return found


def _joins(own: NDArray[np.float64], nearest: float | None) -> bool:
    """Return whether a query joins its class's set, and put it into the class's numbers.

    Args:
        own: (4,) of the class, changed in place.
        nearest: distance to the set, None while there is nobody in it.
    """
    if nearest is not None and nearest <= own[_THRESHOLD]:
        return False
    # The first of a class has no distance; the list starts with a 0 all the same.
    if nearest is not None or own[_COUNT] == 0:
        own[:_THRESHOLD] += 1, nearest or 0.0, (nearest or 0.0) ** 2
    mean = own[_SUM] / own[_COUNT]
    spread = np.sqrt(max(0.0, own[_SQUARES] / own[_COUNT] - mean**2))
    own[_THRESHOLD] = max(own[_THRESHOLD], mean - spread)
    return True


def _test(distances: list[float], kinds: list[int], last: float) -> float:
    """Return W of the distances that count, or the last one's where too few do."""
    of = np.array(kinds, np.intp)
    pooled = np.array(distances, np.float64)[np.bincount(of)[of] >= LEAST_OF_CLASS]
    if len(pooled) <= MORE_THAN:
        return last
    kept = pooled[np.abs(pooled - pooled.mean()) <= OUTLIER * pooled.std()]
    return shapiro_w(kept) if len(kept) > MORE_THAN else last
