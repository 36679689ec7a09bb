"""A classifier as its users see it: behind a response."""

from __future__ import annotations

from tollkeeper.encoders.base import Modality
from tollkeeper.encoders.classifiers.base import Classifier, canonical
from tollkeeper.errors import ConfigurationError
from tollkeeper.responses.base import Perturbation
from tollkeeper.types import Batch, Probabilities


class Responding:
    """Answers with what a response makes of a classifier's answers.

    Attributes:
        name: of the classifier.
        classes: names of the columns.
        input_shape: (c, h, w).
        dim: number of classes.
        accepts: what the classifier does.
    """

    def __init__(self, victim: Classifier, response: Perturbation, *, key: bytes) -> None:
        """Stand in front of a classifier of pictures.

        Raises:
            ConfigurationError: the classifier takes no pictures.
        """
        if victim.input_shape is None:
            raise ConfigurationError(
                f"expected a classifier of pictures, {victim.name} has no size"
            )
        self.name, self.classes, self.dim = victim.name, victim.classes, victim.dim
        self.input_shape: tuple[int, int, int] = victim.input_shape
        self.accepts: frozenset[Modality] = victim.accepts
        self._victim, self._response, self._key = victim, response, key

    def embed(self, inputs: Batch) -> Probabilities:
        """Return (n, k) changed probabilities."""
        images = canonical(inputs, self.input_shape, name=self.name)
        return self._response(images, self._victim.embed(images), key=self._key)
