"""How far a picture is from a classifier's borders, found by asking for labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Images

Labels = NDArray[np.int64]

NORMS = ("linf", "l2", "l1")
"""In which the walks of uniform, Gaussian and Laplace noise are measured."""

_TOGETHER = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Pictures that were all trained on, or all held out.

    Attributes:
        images: (n, c, h, w) float32 in [0, 1].
        labels: (n,) their true classes, known to the owner.
    """

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        """Refuse pictures that cannot be walked from.

        Raises:
            AuditRefused: no pictures, another form, values out of range or NaN, or other labels.
        """
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != np.float32 or len(images) == 0:
            raise AuditRefused(
                "expected (n, c, h, w) float32 pictures, n at least 1, got "
                f"{images.dtype} {images.shape}"
            )
        # Not `min() < 0`: NaN must fail too.
        if not (images.min() >= 0 and images.max() <= 1):
            raise AuditRefused("expected pictures with values from 0 to 1 and no NaN")
        if labels.shape != (len(images),) or labels.min() < 0:
            raise AuditRefused(
                f"expected a class for each of {len(images)} pictures, got labels {labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True, eq=False)
class Margins:
    """Distances of n pictures to borders.

    Attributes:
        distances: (n, s, 3): s walks or target classes in each of `NORMS`.
        flipped: (n, s, 3) whether the border was reached; where not, a distance is a lower bound.
        queries: pictures that were asked.
    """

    distances: NDArray[np.float64]
    flipped: NDArray[np.bool_]
    queries: int

    @property
    def features(self) -> NDArray[np.float64]:
        """(n, 3 s): what is known of each picture, in one row."""
        return self.distances.reshape(len(self.distances), -1)


E_contra = TypeVar("E_contra", bound=Encoder, contravariant=True)


class Ruler(Protocol[E_contra]):
    """A way to measure margins."""

    def measure(self, suspect: E_contra, side: Side, *, rng: np.random.Generator) -> Margins:
        """Return the margins of a side's pictures; the same generator gives the same walks."""
        ...


@dataclass(frozen=True, slots=True)
class BlindWalk:
    """Walks in random directions until the label changes; needs labels alone.

    Source: Maini, Yaghini, Papernot, "Dataset Inference: Ownership Resolution in Machine
    Learning", ICLR 2021, section 4.2 and the code released with it.

    Notes:
        A walk starts from the true class, as in the paper, so what is named wrongly from the start
        has the length of one step. Differences from the released code: it asks every picture twice
        a step, and records for walks that never change one step more than it asked; here each is
        asked once and the last one asked counts. It draws other directions for each suspect, here
        one generator gives all suspects the same, so that they can be compared picture by picture.
        Suspects that take 8-bit pictures alone are asked rounded ones; distances are not rounded.

    Attributes:
        uniform: half the range of a uniform step; the paper's on CIFAR-10, as all of these.
        normal: standard deviation of a Gaussian step.
        laplace: scale of a Laplace step.
        starts: walks of each kind.
        steps: of a walk at most.
    """

    uniform: float = 0.005
    normal: float = 0.005
    laplace: float = 0.01
    starts: int = 10
    steps: int = 50

    def __post_init__(self) -> None:
        """Refuse walks that go nowhere.

        Raises:
            AuditRefused: a scale that is not positive, no walks or no steps.
        """
        if min(self.uniform, self.normal, self.laplace) <= 0 or min(self.starts, self.steps) < 1:
            raise AuditRefused(
                "expected positive scales and at least 1 walk of 1 step, got "
                f"{self.uniform}, {self.normal}, {self.laplace}, {self.starts}, {self.steps}"
            )

    def measure(self, suspect: Encoder, side: Side, *, rng: np.random.Generator) -> Margins:
        """Walk from every picture.

        Args:
            suspect: any classifier; only the largest of its numbers is read.
            side: n pictures with their classes.
            rng: of the directions.

        Raises:
            AuditRefused: the suspect has fewer classes than the labels, or takes no pictures.
        """
        check_classes(suspect, side)
        found = np.empty((len(side), self.starts, len(NORMS)))
        flipped = np.empty(found.shape, np.bool_)
        queries = 0
        for norm in range(len(NORMS)):
            for start in range(self.starts):
                directions = self._directions(norm, side.images.shape, rng)
                at, reached, asked = self._walk(suspect, side, directions)
                moved = np.clip(side.images + at[:, None, None, None] * directions, 0, 1)
                found[:, start, norm] = lengths(moved - side.images, norm)
                flipped[:, start, norm] = reached
                queries += asked
        return Margins(found, flipped, queries)

    def _directions(self, norm: int, shape: tuple[int, ...], rng: np.random.Generator) -> Images:
        """Return one step for each picture."""
        draws = (
            lambda: rng.uniform(-self.uniform, self.uniform, shape),
            lambda: rng.normal(0, self.normal, shape),
            lambda: rng.laplace(0, self.laplace, shape),
        )
        step: Images = draws[norm]().astype(np.float32)
        return step

    def _walk(
        self, suspect: Encoder, side: Side, directions: Images
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
        """Return how many steps each picture went, whether its label changed, and the queries."""
        at = np.full(len(side), self.steps, np.float32)
        left, asked = np.arange(len(side)), 0
        for step in range(1, self.steps + 1):
            moved = np.clip(side.images[left] + np.float32(step) * directions[left], 0, 1)
            same = named(suspect, moved) == side.labels[left]
            asked += len(left)
            at[left[~same]] = step
            left = left[same]
            if len(left) == 0:
                break
        reached = np.ones(len(side), np.bool_)
        reached[left] = False
        return at, reached, asked


def check_classes(suspect: Encoder, side: Side) -> None:
    """Refuse a suspect that cannot name the classes of some pictures.

    Raises:
        AuditRefused: names what is expected.
    """
    if not {"image", "tensor"} & suspect.accepts:
        raise AuditRefused(f"{suspect.name} takes no pictures, so its margins cannot be measured")
    if side.labels.max() >= suspect.dim:
        raise AuditRefused(
            f"expected a suspect of at least {int(side.labels.max()) + 1} classes, as the owner's "
            f"labels have, got {suspect.dim} of {suspect.name}"
        )


def named(suspect: Encoder, images: Images) -> Labels:
    """Return the classes that a suspect names for (n, c, h, w) pictures."""
    found = np.empty(len(images), np.int64)
    for start in range(0, len(images), _TOGETHER):
        part = images[start : start + _TOGETHER]
        inputs = part if "tensor" in suspect.accepts else _rounded(part)
        rows = checked(suspect.embed(inputs), n=len(part), dim=suspect.dim)
        found[start : start + len(part)] = rows.argmax(axis=1)
    return found


def _rounded(images: Images) -> NDArray[np.uint8]:
    """Return (n, h, w, 3) uint8 of tensors with one or three channels."""
    rows = np.moveaxis(np.rint(images * 255).astype(np.uint8), 1, 3)
    return np.ascontiguousarray(np.broadcast_to(rows, (*rows.shape[:3], 3)))


def lengths(moves: Images, norm: int) -> NDArray[np.float64]:
    """Return (n,) lengths of (n, c, h, w) moves in one of `NORMS`."""
    flat = np.abs(moves.reshape(len(moves), -1).astype(np.float64))
    if norm == 0:
        return np.asarray(flat.max(axis=1))
    return np.asarray(np.sqrt((flat**2).sum(axis=1)) if norm == 1 else flat.sum(axis=1))
