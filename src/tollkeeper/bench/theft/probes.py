"""Classifiers on frozen embeddings: the linear probe and the weighted nearest neighbors.

Both see labels of the training part only; nothing is chosen on test inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Embeddings

Labels = NDArray[np.int64]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularization strengths that the probe chooses from. Over the built-in image encoder's
four tasks at n = 500 to 5,000 the choice falls on .01 to 1; .0001 is for embeddings full of noise."""

_HELD_OUT = 5
_COARSE, _FINE = 3e-3, 1e-3
"""Gradient tolerances of L-BFGS, for choosing and for the final fit. At n = 5,000 tests differ by
at most half a point from 1e-4, which takes two to four times as long."""
_STEPS = 200

NEIGHBORS = 200
TEMPERATURE = 0.5
_CHUNK = 1024


def linear_probe(
    train: Embeddings, labels: Labels, test: Embeddings, *, one_scale: bool = False
) -> Labels:
    """Predict labels by multinomial logistic regression on standardized embeddings.

    The regularization is the one of `STRENGTHS` with the best accuracy on a fifth of the
    training part, every fifth row of each class; the strongest of equals. Then all of the
    training part is fitted.

    Args:
        train: (n, d).
        labels: (n,) class numbers, at least two different ones.
        test: (m, d).
        one_scale: divide by one number instead of each coordinate's deviation; the prediction
            does not change then if the space is rotated.

    Returns:
        (m,) predicted class numbers.

    Raises:
        ConfigurationError: shapes that do not fit, or a single class.

    Notes: differences from the field's code. B4B and its forerunners train a linear layer
    with SGD or Adam for a fixed number of epochs, some report the best epoch on the test
    set; this is the optimum of the same model, chosen without the test set. Over subsets of
    1,000 to 5,000 embeddings, with and without noise, the choice lost 0.3 points against the
    best strength on the test set, and at most 3.
    """
    _check(train, labels, test)
    if len(np.unique(labels)) < 2:
        raise ConfigurationError("expected labels of at least two classes, got one")
    fit, held = (centered if one_scale else standardized)(train, test)
    model = _fit(_regression(_FINE, C=_strength(fit, labels)), fit, labels)
    predicted: Labels = model.predict(held)
    return predicted


def centered(train: Embeddings, test: Embeddings) -> tuple[Embeddings, Embeddings]:
    """Return both less the training mean, over one number: the root mean square of what is left."""
    mean = train.mean(axis=0)
    scale = float(np.sqrt(np.square(train - mean).mean())) or 1.0
    return (train - mean) / scale, (test - mean) / scale


def knn200(train: Embeddings, labels: Labels, test: Embeddings) -> Labels:
    """Predict labels by the 200 nearest training embeddings, weighted exp(cosine / 0.5).

    The monitor of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", CVPR 2018, section 3.4, with the temperature of the encoder-stealing
    literature. With fewer than 200 training embeddings all of them vote.

    Args:
        train: (n, d).
        labels: (n,) class numbers.
        test: (m, d).

    Returns:
        (m,) predicted class numbers; of equal votes the smaller one.

    Raises:
        ConfigurationError: shapes that do not fit.
    """
    _check(train, labels, test)
    known, count = unit(train), min(NEIGHBORS, len(train))
    predicted = []
    for rows in _chunks(unit(test)):
        cosines = rows @ known.T
        nearest = np.argpartition(cosines, -count, axis=1)[:, -count:]
        weights = np.exp(np.take_along_axis(cosines, nearest, axis=1) / TEMPERATURE)
        votes = np.zeros((len(rows), int(labels.max()) + 1))
        np.add.at(votes, (np.arange(len(rows))[:, None], labels[nearest]), weights)
        predicted.append(votes.argmax(axis=1))
    return np.concatenate(predicted)


def standardized(train: Embeddings, test: Embeddings) -> tuple[Embeddings, Embeddings]:
    """Scale both to mean 0 and deviation 1 of `train`; constant coordinates become 0."""
    mean = train.mean(axis=0, dtype=np.float64)
    deviation = train.std(axis=0, dtype=np.float64)
    # Relative to the coordinate's size: a constant leaves rounding residue.
    varies = deviation > 1e-6 * np.abs(train).max(axis=0, initial=0)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    fit, held = (((rows - mean) * scale).astype(np.float32) for rows in (train, test))
    return fit, held


def unit(rows: Embeddings) -> Embeddings:
    """Scale rows to length 1; rows of zeros stay, and are at cosine 0 to everything."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float32)
    lengths[lengths == 0] = 1
    scaled: Embeddings = rows / lengths
    return scaled


def _strength(train: Embeddings, labels: Labels) -> float:
    """Return the strength with the best accuracy on held-out rows of the training part."""
    held = _held_out(labels)
    if not held.any():
        return STRENGTHS[len(STRENGTHS) // 2]
    # Each fit starts from the one before, which is regularized more strongly.
    model = _regression(_COARSE, warm_start=True)
    found = []
    for strength in STRENGTHS:
        _fit(model.set_params(C=strength), train[~held], labels[~held])
        found.append(model.score(train[held], labels[held]))
    return STRENGTHS[int(np.argmax(found))]


def _held_out(labels: Labels) -> NDArray[np.bool_]:
    """Mark every fifth row of each class, (n,); classes of fewer rows are kept whole."""
    held = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        held[np.flatnonzero(labels == label)[_HELD_OUT - 1 :: _HELD_OUT]] = True
    return held


def _regression(tolerance: float, **options: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(tol=tolerance, max_iter=_STEPS, **options)


def _fit(model: Any, train: Embeddings, labels: Labels) -> Any:
    """Fit in place; stopping at the last step is one more regularization, not a failure."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(train, labels)


def _chunks(rows: Embeddings) -> Iterator[Embeddings]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def _check(train: Embeddings, labels: Labels, test: Embeddings) -> None:
    if train.ndim != 2 or len(train) == 0 or labels.shape != (len(train),):
        raise ConfigurationError(
            f"expected embeddings (n, d) and labels (n,), got {train.shape} and {labels.shape}"
        )
    if test.ndim != 2 or test.shape[1] != train.shape[1] or len(test) == 0:
        raise ConfigurationError(
            f"expected test embeddings (m, {train.shape[1]}), got {test.shape}"
        )
