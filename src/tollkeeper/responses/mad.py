"""Maximizing angular deviation: answers whose training gradient points elsewhere.

Source: Orekondy, Schiele and Fritz, "Prediction Poisoning: Towards Defenses Against DNN Model
Stealing Attacks", ICLR 2020.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError, EncoderError
from tollkeeper.graphs import Graph
from tollkeeper.responses.simplex import one_hot, softmax, with_label
from tollkeeper.types import Images, Probabilities

_ALL_SUBSETS = 10
"""Classes up to which every set of them is tried; above, sets grow greedily."""

_NOTHING = 1e-12
_TOGETHER = 256

Rows = NDArray[np.float64]


class MaximizingAngularDeviation:
    """Moves an answer by `distance` towards the corner that turns the thief's gradient most.

    A thief who trains network F on (x, y) follows the gradient G^T y, row k of G being
    -d log softmax(F(x))_k / dw. With w the last layer's weights over features h, that row is
    (p_F - e_k) h^T, so G^T y = (p_F - y) h^T for every y that sums to one. The angle between two
    such gradients is the angle between p_F - y and p_F - p: h cancels, and one forward pass of F
    does what k backward passes do.

    Notes: the published code computes G by k backward passes, an image at a time. Here F is any
    network of random weights that gives "logits". Of answers that tie after moving, the true
    label is lifted by 1e-6.

    Attributes:
        name: `mad` where any label may come out, `mad-argmax` where the label stays.
        distance: L1 norm of the change; exact wherever the corner is not nearer.
        keep_label: whether the label stays.
    """

    LOGITS: ClassVar[str] = "logits"

    def __init__(self, surrogate: Graph, *, distance: float = 1.0, keep_label: bool = True) -> None:
        """Hold the network that stands for a thief's.

        Args:
            surrogate: from (n, c, h, w) to an output "logits" (n, k); its weights are a secret.
            distance: above 0 and at most 2, the L1 distance of two corners.
            keep_label: whether the label must stay.

        Raises:
            ConfigurationError: no logits, or a distance out of range.
        """
        if self.LOGITS not in surrogate.outputs:
            raise ConfigurationError(
                f"expected a surrogate with an output {self.LOGITS!r}, {surrogate.name} has "
                f"{', '.join(surrogate.outputs)}"
            )
        if not 0 < distance <= 2:
            raise ConfigurationError(f"expected a distance above 0 and up to 2, got {distance}")
        self._surrogate = surrogate
        self.distance, self.keep_label = distance, keep_label
        self.name = "mad-argmax" if keep_label else "mad"

    def __call__(self, inputs: Images, outputs: Probabilities, *, key: bytes) -> Probabilities:
        """Return rows at L1 distance min(distance, the corner's) from `outputs`.

        Raises:
            EncoderError: the surrogate failed or has other classes.
        """
        if not len(outputs):
            return outputs
        believed = self._believed(inputs, outputs.shape[1])
        rows = outputs.astype(np.float64)
        corner = label_corner if self.keep_label else any_corner
        parts = range(0, len(rows), _TOGETHER)
        target = np.concatenate(
            [corner(rows[i : i + _TOGETHER], believed[i : i + _TOGETHER]) for i in parts]
        )
        away = np.abs(rows - target).sum(axis=1, keepdims=True)
        share = np.minimum(1.0, self.distance / np.maximum(away, _NOTHING))
        found: Probabilities = ((1 - share) * rows + share * target).astype(np.float32)
        return with_label(found, outputs.argmax(axis=1)) if self.keep_label else found

    def _believed(self, inputs: Images, classes: int) -> Rows:
        """Return the surrogate's own (n, k) probabilities."""
        logits = self._surrogate.run(inputs)[self.LOGITS]
        if logits.shape != (len(inputs), classes):
            raise EncoderError(
                f"{self._surrogate.name} answered shape {logits.shape} to {len(inputs)} inputs, "
                f"expected {classes} classes; it was made for another victim"
            )
        return softmax(logits)


def any_corner(outputs: Rows, believed: Rows) -> Rows:
    """Return for each row the class, as (n, k) one-hot, whose gradient turns most ("extreme")."""
    corners = np.eye(outputs.shape[1])
    found: Rows = corners[_cosines(corners, outputs, believed).argmin(axis=1)]
    return found


def label_corner(outputs: Rows, believed: Rows) -> Rows:
    """Return for each row the best corner of the answers that have its label ("argmax").

    These corners are uniform over a set of classes that holds the label: 2^(k-1) sets, of which
    all are tried up to ten classes. Above, a set grows by the class that helps most while one does.
    """
    labels = outputs.argmax(axis=1)
    if outputs.shape[1] > _ALL_SUBSETS:
        return _grown(labels, outputs, believed)
    found = np.empty_like(outputs)
    for label in np.unique(labels):
        mine = labels == label
        found[mine] = _best_of_all(int(label), outputs[mine], believed[mine])
    return found


def _best_of_all(label: int, outputs: Rows, believed: Rows) -> Rows:
    # With the label's column first, the sets are the same for every label.
    order = np.r_[label, np.delete(np.arange(outputs.shape[1]), label)]
    corners = np.empty_like(_sets(outputs.shape[1]))
    corners[:, order] = _sets(outputs.shape[1])
    found: Rows = corners[_cosines(corners, outputs, believed).argmin(axis=1)]
    return found


@cache
def _sets(classes: int) -> Rows:
    """Return (2^(k-1), k) uniform distributions over all sets that hold the first class."""
    numbers = np.arange(2 ** (classes - 1))[:, np.newaxis]
    inside = np.c_[np.ones(len(numbers)), (numbers >> np.arange(classes - 1)) & 1]
    found: Rows = inside / inside.sum(axis=1, keepdims=True)
    found.flags.writeable = False
    return found


def _grown(labels: NDArray[np.intp], outputs: Rows, believed: Rows) -> Rows:
    """Grow each row's set of classes by one at a time, for as long as that helps."""
    true = believed - outputs
    inside = one_hot(labels, outputs.shape[1]) > 0
    growing = np.ones(len(outputs), bool)
    best = np.full(len(outputs), np.inf)
    sums = np.zeros((2, len(outputs), 1))
    for size in range(1, outputs.shape[1] + 1):
        # Of a uniform corner only its size and two sums over its classes matter.
        values = _cosine(true, believed, (sums[0] + true) / size, (sums[1] + believed) / size, size)
        allowed = inside if size == 1 else ~inside
        values[~allowed] = np.inf
        chosen = values.argmin(axis=1)[:, np.newaxis]
        found = np.take_along_axis(values, chosen, axis=1)[:, 0]
        growing &= found < best - _NOTHING
        if not growing.any():
            break
        inside[growing, chosen[growing, 0]] = True
        best = np.where(growing, found, best)
        sums += [np.take_along_axis(rows, chosen, axis=1) for rows in (true, believed)]
    corners: Rows = inside / inside.sum(axis=1, keepdims=True)
    return corners


def _cosines(corners: Rows, outputs: Rows, believed: Rows) -> Rows:
    """Return (n, m) cosines of p_F - corner and p_F - p for m corners."""
    true = believed - outputs
    squares = (corners**2).sum(axis=1)
    return _cosine(true, believed, true @ corners.T, believed @ corners.T, 1 / squares)


def _cosine(
    true: Rows, believed: Rows, true_sums: Rows, believed_sums: Rows, size: float | Rows
) -> Rows:
    """Return (n, m) cosines of p_F - corner and p_F - p; 0 where one of them vanishes.

    The objective || u - v ||^2 of unit vectors u and v is 2 - 2 cos, so the least cosine is best.

    Args:
        true: (n, k) p_F - p.
        believed: (n, k) p_F.
        true_sums: (n, m) products of p_F - p with each corner.
        believed_sums: (n, m) products of p_F with each corner.
        size: one over each corner's squared length.
    """
    across = (believed * true).sum(axis=1, keepdims=True) - true_sums
    squares = (believed**2).sum(axis=1, keepdims=True) - 2 * believed_sums + 1 / size
    lengths = np.linalg.norm(true, axis=1, keepdims=True) * np.sqrt(np.maximum(squares, 0))
    found: Rows = np.zeros_like(across)
    np.divide(across, lengths, out=found, where=lengths > _NOTHING)
    return found
