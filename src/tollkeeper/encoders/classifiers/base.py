"""What a classifier is: an encoder whose d numbers are the probabilities of its d classes.

Whatever asks, meters, serves or copies an encoder can so ask, meter, serve or copy a classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.errors import ConfigurationError, EncoderError, InputError
from tollkeeper.types import Batch, Images, Probabilities

SUM_TOLERANCE = 1e-3
"""How far from 1 a row may sum: float16 upstreams round so much."""

_RED, _GREEN, _BLUE = 299, 587, 114


@runtime_checkable
class Classifier(Encoder, Protocol):
    """An encoder of classes; `embed` returns probabilities, and `dim` is the number of classes.

    Attributes:
        classes: their names, in the order of the columns.
    """

    classes: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """(c, h, w) of the pictures it takes; None for a classifier of text."""
        ...


def class_names(given: Sequence[str] | None, n: int, *, whose: str) -> tuple[str, ...]:
    """Return the names of n classes: as given, else their numbers from 0.

    Raises:
        ConfigurationError: another number of names, an empty one, one given twice, or one class.
    """
    names = tuple(map(str, range(n))) if given is None else tuple(given)
    if n < 2:
        raise ConfigurationError(f"{whose}: expected at least 2 classes, got {n}")
    if len(names) != n:
        raise ConfigurationError(f"{whose} answers for {n} classes, got {len(names)} names of them")
    if len(set(names)) < n or not all(names):
        raise ConfigurationError(f"{whose}: expected {n} different names of classes, none empty")
    return names


def checked_probabilities(rows: object, *, n: int, classes: int) -> Probabilities:
    """Return `rows` as (n, k) float32 probabilities, or say what is wrong.

    Raises:
        EncoderError: wrong shape, not finite, negative, or a row that does not sum to one.
    """
    found = checked(rows, n=n, dim=classes)
    if n and found.min() < 0:
        raise EncoderError(
            f"expected probabilities, got {found.min():g}; does the classifier return logits?"
        )
    off = np.abs(found.sum(axis=1, dtype=np.float64) - 1)
    if n and off.max() > SUM_TOLERANCE:
        worst = int(off.argmax())
        raise EncoderError(
            f"expected probabilities that sum to 1, got {found[worst].sum():g} for input {worst}"
        )
    return found


def softmax(logits: object, *, n: int, classes: int) -> Probabilities:
    """Return the probabilities of (n, k) logits.

    Raises:
        EncoderError: wrong shape or not finite.
    """
    rows = checked(logits, n=n, dim=classes).astype(np.float64)
    rows = np.exp(rows - rows.max(axis=1, keepdims=True, initial=-np.inf))
    found: Probabilities = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def canonical(inputs: Batch, shape: tuple[int, int, int], *, name: str) -> Images:
    """Return pictures as the tensors that classifier `name` and its detectors both see.

    A picture of `b / 255` is the same tensor however it comes. Color becomes gray by ITU-R 601
    where the classifier has one channel; nothing is resized.

    Args:
        inputs: n (h, w, 3) uint8 images or (c, h, w) float32 tensors in [0, 1].
        shape: (c, h, w) that the classifier takes.
        name: of the classifier, for messages.

    Returns:
        (n, c, h, w) float32 in [0, 1], C-contiguous.

    Raises:
        InputError: another size or number of channels, NaN, or values out of range.
    """
    items = [np.asarray(item) for item in inputs]
    for position, item in enumerate(items):
        if not _fits(item, shape):
            raise InputError(
                f"input {position}: expected a picture of {shape[1]} x {shape[2]} pixels or a "
                f"tensor of shape {shape} for model {name!r}, got shape {item.shape}",
                param="input",
            )
    # Reserved only now, or many small inputs would take the memory of as many large ones.
    rows = np.empty((len(items), *shape), np.float32)
    for row, item in zip(rows, items, strict=True):
        row[:] = _tensor(item, channels=shape[0])
    # Not `rows.min() < 0`: NaN must fail too.
    if rows.size and not (rows.min() >= 0 and rows.max() <= 1):
        where = int(np.argmin([bool(row.min() >= 0 and row.max() <= 1) for row in rows]))
        raise InputError(
            f"input {where}: expected values from 0 to 1 and no NaN for model {name!r}, got "
            f"{rows[where].min():g} to {rows[where].max():g}",
            param="input",
        )
    return rows


def _fits(item: np.ndarray, shape: tuple[int, int, int]) -> bool:
    """Return whether an input is a picture or a tensor of this shape."""
    if item.dtype == np.uint8:
        return shape[0] in (1, 3) and item.shape == (*shape[1:], 3)
    return item.dtype == np.float32 and item.shape == shape


def _tensor(item: np.ndarray, *, channels: int) -> np.ndarray:
    """Return a picture or a tensor as a tensor."""
    if item.dtype == np.uint8:
        if channels == 1:
            # In integers, so that a gray picture keeps its values.
            weighted = item.astype(np.uint32) @ np.array([_RED, _GREEN, _BLUE], np.uint32)
            item = ((weighted + 500) // 1000)[:, :, None]
        return np.moveaxis(item.astype(np.float32) / np.float32(255), 2, 0)
    return item
