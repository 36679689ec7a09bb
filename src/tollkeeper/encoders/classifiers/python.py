"""A user's own Python as a classifier."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tollkeeper.encoders.base import Modality
from tollkeeper.encoders.classifiers.base import (
    Classifier,
    canonical,
    checked_probabilities,
    class_names,
)
from tollkeeper.encoders.inputs import require
from tollkeeper.errors import ConfigurationError, EncoderError, TollkeeperError
from tollkeeper.types import Batch, Probabilities


class CallableClassifier:
    """Wraps a function from a batch to anything array-like of shape (n, k).

    Attributes:
        name: of the model.
        classes: names of the columns.
        input_shape: (c, h, w) of the float32 tensors that the function gets, stacked; None for a
            function of a list of texts.
        dim: number of classes.
        accepts: pictures and tensors, or text.
        rows_independent: whether company changes nothing.
    """

    def __init__(
        self,
        function: Callable[[Any], object],
        *,
        classes: tuple[str, ...],
        input_shape: tuple[int, int, int] | None,
        name: str = "callable",
        rows_independent: bool = False,
    ) -> None:
        """Wrap `function`, which is called from several threads at once when served.

        Raises:
            ConfigurationError: fewer than two classes, or names that are not different.
        """
        self.classes = class_names(classes, len(classes), whose=f"classifier {name!r}")
        self.name, self.input_shape, self.rows_independent = name, input_shape, rows_independent
        self.dim = len(self.classes)
        kinds = {"text"} if input_shape is None else {"image", "tensor"}
        self.accepts: frozenset[Modality] = frozenset(kinds)
        self._function = function

    def embed(self, inputs: Batch) -> Probabilities:
        """Call the function and check what it returns.

        Raises:
            InputError: an input it does not take, or the function refused it.
            EncoderError: the function failed, or its rows are no probabilities.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        require(inputs, self.accepts, name=self.name)
        shape = self.input_shape
        items = list(inputs) if shape is None else canonical(inputs, shape, name=self.name)
        try:
            found = self._function(items)
        except TollkeeperError:
            raise
        except Exception as error:
            # The text of a foreign error may quote inputs; only its type leaves.
            raise EncoderError(f"the classifier failed with {type(error).__name__}") from error
        return checked_probabilities(found, n=len(inputs), classes=self.dim)


def classifier_from_python(target: str) -> Classifier:
    """Resolve `module:attribute` to a classifier.

    The attribute is a classifier (`name`, `dim`, `accepts`, `classes`, `input_shape`, `embed`), a
    callable with the attributes `classes` and, for pictures, `input_shape`, or a factory of
    either, called without arguments.

    Raises:
        ConfigurationError: none of these, or the module failed.
    """
    module, _, attribute = target.partition(":")
    if not (module and attribute):
        raise ConfigurationError(f"python:{target}: expected python:module:attribute")
    try:
        found = getattr(importlib.import_module(module), attribute)
        classifier = _as_classifier(found, attribute)
        if classifier is None and callable(found):
            classifier = _as_classifier(found(), attribute)
    except ConfigurationError as error:
        raise ConfigurationError(f"python:{target}: {error}") from error
    except Exception as error:
        # A user's module may fail in any way; one line instead of a traceback.
        raise ConfigurationError(
            f"python:{target} failed: {type(error).__name__}: {error}; is the module's folder on "
            "PYTHONPATH?"
        ) from error
    if classifier is None:
        raise ConfigurationError(
            f"python:{target}: expected a classifier (name, dim, accepts, classes, input_shape, "
            "embed), a function with the attributes classes and input_shape, or a factory of either"
        )
    return classifier


def _as_classifier(found: Any, name: str) -> Classifier | None:
    """Return a classifier for a classifier or a function that tells its classes, else None."""
    if isinstance(found, type):
        return None
    if isinstance(found, Classifier):
        return found
    classes = getattr(found, "classes", None)
    if not callable(found) or classes is None:
        return None
    return CallableClassifier(
        found,
        classes=tuple(map(str, classes)),
        input_shape=_shape(getattr(found, "input_shape", None)),
        name=name,
        rows_independent=bool(getattr(found, "rows_independent", False)),
    )


def _shape(given: Any) -> tuple[int, int, int] | None:
    """Return (c, h, w), or None for text."""
    if given is None:
        return None
    sizes = tuple(given)
    if len(sizes) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ConfigurationError(f"expected input_shape to be (c, h, w), got {given!r}")
    return sizes
