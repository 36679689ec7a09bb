"""The guarded encoder, and the guarded classifier, as one account sees them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.service import Guarded, Service
from tollkeeper.types import Account, Embeddings, Probabilities


class View:
    """The guarded victim as an encoder: each call is charged to one account."""

    def __init__(self, service: Guarded, account: Account) -> None:
        """Look at `service` through `account`."""
        self._service = service
        self._account = account
        self.name = service.encoder.name
        self.dim = service.guard.out_dim(service.encoder.dim)
        self.accepts = service.encoder.accepts

    def embed(self, inputs: Iterable[Any]) -> Embeddings:
        """Embed n inputs as a request of this account: (n, d') float32.

        Raises:
            TollkeeperError: as for `Service.answer`.
        """
        items = tuple(inputs)
        if not items:
            return np.zeros((0, self.dim), np.float32)
        return self._service.answer(Ask(self._account, items, modality_of(items[0]))).embeddings


class ClassifierView:
    """The guarded victim as a classifier: each call is charged to one account."""

    def __init__(self, service: Service, classifier: Classifier, account: Account) -> None:
        """Look at the `service` of a classifier through `account`."""
        self._service = service
        self._account = account
        self.name = classifier.name
        self.dim = classifier.dim
        self.accepts = classifier.accepts
        self.classes = classifier.classes
        self.input_shape = classifier.input_shape

    def embed(self, inputs: Iterable[Any]) -> Probabilities:
        """Classify n inputs as a request of this account: (n, k) float32.

        Raises:
            TollkeeperError: as for `Service.answer`.
        """
        items = tuple(inputs)
        if not items:
            return np.zeros((0, self.dim), np.float32)
        return self._service.answer(Ask(self._account, items, modality_of(items[0]))).embeddings


def modality_of(item: Any) -> str:
    """Return the modality of one input: a string, an image, a tensor, or token ids."""
    if isinstance(item, str):
        return "text"
    if isinstance(item, np.ndarray) and item.ndim == 3:
        return "tensor" if item.dtype == np.float32 else "image"
    return "tokens"
