"""The guarded encoder as one account sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.service import Guarded
from tollkeeper.types import Account, Embeddings


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


def modality_of(item: Any) -> str:
    """Return the modality of one input: a string, an image array, or token ids."""
    if isinstance(item, str):
        return "text"
    return "image" if isinstance(item, np.ndarray) and item.ndim == 3 else "tokens"
